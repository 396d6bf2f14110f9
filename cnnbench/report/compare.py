"""`compare`: runs, bundles and latencies joined into one row a task."""

from __future__ import annotations

import json
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

Case = tuple[str, int, int]
"""What a latency was measured on: runtime, batch size, threads."""


@dataclass
class Found:
    """Every record below the given paths."""

    runs: list[RunRecord] = field(default_factory=list)
    bundles: list[Manifest] = field(default_factory=list)
    latencies: list[dict[str, Any]] = field(default_factory=list)


def compare(
    paths: list[str], format: Format = "table", batch: int = 1, figure: str | None = None, variants: bool = False
) -> int:
    """Print one table of what the records say of accuracy, cost, size and latency, and draw it (`verify` proves them).

    Args:
        paths: Folders of runs and bundles, and latency files of pytest-benchmark; folders are searched for all three.
        format: How to print the table: for people (table, markdown) or for programs (csv, json).
        batch: The batch size whose latencies the table and the picture show; csv and json have all.
        figure: Where to draw, without suffix; by default compare in the first folder. Both .svg and .png are written.
        variants: Print another table: every file of the bundles, kept or refused, and draw nothing.
    """
    found = gather(paths)
    if variants:
        render("Files of the bundles", VARIANT_COLUMNS, _variant_rows(found.bundles), format)
        return Exit.OK
    if not found.runs:
        raise CnnbenchError(f"no results below {', '.join(paths)}; `cnnbench fit` and `test` make them", Exit.DATA)
    rows = [_row(runs, found) for runs in _by_task(found.runs).values()]
    rows.sort(key=lambda row: (row["dataset"], -(row["accuracy"] or 0)))
    cases = sorted({(case["runtime"], case["batch"], case["threads"]) for case in found.latencies})
    shown = [case for case in cases if case[1] == batch]
    if cases and not shown:
        measured = ", ".join(str(size) for size in sorted({case[1] for case in cases}))
        raise CnnbenchError(f"no latency was measured at --batch {batch}; measured: {measured}")
    first = Path(paths[0])
    stem = Path(figure) if figure else (first if first.is_dir() else first.parent) / "compare"
    onnx = next((case for case in shown if case[0] == "onnxruntime"), ("onnxruntime", batch, 1))
    drawn = _draw(rows, stem, onnx)
    if format in ("csv", "json"):
        render("", _plain_columns(cases), rows, format)
    else:
        people = [{**row, **_joined(row, shown)} for row in rows]
        render("Accuracy, cost and latency", _columns(shown), people, format)
    if format == "table":
        print("picture: " + " and ".join(str(path) for path in drawn))
    return Exit.OK


def _draw(rows: list[dict[str, Any]], stem: Path, case: Case) -> list[Path]:
    from cnnbench.report.figures import accuracy_against_cost

    latency = f"median latency of one call, ms (ONNX Runtime, batch {case[1]}, {_threads(case)})"
    return accuracy_against_cost(rows, stem, {"macs": "MACs for one image", latency_key(case, 50): latency})


def gather(paths: list[str]) -> Found:
    """Read every record below `paths`.

    Raises:
        CnnbenchError: A path does not exist, a record cannot be read, or there is nothing at all (exit 3).
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
            if file != path and _foreign(file):
                continue
            if file.name == "result.json":
                found.runs.append(records.read(file, RunRecord))
            elif file.name == "manifest.json":
                found.bundles.append(records.read(file, Manifest))
            else:
                found.latencies += _latencies(file)
    if not found.runs and not found.bundles:
        raise CnnbenchError(f"no results below {', '.join(paths)}; `cnnbench fit` and `test` make them", Exit.DATA)
    return found


def _foreign(file: Path) -> bool:
    """Whether a file that was found, not named, is somebody else's under one of our names."""
    content = records.read_json(file)
    return "benchmarks" not in content and not str(content.get("schema")).startswith("cnnbench.")


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


VARIANT_COLUMNS = [
    Column("task", "task"),
    Column("precision", "precision"),
    Column("accuracy", "test accuracy, %", lambda value: f"{100 * value:.2f}", right=True),
    Column("lost_points", "points lost", "{:.2f}".format, right=True),
    Column("bytes", "bytes", "{:,}".format, right=True),
    Column("latency_ms", "ms, 1 image, 1 thread", "{:.3f}".format, right=True),
    Column("fp32_latency_ms", "fp32 in turn with it, ms", "{:.3f}".format, right=True),
    Column("fate", "kept or refused"),
]


