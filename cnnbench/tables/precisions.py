"""One row per file of the bundles: fp32, fp16 and int8, kept or refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnnbench.records.bundle import ExportRecord, PrecisionFile
from cnnbench.tables.columns import Column
from cnnbench.tables.text import count, milliseconds, percent_digits


@dataclass(frozen=True)
class PrecisionRow:
    """One file of a bundle; the latencies are those that decided when it was exported."""

    task: str
    precision: str
    accuracy: float | None
    accuracy_low: float | None
    """95 % interval of this file's accuracy for new images (Wilson)."""
    accuracy_high: float | None
    correct: int | None
    images: int
    lost_points: float | None
    """Points of accuracy below PyTorch's, in the worst pass."""
    bytes: int
    latency_ms: float | None
    fp32_latency_ms: float | None
    fate: str
    """`kept`, or `refused` with the reason."""


PRECISION_COLUMNS = [
    Column("task", "task"),
    Column("precision", "precision", priority=9),
    Column("accuracy", "test accuracy", percent_digits, unit="%", right=True, short="accuracy, %", priority=9),
    Column("accuracy_low", "95 % interval from", percent_digits, unit="%", right=True, short="from, %", priority=3),
    Column("accuracy_high", "to", percent_digits, unit="%", right=True, priority=3),
    Column("correct", "right", count, right=True, priority=4),
    Column("images", "of images", count, right=True, priority=4),
    Column("lost_points", "points lost on validation", "{:.2f}".format, right=True, short="points lost"),
    Column("bytes", "bytes", count, right=True, priority=7),
    Column("latency_ms", "1 image, 1 thread", milliseconds, unit="ms", right=True, short="1 image, ms", priority=7),
    Column("fp32_latency_ms", "fp32, interleaved", milliseconds, unit="ms", right=True, short="fp32, ms", priority=2),
    Column("fate", "kept or refused"),
]


def precision_rows(bundles: Sequence[ExportRecord]) -> list[PrecisionRow]:
    """The files of the bundles, sorted by task."""
    ordered = sorted(bundles, key=lambda bundle: bundle.task)
    return [_row(bundle, file) for bundle in ordered for file in bundle.variants]


def _row(bundle: ExportRecord, file: PrecisionFile) -> PrecisionRow:
    from cnnbench.analysis.statistics import proportion_interval

    images = bundle.reference.images
    accuracy = bundle.accuracy(file) if file.passes else None
    ends = None if accuracy is None else proportion_interval(accuracy, images)
    return PrecisionRow(
        task=bundle.task,
        precision=file.precision,
        accuracy=accuracy,
        accuracy_low=ends.low if ends else None,
        accuracy_high=ends.high if ends else None,
        correct=file.passes[0].correct if file.passes else None,
        images=images,
        lost_points=file.lost_points if file.passes else None,
        bytes=file.bytes,
        latency_ms=file.latency_ms,
        fp32_latency_ms=file.fp32_latency_ms,
        fate=f"refused: {file.refused}" if file.refused else "kept",
    )
