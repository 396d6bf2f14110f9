"""ONNX Runtime sessions that run where they were asked to run, or not at all.

`get_available_providers()` tells what was compiled in, not what works: asking for CUDA without a GPU prints a
warning and runs on the CPU. Here every session is checked, with falling back to the CPU forbidden.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from cnnbench.types import CnnbenchError, Exit

PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    # TF32 rounds products to 10 bits of mantissa, which would hide a wrong export behind a loose tolerance
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}
"""Our short name: ONNX Runtime's name and its options."""

QUIET = 4  # of ONNX Runtime's log levels: fatal only; what goes wrong is raised, not logged


def open_session(model: str | Path | bytes, provider: str = "cpu", threads: int = 0) -> onnxruntime.InferenceSession:
    """A session on `provider` alone.

    Args:
        model: Path of the ONNX file, or its bytes.
        provider: "cpu" or "cuda".
        threads: Threads within an operator; 0 leaves the choice to ONNX Runtime.

    Raises:
        CnnbenchError: The provider is unknown (exit 2) or cannot be used here (exit 6), or the file is not a
            readable ONNX model (exit 3).
    """
    if provider not in PROVIDERS:
        raise CnnbenchError(f"unknown provider {provider!r}: expected {' or '.join(PROVIDERS)}")
    name, options = PROVIDERS[provider]
    if name not in onnxruntime.get_available_providers():
        raise CnnbenchError(
            f"provider {provider} is not in this onnxruntime {onnxruntime.__version__}; "
            "it needs the onnxruntime-gpu wheel, on Linux or Windows, x86-64",
            Exit.ENVIRONMENT,
        )
    onnxruntime.set_default_logger_severity(QUIET)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = QUIET
    settings.intra_op_num_threads = threads
    if provider != "cpu":
        onnxruntime.preload_dlls()  # finds the CUDA libraries that torch's wheels brought
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), settings, providers=[(name, options)]
        )
    except Exception as error:  # its classes are private; which of the two it is decides the exit code
        if provider != "cpu":
            raise _unusable(provider, str(error)) from None
        where = "the model" if isinstance(model, bytes) else str(model)
        raise CnnbenchError(f"{where} is not a readable ONNX file: {_first_line(str(error))}", Exit.DATA) from None
    if session.get_providers()[0] != name:
        raise _unusable(provider, f"ONNX Runtime chose {session.get_providers()[0]}")
    return session


def usable() -> dict[str, str]:
    """Every provider we know, and "" where a session really ran on it, else why not."""
    return {provider: _try(provider) for provider in PROVIDERS}


def _try(provider: str) -> str:
    try:
        session = open_session(tiny_model(), provider)
    except CnnbenchError as error:
        return str(error)
    result: Any = session.run(None, {"x": np.ones((1, 1), np.float32)})[0]
    return "" if result.item() == 2 else f"{provider} computed 1 + 1 = {result.item()}"


def tiny_model() -> bytes:
    """y = x + x, as an ONNX file in memory."""
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "tiny", [x], [y])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    data: bytes = model.SerializeToString()
    return data


def _unusable(provider: str, reason: str) -> CnnbenchError:
    return CnnbenchError(
        f"provider {provider} cannot be used here (no device, or its libraries did not load): {_first_line(reason)}",
        Exit.ENVIRONMENT,
    )


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0]
