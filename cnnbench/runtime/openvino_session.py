"""OpenVINO on the CPU, called as a session of ONNX Runtime is. Needs the extra `openvino`.

By default OpenVINO computes in bfloat16 where the processor has it, also what a file says in float32: of LeNet-5 the
logits are then off by 1e-2. Here it is told to keep float32; 8-bit integers of an int8 file stay integers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from cnnbench.types import CnnbenchError, Exit, first_line

# As it is imported, openvino writes an identifier into the home folder, for statistics of its use that it sends; where
# its telemetry cannot be imported, it does neither.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

PRECISION_HINT = {"INFERENCE_PRECISION_HINT": "f32"}


def require(provider: str = "cpu") -> None:
    """Make sure that openvino is installed and that it is asked for the CPU.

    Raises:
        CnnbenchError: Another provider than "cpu" (exit 2), or openvino is not installed (exit 6).
    """
    if provider != "cpu":
        raise CnnbenchError(f"--provider {provider} is ONNX Runtime's and torch's: openvino runs on cpu")
    try:
        import openvino  # noqa: F401
    except ImportError:
        raise CnnbenchError("openvino is not installed: pip install 'cnnbench[openvino]'", Exit.ENVIRONMENT) from None


def described() -> str:
    """Its version, and what it is told."""
    (hint,) = PRECISION_HINT.items()
    return f"openvino {metadata.version('openvino')} with {'='.join(hint)}"


@dataclass(frozen=True)
class OutputInfo:
    """An output of a file, as ONNX Runtime's NodeArg describes it; a side that is not fixed is text."""

    name: str
    shape: tuple[int | str, ...]


class OpenvinoSession:
    """A file compiled by OpenVINO for the CPU, computed in float32.

    Args:
        model: Path of the ONNX file.
        threads: Threads of one call; 0 leaves the choice to OpenVINO.

    Raises:
        CnnbenchError: openvino is not installed, or does not keep float32 (exit 6); it cannot read the file (exit 3).
    """

    def __init__(self, model: str | Path, *, threads: int = 0) -> None:
        require()
        import openvino

        options = {**PRECISION_HINT, **({"INFERENCE_NUM_THREADS": threads} if threads else {})}
        try:
            self._compiled: Any = openvino.Core().compile_model(str(model), "CPU", options)
        except Exception as error:  # its own classes are private
            raise CnnbenchError(f"openvino cannot read {model}: {first_line(error)}", Exit.DATA) from None
        name, wanted = next(iter(PRECISION_HINT.items()))
        kept = str(self._compiled.get_property(name).to_string())
        if kept != wanted:
            raise CnnbenchError(f"openvino keeps {name} {kept}; expected {wanted}", Exit.ENVIRONMENT)
        self.settings: dict[str, str] = {name: kept}
        """What the compiled file says of the precision that it computes in."""

    def run(self, names: Sequence[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs of these names, as `InferenceSession.run` returns them."""
        results = self._compiled(feed)
        return [results[name] for name in names]

    def get_outputs(self) -> list[OutputInfo]:
        """As of a session of ONNX Runtime: names and shapes."""
        return [
            OutputInfo(
                output.any_name,
                tuple(side.get_length() if side.is_static else str(side) for side in output.get_partial_shape()),
            )
            for output in self._compiled.outputs
        ]

    def get_providers(self) -> list[str]:
        """As of a session of ONNX Runtime: what it runs on."""
        return ["OpenVINO CPU"]
