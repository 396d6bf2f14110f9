"""`choose`: which network to ship under some limits, and why the others were not chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from cnnbench import api
from cnnbench.cli.units import Accuracy, Bytes, Milliseconds
from cnnbench.tables.choose import By, Choice
from cnnbench.tables.columns import every_column, plain
from cnnbench.tables.rows import Row
from cnnbench.types import Exit


def choose(
    paths: list[str],
    *,
    min_accuracy: Accuracy | None = None,
    max_latency: Milliseconds | None = None,
    max_bytes: Bytes | None = None,
    max_macs: int | None = None,
    max_params: int | None = None,
    by: By = "macs",
    dataset: str | None = None,
    backend: str = "onnxruntime",
    provider: str = "cpu",
    threads: int = 1,
    format: Literal["text", "json"] = "text",
) -> int:
    """Name the cheapest network that keeps every limit, then the others, each with the reason why it was not chosen.

    Where no network keeps them, the nearest one is named, and the exit code is 8.

    Args:
        paths: Folders of runs and bundles, and latency files of `bench`.
        min_accuracy: Minimum of the mean test accuracy over seeds.
        max_latency: Maximum of the 90th percentile of one call with one image.
        max_bytes: Maximum size of the ONNX file.
        max_macs: Maximum of multiply-adds for one image.
        max_params: Maximum of parameters.
        by: What cheap means among those that keep the limits: macs, latency, bytes or params.
        dataset: Which one, where there are several.
        backend: Whose latency counts: onnxruntime, openvino, torch or torch-compile.
        provider: Of the latency that counts: cpu or cuda.
        threads: Of the latency that counts.
        format: How to print: text, or one JSON document with every figure.
    """
    choice = api.choose(
        paths,
        min_accuracy=min_accuracy,
        max_latency_ms=max_latency,
        max_bytes=max_bytes,
        max_macs=max_macs,
        max_params=max_params,
        by=by,
        dataset=dataset,
        backend=backend,
        provider=provider,
        threads=threads,
    )
    if format == "json":
        print(json.dumps(_document(choice), indent=2))
    else:
        _print(choice)
    return Exit.OK if choice.chosen else Exit.LIMITS


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
