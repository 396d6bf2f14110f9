"""One row per file of the bundles: fp32, fp16 and int8, kept or refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnnbench.records.bundle import ExportRecord
from cnnbench.tables.columns import Column
from cnnbench.tables.text import count, percent_digits


@dataclass(frozen=True)
class PrecisionRow:
    """One file of a bundle; the latencies are those that decided when it was exported."""

    task: str
    precision: str
    accuracy: float | None
    lost_points: float | None
    """Points of accuracy below PyTorch's, in the worst pass."""
    bytes: int
    latency_ms: float | None
    fp32_latency_ms: float | None
    fate: str
    """`kept`, or `refused` with the reason."""


PRECISION_COLUMNS = [
    Column("task", "task"),
    Column("precision", "precision"),
    Column("accuracy", "test accuracy", percent_digits, unit="%", right=True),
    Column("lost_points", "points lost", "{:.2f}".format, right=True),
    Column("bytes", "bytes", count, right=True),
    Column("latency_ms", "1 image, 1 thread", "{:.3f}".format, unit="ms", right=True),
    Column("fp32_latency_ms", "fp32, interleaved", "{:.3f}".format, unit="ms", right=True),
    Column("fate", "kept or refused"),
]


def precision_rows(bundles: Sequence[ExportRecord]) -> list[PrecisionRow]:
    """The files of the bundles, sorted by task."""
    return [
        PrecisionRow(
            task=bundle.task,
            precision=file.precision,
            accuracy=bundle.accuracy(file) if file.passes else None,
            lost_points=file.lost_points if file.passes else None,
            bytes=file.bytes,
            latency_ms=file.latency_ms,
            fp32_latency_ms=file.fp32_latency_ms,
            fate=f"refused: {file.refused}" if file.refused else "kept",
        )
        for bundle in sorted(bundles, key=lambda bundle: bundle.task)
        for file in bundle.variants
    ]
