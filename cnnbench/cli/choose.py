"""`choose`: which network to ship under some limits, and why the others were not chosen."""

from __future__ import annotations

import json as encoder
from collections.abc import Mapping

from cnnbench.cli.table import plain
from cnnbench.tables.choose import By, Choice, Limits, check_measured, choose_network, comparable_rows
from cnnbench.tables.columns import every_column
from cnnbench.tables.gather import gather, no_results_message
from cnnbench.tables.rows import LatencyKey, Row, rows_of
from cnnbench.types import CnnbenchError, Exit


def choose(
    paths: list[str],
    min_accuracy: float | None = None,
    max_latency_ms: float | None = None,
    max_bytes: int | None = None,
    max_macs: int | None = None,
    max_params: int | None = None,
    by: By = "macs",
    dataset: str | None = None,
    runtime: str = "onnxruntime",
    threads: int = 1,
    json: bool = False,
) -> int:
    """Name the cheapest network that keeps every limit, then the others, each with what it lost by.

    Args:
        paths: Folders of runs and bundles, and latency files of `bench`.
        min_accuracy: Mean test accuracy over seeds, a fraction such as 0.99.
        max_latency_ms: 90th percentile of one call with one image.
        max_bytes: Of the ONNX file.
        max_macs: Multiply-adds for one image.
        max_params: Parameters.
        by: What cheap means among those that keep the limits: macs, latency, bytes or params.
        dataset: Which one, where there are several.
        runtime: Whose latency counts: onnxruntime, torch or torch-compile.
        threads: Of the latency that counts.
        json: Print one JSON document.
    """
    limits = Limits(
        min_accuracy=min_accuracy,
        max_latency_ms=max_latency_ms,
        max_bytes=max_bytes,
        max_macs=max_macs,
        max_params=max_params,
    )
    gathered = gather(paths)
    rows = comparable_rows(rows_of(gathered), dataset)
    if not rows:
        raise CnnbenchError(no_results_message(paths), Exit.DATA)
    latency = LatencyKey(runtime, threads=threads)
    if max_latency_ms is not None or by == "latency":
        check_measured(gathered, latency)
    choice = choose_network(rows, limits, by=by, latency=latency)
    if json:
        print(encoder.dumps(_document(choice), indent=2))
    else:
        _print(choice)
    return Exit.OK


def _print(choice: Choice) -> None:
    nearest = f"; the nearest is {choice.nearest.row.task}" if choice.nearest else ""
    print(f"{choice.answer}{nearest}")
    for other in sorted(choice.others, key=lambda other: not other.keeps_limits):
        print(f"  {other.row.task}: {other.reason}")


def _document(choice: Choice) -> Mapping[str, object]:
    return {
        "chosen": None if choice.chosen is None else _figures(choice.chosen),
        "nearest": None if choice.nearest is None else choice.nearest.row.task,
        "others": [{**_figures(other.row), "lost_by": other.reason} for other in choice.others],
    }


def _figures(row: Row) -> Mapping[str, object]:
    """Every figure of a row."""
    (figures,) = plain(every_column(sorted(row.latencies)), [row])
    return figures
