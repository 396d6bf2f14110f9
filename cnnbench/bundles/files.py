"""The files of a bundle: each made from the float32 graph, verified, and kept or refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cnnbench import records
from cnnbench.bundles import contract, quantise
from cnnbench.bundles.parity import lower
from cnnbench.bundles.parity import run as parity
from cnnbench.records.bundle import PrecisionFile, file_name
from cnnbench.types import CnnbenchError, Exit

if TYPE_CHECKING:
    import onnx

FLIPS_HEADER = ("file", "provider", "optimized", "image", "label", "pytorch", "onnxruntime", "margin", "rounding")
FlipRow = tuple[str | int | float, ...]


@dataclass(frozen=True)
class MadeFile:
    """One file of a bundle: its record, and the images whose class it changes.

    And its logits of the test images `(N, num_classes)` and its classes of the validation images `(M,)`.
    """

    record: PrecisionFile
    flips: tuple[FlipRow, ...]
    logits: np.ndarray
    val_predictions: np.ndarray


def write_file(
    candidate: parity.Candidate,
    reference: parity.ReferenceLogits,
    *,
    fp32: onnx.ModelProto,
    images: np.ndarray,
    providers: Sequence[str],
    max_accuracy_loss: float,
) -> MadeFile:
    """Make one file from the float32 graph and verify it; a refused one is removed again.

    Args:
        candidate: What to make, and where.
        reference: PyTorch's logits.
        fp32: The float32 graph.
        images: The training images `(N, H, W, C)` uint8, to quantise by.
        providers: Where to verify it.
        max_accuracy_loss: Points of accuracy on the validation split that a file of lower precision may lose.

    Raises:
        CnnbenchError: The float32 file is refused (exit 4).
    """
    file, precision = candidate.file, candidate.precision
    try:
        clamped = _make(candidate, fp32, images)
        outcome = parity.verify_file(
            candidate,
            reference,
            providers=providers,
            max_accuracy_loss=max_accuracy_loss,
            fp32=None if precision == "fp32" else file.with_name(file_name("fp32")),
        )
    except CnnbenchError as error:
        if precision == "fp32":
            raise
        reason = str(error).replace(str(file.absolute()), file.name)
        unverified = _unverified(candidate, reason, max_accuracy_loss)
        outcome = parity.FileOutcome(unverified, (), reference.val_logits.argmax(1))
    if not outcome.record.refused:
        rows = tuple(_flip_rows(file.name, outcome.passes, reference.labels))
        record = records.replace(outcome.record, clamped=clamped)
        return MadeFile(record, rows, outcome.passes[0].logits, outcome.val_predictions)
    if precision == "fp32":
        raise CnnbenchError(
            f"the ONNX file is not the trained network: {outcome.record.refused}; nothing was written", Exit.VERDICT
        )
    file.unlink(missing_ok=True)
    return MadeFile(outcome.record, (), reference.logits, outcome.val_predictions)


def _make(candidate: parity.Candidate, fp32: onnx.ModelProto, images: np.ndarray) -> int:
    """Make and write one file from the float32 graph; returns how many of its weights are at the limit of float16.

    Args:
        candidate: What to make, and where.
        fp32: The float32 graph.
        images: The training images `(N, H, W, C)` uint8.

    Raises:
        CnnbenchError: It cannot be made, or it is not the float32 graph, rounded (exit 4).
    """
    from cnnbench.bundles import graph

    model = quantise.make(candidate.precision, fp32, images=images, dtype=candidate.contract.input.dtype)
    graph.sign(model, candidate.metadata)
    graph.save(model, candidate.file)
    if candidate.precision == "fp32":
        return 0
    return lower.compare(candidate.precision, contract.read(candidate.file), fp32=fp32).clamped


def _unverified(candidate: parity.Candidate, reason: str, max_accuracy_loss: float) -> PrecisionFile:
    """The record of a file that could not be made or run."""
    file = candidate.file
    return PrecisionFile(
        precision=candidate.precision,
        file=file.name,
        bytes=file.stat().st_size if file.exists() else 0,
        refused=reason,
        budget_points=max_accuracy_loss,
        lost_points=0.0,
        test_lost_points=0.0,
        latency_ms=None,
        fp32_latency_ms=None,
        passes=(),
    )


def _flip_rows(file: str, passes: Sequence[parity.PassOutcome], labels: np.ndarray) -> Iterator[FlipRow]:
    """One row per image that changes class, see `FLIPS_HEADER`; classes are numbers, margins PyTorch's logits."""
    for outcome in passes:
        flips, optimized = outcome.flips, "on" if outcome.figures.optimized else "off"
        for image, expected, actual, margin in zip(
            flips.images, flips.expected, flips.actual, flips.margins, strict=True
        ):
            row = (file, outcome.figures.provider, optimized, int(image), int(labels[image]), int(expected))
            yield (*row, int(actual), float(margin), "yes" if margin <= 2 * flips.bound else "no")
