"""A file on trial, in a process of its own: checked before it is run, then run. numpy, onnx and onnxruntime, no torch.

These functions are called through `runtime.sandbox`: arguments and results are JSON, arrays lie in .npy files.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cnnbench.bundles import contract as contracts
from cnnbench.bundles.parity.comparison import batched
from cnnbench.pixels import to_graph_input
from cnnbench.records.schema import Contract
from cnnbench.runtime import providers
from cnnbench.types import CnnbenchError, Exit

PROFILED_IMAGES = 64
RACE_ROUNDS, RACE_SECONDS = 5, 0.3


def examine(
    model: str, contract: dict[str, Any], stated: dict[str, str], passes: list[dict[str, Any]], out: str
) -> list[dict[str, Any]]:
    """Check a file against its contract and what it must say of itself; then run every pass over it.

    The file is first copied alone into the empty folder that this process was started in, and read from there.

    Args:
        model: The ONNX file.
        contract: See `records.schema.Contract`, as JSON values.
        stated: See `contract.metadata`.
        passes: `{"provider", "optimized", "images": a .npy file (N, H, W, C) uint8, "sizes": {batch size: images},
            "profile"}`, each.
        out: A folder; the logits of pass i at batch size b are written there as `i-b.npy`.

    Returns:
        For each pass `{"active": ONNX Runtime's provider, "placement": {provider: {"nodes", "time"}}}`.

    Raises:
        CnnbenchError: The file cannot be read (exit 3), is not what is stated, does not run at some batch size, or its
            probabilities are not the softmax of its logits (exit 4).
    """
    here = Path("model.onnx").absolute()
    if not Path(model).is_file():
        raise CnnbenchError(f"{model} is missing", Exit.DATA)
    shutil.copyfile(model, here)
    expected = msgspec.convert(contract, Contract)
    try:
        contracts.check(contracts.read(here), expected, stated)
        return [_pass(here, expected, asked, Path(out) / str(index)) for index, asked in enumerate(passes)]
    except CnnbenchError as error:
        raise CnnbenchError(str(error).replace(str(here), model), error.code) from None


def _pass(model: Path, contract: Contract, asked: dict[str, Any], out: Path) -> dict[str, Any]:
    session = providers.open_session(model, asked["provider"], optimized=asked["optimized"])
    images = np.load(asked["images"], mmap_mode="r", allow_pickle=False)
    for size, count in asked["sizes"].items():
        logits = _logits(session, contract, images[:count], int(size))
        np.save(f"{out}-{size}.npy", logits)
    placement = _placement(model, contract, asked, images[:PROFILED_IMAGES]) if asked["profile"] else {}
    return {"active": session.get_providers()[0], "placement": placement}


def _logits(session: Any, contract: Contract, images: np.ndarray, size: int) -> np.ndarray:
    names = [output.name for output in contract.outputs]

    def run(pixels: np.ndarray) -> np.ndarray:
        logits: np.ndarray
        logits, *rest = session.run(names, {contracts.INPUT: to_graph_input(pixels, contract.input.dtype)})
        for probabilities in rest:
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            if np.abs(weights / weights.sum(axis=1, keepdims=True) - probabilities).max() > 1e-5:
                raise CnnbenchError("its probabilities are not the softmax of its logits", Exit.VERDICT)
        if len(logits) != len(pixels):
            raise CnnbenchError(f"a batch of {len(pixels)} gives {len(logits)} rows of logits", Exit.VERDICT)
        return logits

    try:
        return batched(run, images, size)
    except (CnnbenchError, MemoryError):
        raise
    except Exception as failure:  # ONNX Runtime's exception classes are private
        reason = str(failure).strip().split("\n")[0]
        raise CnnbenchError(f"the graph does not run with a batch of {size}: {reason}", Exit.VERDICT) from None


def _placement(
    model: Path, contract: Contract, asked: dict[str, Any], images: np.ndarray
) -> dict[str, dict[str, float]]:
    """Share of nodes and of kernel time of each provider, by ONNX Runtime's profile of one batch."""
    session = providers.open_session(
        model, asked["provider"], optimized=asked["optimized"], profile=model.parent / "profile"
    )
    _logits(session, contract, images, len(images))
    file = Path(session.end_profiling())
    events = [e for e in json.loads(file.read_text()) if e.get("cat") == "Node" and "provider" in e.get("args", {})]
    file.unlink()
    kernels = [(e["args"]["provider"], e["name"], e["dur"]) for e in events]
    nodes = {(provider, name) for provider, name, _ in kernels}
    spent = max(sum(dur for _, _, dur in kernels), 1)
    return {
        provider: {
            "nodes": sum(owner == provider for owner, _ in nodes) / len(nodes),
            "time": sum(dur for owner, _, dur in kernels if owner == provider) / spent,
        }
        for provider in sorted({provider for provider, _ in nodes})
    }


def race(models: dict[str, str], dtype: str, images: str) -> dict[str, list[float]]:
    """Median milliseconds of one image on one CPU thread, for each of `models` in each of several rounds.

    Calls take turns, so that whatever else the machine does strikes all alike.
    """
    sessions = {name: providers.open_session(path, "cpu", threads=1) for name, path in models.items()}
    feed = {contracts.INPUT: to_graph_input(np.load(images, allow_pickle=False)[:1], dtype)}

    def call(session: Any) -> float:
        start = time.perf_counter()
        session.run([contracts.LOGITS], feed)
        return time.perf_counter() - start

    slowest = max(min(call(session) for _ in range(5)) for session in sessions.values())
    calls = int(min(max(RACE_SECONDS / slowest / len(sessions), 10), 300))
    rounds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(RACE_ROUNDS):
        times = {name: np.empty(calls) for name in sessions}
        for index in range(calls):
            for name, session in sessions.items():
                times[name][index] = call(session)
        for name, samples in times.items():
            rounds[name].append(1e3 * float(np.median(samples)))
    return rounds
