"""ONNX Runtime sessions that run on the requested provider, or not at all.

`get_available_providers()` lists what was compiled in, not what works: a request for CUDA without a GPU prints a
warning and runs on the CPU. Here every session is checked, and falling back to the CPU is forbidden.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnxruntime

from cnnbench import environment
from cnnbench.runtime import sandbox
from cnnbench.types import CnnbenchError, Exit, first_line

PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    # TF32 rounds products to 10 bits of mantissa, which would hide a wrong export behind a loose tolerance
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}
"""Our short name: ONNX Runtime's name and its options."""

Level = Literal["on", "off", "basic", "extended"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""Levels of graph optimisation; all are on by default."""
ORT_LEVELS: dict[Level, str] = {
    "on": "ORT_ENABLE_ALL",
    "off": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
}
"""ONNX Runtime's names of them."""

QUIET, ERRORS = 4, 2
"""ONNX Runtime's log levels: fatal errors only, since errors are raised; and everything from warnings up."""


def open_session(
    model: str | Path | bytes,
    provider: str = "cpu",
    *,
    threads: int = 0,
    level: Level = "on",
    profile: Path | None = None,
) -> onnxruntime.InferenceSession:
    """A session on `provider` alone.

    Args:
        model: Path of the ONNX file, or its bytes.
        provider: "cpu" or "cuda".
        threads: Threads within an operator; 0 leaves the choice to ONNX Runtime.
        level: Which of its graph optimisations are on: all as by default, none, or those of a level between.
        profile: Where to write its profile, without suffix.

    Raises:
        CnnbenchError: The provider is unknown (exit 2) or cannot be used here (exit 6), or the file is not a
            readable ONNX model (exit 3).
    """
    if provider not in PROVIDERS:
        raise CnnbenchError(f"unknown provider {provider!r}: expected {' or '.join(PROVIDERS)}")
    name = PROVIDERS[provider][0]
    if name not in onnxruntime.get_available_providers():
        raise CnnbenchError(
            f"provider {provider} is not in this onnxruntime {onnxruntime.__version__}: "
            f"on Linux or Windows on x86-64, {environment.cuda_wheel()}",
            Exit.ENVIRONMENT,
        )
    if isinstance(model, str | Path) and Path(model).exists() and not Path(model).is_file():  # a pipe is waited for
        raise CnnbenchError(f"{model} is not a readable ONNX file: it is not a file", Exit.DATA)
    try:
        session = _session(model, provider, threads=threads, level=level, profile=profile)
    except Exception as error:  # its classes are private; which of the two it is decides the exit code
        if provider != "cpu":
            raise _unusable(provider, str(error)) from None
        where = "the model" if isinstance(model, bytes) else str(model)
        raise CnnbenchError(f"{where} is not a readable ONNX file: {first_line(error)}", Exit.DATA) from None
    if session.get_providers()[0] != name:
        raise _unusable(provider, f"ONNX Runtime chose {session.get_providers()[0]}")
    return session


def _session(
    model: str | Path | bytes,
    provider: str,
    *,
    threads: int = 0,
    level: Level = "on",
    profile: Path | None = None,
    log_level: int = QUIET,
) -> onnxruntime.InferenceSession:
    onnxruntime.set_default_logger_severity(log_level)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = log_level
    settings.intra_op_num_threads = threads
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, ORT_LEVELS[level])
    if profile:
        settings.enable_profiling, settings.profile_file_prefix = True, str(profile)
    if provider != "cpu":
        onnxruntime.preload_dlls()  # finds the CUDA libraries that torch's wheels brought
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), settings, providers=[PROVIDERS[provider]]
    )


def require(provider: str) -> None:
    """Run a tiny model on `provider`.

    Raises:
        CnnbenchError: It is unknown (exit 2), or cannot be used here (exit 6), with ONNX Runtime's reason.
    """
    session = open_session(tiny_model(), provider)
    result: Any = session.run(None, {"x": np.ones((1, 1), np.float32)})[0]
    if result.item() != 2:
        raise CnnbenchError(f"provider {provider} computed 1 + 1 = {result.item()}", Exit.ENVIRONMENT)


def usable() -> dict[str, str]:
    """Every known provider with the reason why it cannot be used, empty where a session ran on it."""
    return {provider: _try(provider) for provider in PROVIDERS}


def _try(provider: str) -> str:
    try:
        require(provider)
    except CnnbenchError as error:
        return str(error)
    return ""


def tiny_model() -> bytes:
    """y = x + x, as an ONNX file in memory."""
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "tiny", [x], [y])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    data: bytes = model.SerializeToString()
    return data


def _unusable(provider: str, message: str) -> CnnbenchError:
    reason = ""
    with contextlib.suppress(OSError):  # a confined process starts no other
        reason = sandbox.call(logged_reason, provider, about=f"provider {provider}", memory=0, devices=True)
    return CnnbenchError(f"provider {provider} cannot be used here: {reason or first_line(message)}", Exit.ENVIRONMENT)


def logged_reason(provider: str) -> str:
    """Why `provider` does not load, from ONNX Runtime's log: the exception names the fallback only.

    Redirects this process's standard error, so it is called in a separate process.
    """
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        with contextlib.suppress(Exception):
            _session(tiny_model(), provider, log_level=ERRORS)
        log.seek(0)
        text = re.sub(r"\x1b\[[0-9;]*m", "", log.read().decode(errors="replace"))
    causes = [re.sub(r"^.*?\] (/\S+ )?", "", line).strip() for line in text.splitlines() if "fallback" not in line]
    # a library that did not load is named behind the last "with error:"
    loading = [cause.rsplit("with error: ", 1)[1] for cause in causes if "with error: " in cause]
    needs = re.search(r"Require (.*?)\. Please", text)
    return "; ".join(
        [*(loading or [cause for cause in causes if cause][:1]), *([f"it needs {needs[1]}"] if needs else [])]
    )
