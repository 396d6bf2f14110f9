"""`choose`: which file to ship under some limits, and why the others were not chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from cnnbench import api
from cnnbench.cli.hints import say_next
from cnnbench.cli.layout import prose
from cnnbench.cli.units import Accuracy, Bytes, Milliseconds
from cnnbench.tables.candidates import Candidate, Score
from cnnbench.tables.choose import By, Choice
from cnnbench.tables.columns import every_column, plain
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
    backend: str | None = None,
    provider: str = "cpu",
    threads: int = 1,
    format: Literal["text", "json"] = "text",
) -> int:
    """Name the cheapest file that keeps every limit, then the others, each with the reason why it was not chosen.

    Accuracy is that of the file on the validation images; its test accuracy is printed and chooses nothing. Where no
    file keeps the limits, the nearest one and the limit to relax are named, and the exit code is 8.

    Args:
        paths: Folders of runs and bundles, and latency files of `bench`.
        min_accuracy: Minimum of the accuracy of the file on the validation images.
        max_latency: Maximum of the 90th percentile of one call with one image.
        max_bytes: Maximum size of the ONNX file.
        max_macs: Maximum of multiply-adds for one image.
        max_params: Maximum of parameters.
        by: Cost to minimise among the files within the limits (lower is macs, with the lower end of the accuracy's
            interval at --min-accuracy or above); the interval is the 95 % one for all compared files at once.
        dataset: Data set, if there are several.
        backend: Backend of the latency record to use: onnxruntime, openvino, torch or torch-compile; by default the
            first two where they were measured.
        provider: Provider of the latency record to use: cpu or cuda.
        threads: Threads of the latency record to use.
        format: How to print: text, or one JSON document with every figure.

    Examples:
        cnnbench choose runs exports --min-accuracy 98%
        cnnbench choose runs exports --max-latency 2ms --max-bytes 1MB
        cnnbench choose runs exports exports/latency.json --by latency
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
    if choice.chosen and choice.chosen.path and choice.chosen.path.is_file():
        say_next("verify", choice.chosen.path.parent, format=format)
    return Exit.OK if choice.chosen else Exit.LIMITS


def _print(choice: Choice) -> None:
    relax = f": relax {choice.relax}" if choice.relax else ""
    nearest = f"; the nearest is {choice.nearest.candidate.name}{relax}" if choice.nearest else ""
    print(prose(f"{choice.answer}{nearest}"))
    for detail in choice.details:
        print(prose(f"  {detail}"))
    for other in sorted(choice.others, key=lambda other: not other.keeps_limits):
        print(prose(f"  {other.candidate.name}: {other.reason}"))
    if choice.note:
        print(prose(choice.note))


def _document(choice: Choice) -> Mapping[str, object]:
    nearest = choice.nearest
    return {
        "answer": choice.answer,
        "files_compared": choice.among,
        "note": choice.note or None,
        "chosen": None if choice.chosen is None else _figures(choice.chosen, choice.among),
        "nearest": None
        if nearest is None
        else {"name": nearest.candidate.name, "misses": nearest.reason, "relax": choice.relax},
        "others": [{**_figures(other.candidate, choice.among), "lost_by": other.reason} for other in choice.others],
    }


def _figures(candidate: Candidate, among: int) -> Mapping[str, object]:
    """Every figure of the row of a file, and of the file."""
    (figures,) = plain(every_column(sorted(candidate.row.latencies)), [candidate.row])
    file = {
        "path": None if candidate.path is None else str(candidate.path),
        "sha256": candidate.sha256 or None,
        "precision": candidate.precision or None,
        "bytes": candidate.bytes,
        "backend": candidate.latency.backend if candidate.latency and candidate.percentiles else None,
        "p50_ms": candidate.percentiles.p50_ms if candidate.percentiles else None,
        "p90_ms": candidate.percentiles.p90_ms if candidate.percentiles else None,
        "val": _score(candidate.val, among),
        "test": _score(candidate.test, 1),
    }
    return {**figures, "name": candidate.name, "file": file}


def _score(score: Score | None, among: int) -> Mapping[str, float] | None:
    if score is None:
        return None
    return {"right": score.right, "images": score.images, "accuracy": score.accuracy, "low": score.low(among)}
