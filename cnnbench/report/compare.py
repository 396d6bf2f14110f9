"""`compare`: runs, bundles and latencies joined into one row a task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from cnnbench import records
from cnnbench.report.table import Column, Format, render
from cnnbench.types import CnnbenchError, Exit, Manifest, RunRecord


@dataclass
class Found:
    """Every record below the given paths."""

    runs: list[RunRecord] = field(default_factory=list)
    bundles: list[Manifest] = field(default_factory=list)
    latencies: list[dict[str, Any]] = field(default_factory=list)


def compare(paths: list[str], format: Format = "table", batch: int = 1, figure: str | None = None) -> int:
    """Print one table of accuracy, cost, size and latency, and draw accuracy against MACs and against latency.

    Args:
        paths: Folders of runs and bundles, and latency files of pytest-benchmark; folders are searched for all three.
        format: How to print the table: for people (table, markdown) or for programs (csv, json).
        batch: The batch size whose latencies the table and the picture show; csv and json have all.
        figure: Where to draw, without suffix; by default compare in the first folder. Both .svg and .png are written.
    """
    found = gather(paths)
    rows = [_row(runs, found) for runs in _by_task(found.runs).values()]
    rows.sort(key=lambda row: (row["dataset"], -(row["accuracy"] or 0)))
    render("Accuracy, cost and latency", _columns(found, batch, every=format == "csv"), rows, format)
    from cnnbench.report.figures import accuracy_against_cost

    first = Path(paths[0])
    stem = Path(figure) if figure else (first if first.is_dir() else first.parent) / "compare"
    drawn = accuracy_against_cost(rows, stem, batch)
    if format == "table":
        print("picture: " + " and ".join(str(path) for path in drawn))
    return Exit.OK


def gather(paths: list[str]) -> Found:
    """Read every record below `paths`.

    Raises:
        CnnbenchError: A path does not exist, a record cannot be read, or there is no run at all (exit 3).
    """
    found = Found()
    seen: set[Path] = set()  # paths may overlap, and a run counts once
    for path in (Path(name) for name in paths):
        if not path.exists():
            raise CnnbenchError(
                f"{path} does not exist; expected a folder of runs or bundles, or a latency file", Exit.DATA
            )
        for file in _files(path):
            if file.resolve() in seen:
                continue
            seen.add(file.resolve())
            if file.name == "result.json":
                found.runs.append(records.read(file, RunRecord))
            elif file.name == "manifest.json":
                found.bundles.append(records.read(file, Manifest))
            else:
                found.latencies += _latencies(file)
    if not found.runs:
        raise CnnbenchError(f"no results below {', '.join(paths)}; `cnnbench fit` and `test` make them", Exit.DATA)
    return found


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*.json")):
        hidden = any(part.startswith(".") or part.endswith(".replaced") for part in file.relative_to(path).parts)
        if not hidden and file.name in ("result.json", "manifest.json", "latency.json"):
            yield file


def _latencies(file: Path) -> list[dict[str, Any]]:
    """What pytest-benchmark measured: one dict a case, its raw times in `seconds`."""
    content = records.read_json(file)
    cases = [
        case
        for case in content.get("benchmarks", [])
        if "model_sha256" in case.get("extra_info", {}) and case["stats"].get("data")
    ]
    if not cases:
        raise CnnbenchError(
            f"{file} holds no latencies; expected what `pytest tests/benchmarks --benchmark-enable "
            "--benchmark-json` wrote",
            Exit.DATA,
        )
    return [{**case["extra_info"], "seconds": case["stats"]["data"]} for case in cases]


def _by_task(runs: list[RunRecord]) -> dict[tuple[str, str], list[RunRecord]]:
    """Runs of one task on the same images; more images, or other ones, make another row."""
    groups: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.seed):
        groups[run.task, run.data["sha256"]].append(run)
    return groups


def _row(runs: list[RunRecord], found: Found) -> dict[str, Any]:
    first = runs[0]
    accuracies = [run.test.accuracy for run in runs if run.test]
    bundle = next((b for b in found.bundles if (b.task, b.data["sha256"]) == (first.task, first.data["sha256"])), None)
    return {
        "task": first.task,
        "arch": first.arch,
        "dataset": first.data["name"],
        "accuracy": fmean(accuracies) if accuracies else None,
        "accuracy_std": stdev(accuracies) if len(accuracies) > 1 else None,
        "accuracies": accuracies,
        "seeds": len(accuracies),
        "test_images": next((run.test.images for run in runs if run.test), None),
        "params": first.cost.params,
        "macs": first.cost.macs,
        "train_seconds": fmean(run.fit.train_seconds for run in runs),
        "model_bytes": bundle.files["model.onnx"]["bytes"] if bundle else None,
        **(_latency_cells(bundle, found.latencies) if bundle else {}),
    }


def _latency_cells(bundle: Manifest, latencies: list[dict[str, Any]]) -> dict[str, float]:
    """p50 and p90 in ms of every case measured on this very file."""
    cells: dict[str, float] = {}
    for case in latencies:
        if case["model_sha256"] == bundle.files["model.onnx"]["sha256"]:
            for percent in (50, 90):
                key = latency_key(case["runtime"], case["batch"], percent)
                cells[key] = float(np.percentile(case["seconds"], percent)) * 1e3
    return cells


def latency_key(runtime: str, batch: int, percent: int) -> str:
    """Key of a latency in a row, in milliseconds."""
    return f"{runtime}_batch{batch}_p{percent}_ms"


def _columns(found: Found, batch: int, every: bool) -> list[Column]:
    """The table's columns; with `every`, those of all batch sizes and the plain numbers that a program wants."""
    measured = sorted({(case["runtime"], case["batch"], case["threads"]) for case in found.latencies})
    shown = [case for case in measured if every or case[1] == batch]
    latency = [
        Column(
            latency_key(runtime, size, percent),
            f"{runtime} p{percent} ms, batch {size}, {threads} thread{'s' if threads > 1 else ''}",
            "{:.3f}".format,
            right=True,
        )
        for runtime, size, threads in shown
        for percent in (50, 90)
    ]
    return [
        Column("arch", "architecture"),
        Column("dataset", "dataset"),
        Column("accuracy", "test accuracy %", lambda value: f"{value:.2%}".rstrip("%"), right=True),
        Column("accuracy_std", "std over seeds", lambda value: f"{value:.2%}".rstrip("%"), right=True),
        Column("seeds", "seeds", right=True),
        Column("test_images", "images", "{:,}".format, right=True),
        Column("params", "parameters", "{:,}".format, right=True),
        Column("macs", "MACs", "{:,}".format, right=True),
        Column("model_bytes", "ONNX bytes", "{:,}".format, right=True),
        *latency,
        Column("train_seconds", "train s", "{:.1f}".format, right=True),
    ]
