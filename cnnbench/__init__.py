"""cnnbench: which network to ship for small images, and what it costs, answered with evidence.

`import cnnbench` imports nothing heavy; each name below imports what it needs when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cnnbench.architectures  # noqa: F401 - bound before the function of its name, or it would replace it later
from cnnbench.types import CnnbenchError, Cost

if TYPE_CHECKING:
    from pathlib import Path

    from cnnbench.runtime.predict import Model

__all__ = ["CnnbenchError", "architectures", "cost", "load"]


def architectures() -> list[str]:
    """Names of all registered architectures."""
    from cnnbench.architectures import architecture

    return list(architecture)


def cost(arch: str, height: int = 32, width: int = 32, channels: int = 3, num_classes: int = 10) -> Cost:
    """Parameters, MACs, activations and depth of an architecture for one image, counted without running it.

    Raises:
        CnnbenchError: Unknown architecture, or a size it cannot take.
    """
    from cnnbench.analysis.cost import cost as count
    from cnnbench.types import ImageSpec

    return count(arch, ImageSpec(height, width, channels, num_classes))


def load(bundle: str | Path) -> Model:
    """The network of an exported bundle, ready for `.predict(images)`; needs no torch."""
    from cnnbench.runtime.predict import Model

    return Model(bundle)
