"""A file in a separate process: checked before it is run, then run. numpy, onnx and onnxruntime, no torch.

These functions are called through `runtime.sandbox`: requests and answers are Structs, arrays lie in .npy files.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from cnnbench.bundles import contract as contracts
from cnnbench.bundles.parity import lower
from cnnbench.bundles.parity.comparison import batched
from cnnbench.pixels import to_graph_input
from cnnbench.records.bundle import Contract, Proof, Share
from cnnbench.runtime import openvino_session, providers
from cnnbench.types import CnnbenchError, Exit, ImageSpec, first_line

Backend = Literal["onnxruntime", "openvino"]
PROFILED_IMAGES = 64
RACE_ROUNDS, RACE_SECONDS = 5, 0.3


class PassRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One pass over the images.

    Args:
        level: Which of ONNX Runtime's graph optimisations are on.
        sizes: Images to compute at each batch size, from the first.
        profile: Whether to say which provider ran which nodes.
    """

    level: providers.Level
    sizes: dict[int, int]
    profile: bool


class PassAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a pass used: ONNX Runtime's name of its provider, and the share of each provider where it was profiled."""

    active: str
    placement: dict[str, Share]


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """What to check a file against, and what to run it on.

    Args:
        model: Path of the ONNX file.
        contract: The contract of its graph.
        metadata: The metadata it must have; see `contract.metadata`.
        provider: Short name of the provider to run it on.
        images: Path of a .npy file `(N, H, W, C)` uint8.
        passes: The passes to run.
        out: A folder; the logits of pass i at batch size b are written there as `i-b.npy`.
        control_flow: Whether the network itself has branches or loops.
        temperature: By which the logits are divided before the softmax.
        backend: What runs it. OpenVINO has one level of graph optimisations, whatever a pass asks for.
    """

    model: str
    contract: Contract
    metadata: dict[str, str]
    provider: str
    images: str
    passes: tuple[PassRequest, ...]
    out: str
    control_flow: bool = False
    temperature: float = 1.0
    backend: Backend = "onnxruntime"


class ExactRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A float32 file to compare with its proof, and to evaluate in float64.

    Args:
        model: Path of the ONNX file.
        contract: The contract of its graph.
        proof: What the manifest says of its constants.
        spec: What the manifest says of its images, and how they are normalised.
        images: Path of a .npy file `(N, H, W, C)` uint8.
        seconds: After which no more images are evaluated, unless they are fewer than `least`.
        least: Images to evaluate in any case.
        out: A file; the logits of the images that were evaluated are written there.
    """

    model: str
    contract: Contract
    proof: Proof
    spec: ImageSpec
    images: str
    seconds: float
    least: int
    out: str


class LowerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A file of lower precision, the float32 file that it was made from, and which precision it is."""

    model: str
    fp32: str
    precision: lower.Lower


class RaceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Paths of two ONNX files with the same contract, the type of their input, and the path of their images."""

    candidate: str
    fp32: str
    dtype: str
    images: str


class Race(msgspec.Struct, frozen=True, kw_only=True):
    """Median milliseconds of one image on one CPU thread, per round, of two files in turn."""

    candidate: tuple[float, ...]
    fp32: tuple[float, ...]


def examine(request: Examination) -> tuple[PassAnswer, ...]:
    """Check a file against its contract and its metadata; then run every pass.

    The file is first copied alone into the empty folder that this process was started in, and read from there.

    Raises:
        CnnbenchError: The file cannot be read (exit 3), breaks the contract, does not run at some batch size, or its
            probabilities are not the softmax of its logits (exit 4).
    """
    with _copied(request.model) as copy:
        model = contracts.read(copy)
        contracts.check(model, request.contract, metadata=request.metadata, control_flow=request.control_flow)
        return tuple(_run_pass(copy, request, index) for index in range(len(request.passes)))


def evaluate(request: ExactRequest) -> int:
    """Compare every constant of a file with the proof, evaluate the file in float64; returns the images it was for.

    Raises:
        CnnbenchError: A constant differs from the proof, or the file cannot be evaluated (exit 4).
    """
    from cnnbench.bundles.parity import exact, weights  # onnx's reference implementation takes a while to import

    with _copied(request.model) as copy:
        model = contracts.read(copy)
        weights.compare(model, request.proof)
        weights.compare_normalisation(model, request.spec)
        if request.proof.control_flow and not contracts.has_control_flow(model):
            raise CnnbenchError("the proof claims branches or loops; the file has none", Exit.VERDICT)
        literals = weights.by_rounding(request.proof.literals)
        file = exact.InFloat64(model, literals=literals, parameters=weights.of_parameters(request.proof.constants))
        images = np.load(request.images, mmap_mode="r", allow_pickle=False)
        logits: list[np.ndarray] = []
        began = time.monotonic()
        while len(logits) < len(images) and (len(logits) < request.least or time.monotonic() - began < request.seconds):
            batch = images[len(logits) : len(logits) + 2]
            logits += list(file.logits(to_graph_input(batch, request.contract.input.dtype)))
        if logits:
            np.save(request.out, np.stack(logits))
        return len(logits)


def compare(request: LowerRequest) -> lower.Lowered:
    """Compare a file of lower precision with the float32 file, number by number; see `lower.compare`.

    Raises:
        CnnbenchError: One cannot be read (exit 3), or it is not the float32 file, rounded (exit 4).
    """
    model, fp32 = (contracts.read(Path(file)) for file in (request.model, request.fp32))
    try:
        return lower.compare(request.precision, model, fp32=fp32)
    except (CnnbenchError, MemoryError):
        raise
    except Exception as error:  # whatever a node of another's file lacks
        raise CnnbenchError(f"it cannot be compared with float32: {first_line(error)}", Exit.VERDICT) from None


@contextmanager
def _copied(model: str) -> Iterator[Path]:
    """A file alone in the empty folder that this process was started in; messages name the file itself."""
    copy = Path("model.onnx").absolute()
    if not Path(model).is_file():
        raise CnnbenchError(f"{model} is missing", Exit.DATA)
    shutil.copyfile(model, copy)
    try:
        yield copy
    except CnnbenchError as error:
        raise CnnbenchError(str(error).replace(str(copy), model), error.code) from None


def _run_pass(model: Path, request: Examination, index: int) -> PassAnswer:
    wanted = request.passes[index]
    if request.backend == "openvino":
        session: Any = openvino_session.OpenvinoSession(model)
    else:
        session = providers.open_session(model, request.provider, level=wanted.level)
    images = np.load(request.images, mmap_mode="r", allow_pickle=False)
    for size, count in wanted.sizes.items():
        logits = logits_of(session, request.contract, images=images[:count], size=size, temperature=request.temperature)
        np.save(Path(request.out) / f"{index}-{size}.npy", logits)
    placement = _placement(model, request, wanted.level, images[:PROFILED_IMAGES]) if wanted.profile else {}
    return PassAnswer(active=session.get_providers()[0], placement=placement)


def logits_of(
    session: Any, contract: Contract, *, images: np.ndarray, size: int, temperature: float = 1.0
) -> np.ndarray:
    """Logits `(N, num_classes)` of images `(N, H, W, C)` uint8, in batches of `size`.

    Raises:
        CnnbenchError: The graph does not run so, or its probabilities are not the softmax of its logits (exit 4).
    """
    names = [output.name for output in contract.outputs]

    def run(pixels: np.ndarray) -> np.ndarray:
        logits: np.ndarray
        logits, *rest = session.run(names, {contracts.INPUT: to_graph_input(pixels, contract.input.dtype)})
        for probabilities in rest:
            weights = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
            if not np.abs(weights / weights.sum(axis=1, keepdims=True) - probabilities).max() <= 1e-5:  # NaN, too
                raise CnnbenchError("its probabilities are not the softmax of its logits", Exit.VERDICT)
        if len(logits) != len(pixels):
            raise CnnbenchError(f"a batch of {len(pixels)} gives {len(logits)} rows of logits", Exit.VERDICT)
        return logits

    try:
        return batched(run, images, size=size)
    except (CnnbenchError, MemoryError):
        raise
    except Exception as failure:  # ONNX Runtime's exception classes are private
        raise CnnbenchError(
            f"the graph does not run with a batch of {size}: {first_line(failure)}", Exit.VERDICT
        ) from None


def _placement(model: Path, request: Examination, level: providers.Level, images: np.ndarray) -> dict[str, Share]:
    """Share of nodes and of kernel time of each provider, by ONNX Runtime's profile of one batch."""
    profile = model.parent / "profile"
    session = providers.open_session(model, request.provider, level=level, profile=profile)
    logits_of(session, request.contract, images=images, size=len(images), temperature=request.temperature)
    file = Path(session.end_profiling())
    events = [e for e in json.loads(file.read_text()) if e.get("cat") == "Node" and "provider" in e.get("args", {})]
    file.unlink()
    kernels = [(e["args"]["provider"], e["name"], e["dur"]) for e in events]
    nodes = {(provider, name) for provider, name, _ in kernels}
    total = max(sum(duration for _, _, duration in kernels), 1)
    return {
        provider: Share(
            nodes=sum(owner == provider for owner, _ in nodes) / len(nodes),
            time=sum(duration for owner, _, duration in kernels if owner == provider) / total,
        )
        for provider in sorted({provider for provider, _ in nodes})
    }


def race(request: RaceRequest) -> Race:
    """Time one image on both files in several rounds.

    Calls alternate, so that whatever else the machine does affects both alike.
    """
    files = {"candidate": request.candidate, "fp32": request.fp32}
    sessions = {name: providers.open_session(file, "cpu", threads=1) for name, file in files.items()}
    feed = {contracts.INPUT: to_graph_input(np.load(request.images, allow_pickle=False)[:1], request.dtype)}

    slowest = max(min(seconds_of_call(session, feed) for _ in range(5)) for session in sessions.values())
    calls = int(min(max(RACE_SECONDS / slowest / len(sessions), 10), 300))
    medians: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(RACE_ROUNDS):
        seconds = {name: np.empty(calls) for name in sessions}
        for index in range(calls):
            for name, session in sessions.items():
                seconds[name][index] = seconds_of_call(session, feed)
        for name, samples in seconds.items():
            medians[name].append(1e3 * float(np.median(samples)))
    return Race(candidate=tuple(medians["candidate"]), fp32=tuple(medians["fp32"]))


def seconds_of_call(session: Any, feed: dict[str, np.ndarray]) -> float:
    """Wall clock of one call."""
    start = time.perf_counter()
    session.run([contracts.LOGITS], feed)
    return time.perf_counter() - start
