"""cnnbench: which network to ship for small images, and what it costs, answered with evidence.

`import cnnbench` imports nothing heavy; a public name is imported when it is first used. They are listed and documented
in `cnnbench.api`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reads it when it is first imported

from cnnbench.api import __all__

if TYPE_CHECKING:
    from cnnbench.api import *  # noqa: F403

    __version__: str
else:  # type checkers would believe that every name exists

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            return version("cnnbench")
        if name not in __all__:
            raise AttributeError(f"module 'cnnbench' has no attribute {name!r}")
        from cnnbench import api

        return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