def _variant_rows(bundles: list[Manifest]) -> list[dict[str, Any]]:
    """One row a file; latencies are those that decided when it was exported."""
    return [
        {
            "task": bundle.task,
            "precision": variant.precision,
            "accuracy": bundle.accuracy(variant) if variant.passes else None,
            "lost_points": variant.lost_points if variant.passes else None,
            "bytes": variant.bytes,
            "latency_ms": variant.latency_ms,
            "fp32_latency_ms": variant.fp32_latency_ms,
            "fate": f"refused: {variant.refused}" if variant.refused else "kept",
        }
        for bundle in sorted(bundles, key=lambda bundle: bundle.task)
        for variant in bundle.variants
    ]


def _by_task(runs: list[RunRecord]) -> dict[tuple[str, str], list[RunRecord]]:
    """Runs that differ in their seed alone: another architecture, recipe or set of images makes another row."""
    groups: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.seed):
        trainer = run.config.get("trainer", {})
        recipe = {
            "arch": run.arch, "model": run.config.get("model"), "images": run.data["sha256"],
            "batch_size": run.config.get("data", {}).get("batch_size"),
            **{key: trainer.get(key) for key in ("max_epochs", "max_steps", "precision", "limit_train_batches")},
        }  # fmt: skip
        groups[run.task, json.dumps(recipe, sort_keys=True)].append(run)
    return groups


def _row(runs: list[RunRecord], found: Found) -> dict[str, Any]:
    first = runs[0]
    accuracies = [run.test.accuracy for run in runs if run.test]
    checkpoints = {run.test.checkpoint_sha256 for run in runs if run.test}  # a bundle of an earlier run is not theirs
    bundle = next((b for b in found.bundles if b.run["checkpoint_sha256"] in checkpoints), None)
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
                key = latency_key((case["runtime"], case["batch"], case["threads"]), percent)
                cells[key] = float(np.percentile(case["seconds"], percent)) * 1e3
    return cells


def latency_key(case: Case, percent: int) -> str:
    """Key of a latency in a row, in milliseconds."""
    runtime, batch, threads = case
    return f"{runtime}_batch{batch}_threads{threads}_p{percent}_ms"


def _threads(case: Case) -> str:
    return f"{case[2]} thread{'s' if case[2] > 1 else ''}"


def _plain_columns(cases: list[Case]) -> list[Column]:
    """Every figure in a column of its own, for a program."""
    keys = ["task", "arch", "dataset", "accuracy", "accuracy_std", "seeds", "test_images", "params", "macs"]
    keys += ["model_bytes", "train_seconds", *(latency_key(case, percent) for case in cases for percent in (50, 90))]
    return [Column(key, key) for key in keys]


def _joined(row: dict[str, Any], cases: list[Case]) -> dict[str, str]:
    """Cells that hold two figures, as a person reads them."""
    cells = {}
    if row["accuracy"] is not None:
        spread = "" if row["accuracy_std"] is None else f" +- {100 * row['accuracy_std']:.2f}"
        cells["accuracy with spread"] = f"{100 * row['accuracy']:.2f}{spread}"
    for case in cases:
        if latency_key(case, 50) in row:
            cells[str(case)] = " / ".join(f"{row[latency_key(case, percent)]:.3f}" for percent in (50, 90))
    return cells


def _columns(cases: list[Case]) -> list[Column]:
    """What a person compares."""
    return [
        Column("arch", "architecture"),
        Column("dataset", "dataset"),
        Column("accuracy with spread", "test accuracy, % (mean +- std)", right=True),
        Column("seeds", "seeds", right=True),
        Column("test_images", "test images", "{:,}".format, right=True),
        Column("params", "parameters", "{:,}".format, right=True),
        Column("macs", "MACs", "{:,}".format, right=True),
        Column("model_bytes", "ONNX bytes", "{:,}".format, right=True),
        *(
            Column(str(case), f"{case[0]} ms, p50 / p90, batch {case[1]}, {_threads(case)}", right=True)
            for case in cases
        ),
        Column("train_seconds", "train s", "{:.1f}".format, right=True),
    ]
