"""The files that a network would be shipped as, made and scored on validation images alone, before one is chosen.

Nothing is proven here: `export_run` does that, for the network that was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnbench.bundles import contract, quantise
from cnnbench.bundles.parity import child, comparison
from cnnbench.bundles.parity import run as parity
from cnnbench.records.bundle import Precision
from cnnbench.runtime import providers
from cnnbench.types import SEED, CnnbenchError, ImageSpec

SECONDS = 0.5
"""In calls of one image; at least `LEAST_CALLS` are timed, which a 90th percentile takes."""
LEAST_CALLS, MOST_CALLS = 100, 1000
CALIBRATION = 64
"""Random images that an untrained network is quantised by: its time depends on no value."""


@dataclass(frozen=True)
class TrialFile:
    """One file. A refused one has no other figure."""

    precision: Precision
    refused: str = ""
    bytes: int | None = None
    correct: int = 0
    """Correct validation images, in the worse of two passes: graph optimisations on and off."""
    images: int = 0
    seconds: tuple[float, ...] = ()
    """Seconds of each call with one image, on one thread."""


def try_files(
    source: str | Path, *, precisions: Sequence[Precision], max_accuracy_loss: float, folder: str | None = None
) -> tuple[TrialFile, ...]:
    """Make the file of each precision, fp32 first, run it on the validation images, and time it.

    Args:
        source: A run folder.
        precisions: Precisions of the files.
        max_accuracy_loss: Points of validation accuracy that a file of lower precision may lose.
        folder: Folder of your own images, if it is not the one the run used.

    Raises:
        CnnbenchError: As `bundle.open_run`; the network cannot be exported, or its float32 file gives other logits
            (exit 4).
    """
    from cnnbench.bundles import graph
    from cnnbench.bundles.bundle import open_run
    from cnnbench.bundles.parity.reference import torch_logits

    run = open_run(source, folder=folder)
    network, spec, val = run.classifier.network, run.record.spec, run.data.val
    agreed = contract.contract_of(spec)
    expected = torch_logits(network, val.images)
    right = int((expected.argmax(1) == val.labels).sum())
    fp32 = graph.to_onnx(network, spec, metadata={}).model
    files = []
    for precision in quantise.with_fp32(precisions):
        signed = contract.metadata(
            arch=run.record.arch,
            precision=precision,
            dataset=run.data.name,
            class_names=run.data.class_names,
            contract=agreed,
            weights_sha256=graph.weights_sha256(network),
            accuracy=right / len(val),
        )
        try:
            model = quantise.make(precision, fp32, images=run.data.train.images, dtype=agreed.input.dtype)
            graph.sign(model, signed)
            content = model.SerializeToString()
            passes = [
                child.logits_of(
                    providers.open_session(content, "cpu", level=level),
                    agreed,
                    images=val.images,
                    size=comparison.CHUNK,
                )
                for level in parity.BY_LEVEL
            ]
        except CnnbenchError as error:
            if precision == "fp32":
                raise
            files.append(TrialFile(precision, str(error)))
            continue
        if precision == "fp32":
            _require_same(expected, passes)
        correct = min(int((logits.argmax(1) == val.labels).sum()) for logits in passes)
        lost = parity.points_lost(right, [correct], images=len(val))
        if precision != "fp32" and (refused := parity.refusal_of_lower(lost, max_accuracy_loss)):
            files.append(TrialFile(precision, refused))
            continue
        seconds = _seconds(content, val.images[:1])
        files.append(TrialFile(precision, "", len(content), correct, len(val), seconds))
    return tuple(files)


def time_untrained(
    arch: str, spec: ImageSpec, *, precisions: Sequence[Precision]
) -> dict[Precision, tuple[float, ...]]:
    """Seconds of calls with one image, on one thread, of a network's files before it is trained.

    A precision that cannot be made is missing.

    Raises:
        CnnbenchError: The network cannot be built or exported (exit 2 or 4).
    """
    from cnnbench.architectures import build
    from cnnbench.bundles import graph

    fp32 = graph.to_onnx(build(arch, spec).eval(), spec, metadata={}).model
    shape = (CALIBRATION, spec.height, spec.width, spec.channels)
    images = np.random.RandomState(SEED).randint(0, 256, shape).astype(np.uint8)
    found: dict[Precision, tuple[float, ...]] = {}
    for precision in precisions:
        try:
            model = quantise.make(precision, fp32, images=images, dtype="uint8")
        except CnnbenchError:
            continue
        found[precision] = _seconds(model.SerializeToString(), images[:1])
    return found


def _require_same(expected: np.ndarray, passes: Sequence[np.ndarray]) -> None:
    """Refuse a float32 file that is not the network, as far as validation images tell. Raises CnnbenchError (4)."""
    from cnnbench.types import Exit

    bound = comparison.error_bound(0.0, float(np.abs(expected).max()))
    for logits in passes:
        error = comparison.errors(expected, logits).max_abs_error
        if not error <= bound:
            raise CnnbenchError(
                f"the ONNX file is not the trained network: on validation images its logits differ by {error:.2g} "
                f"(bound {bound:.2g})",
                Exit.VERDICT,
            )


def _seconds(content: bytes, image: np.ndarray) -> tuple[float, ...]:
    session = providers.open_session(content, "cpu", threads=1)
    feed = {contract.INPUT: image}
    for _ in range(5):
        child.seconds_of_call(session, feed)
    seconds: list[float] = []
    while len(seconds) < LEAST_CALLS or (sum(seconds) < SECONDS and len(seconds) < MOST_CALLS):
        seconds.append(child.seconds_of_call(session, feed))
    return tuple(seconds)
