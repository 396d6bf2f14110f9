"""`compare`: the tables. Runs, bundles and latencies joined into one row per task; or two tasks side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from cnnbench.cli.table import Format, plain, render, write
from cnnbench.records.schema import Manifest
from cnnbench.tables.columns import (
    Column,
    every_column,
    latency_column,
    latency_pair_column,
    select,
    target_columns,
)
from cnnbench.tables.gather import gather, no_results_message
from cnnbench.tables.pair import PairedComparison, compare_pair
from cnnbench.tables.precisions import PRECISION_COLUMNS, precision_rows
from cnnbench.tables.rows import LatencyKey, Row, latency_keys, rows_of
from cnnbench.types import CnnbenchError, Exit

View = Literal["summary", "seeds", "cost", "robustness", "variants"]


def compare(
    paths: list[str],
    format: Format = "table",
    view: View = "summary",
    batch: int = 1,
    target: float | None = None,
    dataset: str | None = None,
    pair: tuple[str, str] | None = None,
    baseline: str | None = None,
    figure: str | None = None,
    out: str | None = None,
) -> int:
    """Print one table of what the records say of accuracy, cost, size and latency, and draw it (`verify` proves them).

    Args:
        paths: Folders of runs and bundles, and latency files of `bench`; folders are searched for all three.
        format: How to print the table: for people (table, markdown) or for programs (csv, json: every figure).
        view: summary; seeds (every one); cost (of the network and its training); robustness (shifts, calibration);
            variants (every file of the bundles, kept or refused).
        batch: The batch size whose latencies the table and the picture show; csv and json have all.
        target: Validation accuracy, such as 0.99: adds what training took until it was first reached.
        dataset: Show this dataset alone.
        pair: Two tasks or architectures: are they different, by how much, how sure?
        baseline: An earlier latency file of this machine; PATHS is then the new one. Exits 5 where it is slower.
        figure: Where to draw, without suffix; by default compare in the first folder. Both .svg and .png are written.
        out: Also write every figure to this .csv, .json, .parquet or .md file.
    """
    if baseline:
        return _against(paths, baseline, format)
    if target is not None and not 0 < target <= 1:
        raise CnnbenchError(f"--target {target:g}: expected a fraction such as 0.99")
    gathered = gather(paths)
    if view == "variants":
        return _precisions(paths, gathered.bundles, dataset, format, out)
    if not gathered.runs and not gathered.failures:
        raise CnnbenchError(no_results_message(paths), Exit.DATA)
    gathered = gathered if dataset is None else gathered.of_dataset(dataset)
    if pair and out:
        raise CnnbenchError(f"--out {out}: --pair writes no file; `--format json` prints every figure of it")
    if pair:
        return _pair(compare_pair(gathered, a=pair[0], b=pair[1]), format)
    rows, measured = rows_of(gathered, target=target), latency_keys(gathered)
    shown = _at(measured, batch)
    every = every_column(measured, with_target=target is not None)
    if out:
        write(Path(out), columns=every, rows=rows)
    if format == "csv":
        render(every, rows, format="csv")
    elif format == "json":
        render(every, plain(every, rows), format="json")
    else:
        render(_columns(view, shown, rows, target), rows, title=TITLES[view], format=format)
    drawn = _draw(rows, _stem(paths, figure), shown, batch) if view == "summary" else []
    if format == "table":
        _notes(rows, drawn)
    return Exit.OK


def _against(paths: list[str], baseline: str, format: Format) -> int:
    from cnnbench.cli.bench import print_record_comparison

    if len(paths) != 1:
        raise CnnbenchError(f"--baseline {baseline}: expected one latency file to hold against it, got {len(paths)}")
    return print_record_comparison(Path(paths[0]), Path(baseline), format=format)


def _at(measured: list[LatencyKey], batch: int) -> list[LatencyKey]:
    """What was measured at a batch size. Raises CnnbenchError (exit 2) where only others were."""
    shown = [key for key in measured if key.batch == batch]
    if measured and not shown:
        sizes = ", ".join(str(size) for size in sorted({key.batch for key in measured}))
        raise CnnbenchError(f"no latency was measured at --batch {batch}; measured: {sizes}")
    return shown


def _precisions(
    paths: list[str], bundles: Sequence[Manifest], dataset: str | None, format: Format, out: str | None
) -> int:
    rows = precision_rows([bundle for bundle in bundles if dataset in (None, bundle.data.name)])
    if not rows:
        of = f" of {dataset}" if dataset else ""
        raise CnnbenchError(f"no bundles{of} below {', '.join(paths)}; `cnnbench export` makes them", Exit.DATA)
    if out:
        write(Path(out), columns=PRECISION_COLUMNS, rows=rows)
    render(PRECISION_COLUMNS, rows, title="Files of the bundles", format=format)
    return Exit.OK


def _pair(comparison: PairedComparison, format: Format) -> int:
    """Print the seeds side by side with McNemar's test, and the answer over seeds and images in one sentence."""
    if format == "json":
        difference = comparison.difference
        document = {
            "a": comparison.a,
            "b": comparison.b,
            **asdict(difference),
            "shown": difference.shown,
            "answer": comparison.answer,
            "per_seed": [asdict(seed) for seed in comparison.seeds],
        }
        print(json.dumps(document, indent=2))
        return Exit.OK
    render(comparison.columns, comparison.seeds, title="Every seed", format=format)
    if format != "csv":
        print(f"\n{comparison.answer}" if format == "markdown" else comparison.answer)
    return Exit.OK


TITLES = {
    "summary": "Accuracy, cost and latency",
    "seeds": "Every seed",
    "cost": "What the networks cost",
    "robustness": "Shifted images and confidence",
}
SUMMARY = (
    "accuracy_and_std",
    "accuracy_interval",
    "seeds_and_failures",
    "test_images",
    "params",
    "macs",
    "model_bytes",
)
SEEDS = ("accuracy_and_std", "accuracy_interval", "accuracies", "train_images", "epochs")
COST = ("params", "fc_weights", "macs", "weight_bytes", "activation_bytes", "memory_bytes", "train_seconds")
ENERGY = ("energy_joules", "energy_kind")
ROBUSTNESS = ("accuracy_and_std", "shift_mean", "shift_worst", "equivariance_error", "ece")


def _columns(view: View, shown: list[LatencyKey], rows: list[Row], target: float | None) -> list[Column]:
    """What people read in a view."""
    several_sizes = len({(row.dataset, row.train_images) for row in rows}) > len({row.dataset for row in rows})
    names = select("arch", "dataset", *(["train_images"] if several_sizes and view != "seeds" else []))
    views = {
        "summary": [*select(*SUMMARY), *map(latency_pair_column, shown), *select("train_seconds")],
        "seeds": select(*SEEDS),
        "cost": select(*COST, *ENERGY),
        "robustness": select(*ROBUSTNESS),
    }
    return [*names, *views[view], *(target_columns(target) if target is not None else [])]


def _stem(paths: list[str], figure: str | None) -> Path:
    first = Path(paths[0])
    return Path(figure) if figure else (first if first.is_dir() else first.parent) / "compare"


def _draw(rows: list[Row], stem: Path, shown: list[LatencyKey], batch: int) -> list[Path]:
    from cnnbench.page.figures import accuracy_against_cost

    key = next((key for key in shown if key.place == "onnxruntime"), LatencyKey(batch=batch))
    latency = latency_column(key, 50)
    label = f"median latency of one call, ms (ONNX Runtime, {key.setting})"
    costs = [Column("macs", "MACs for one image"), Column(latency.key, label, read=latency.read)]
    return accuracy_against_cost(rows, stem, costs=costs)


def _notes(rows: list[Row], drawn: list[Path]) -> None:
    """What a reader of the table has to know."""
    if drawn:
        print("picture: " + " and ".join(str(path) for path in drawn))
    if any(row.seeds == 1 for row in rows):
        print("one seed: no interval, since one run does not show how much runs differ")
    names = sorted({row.dataset for row in rows})
    if len(names) > 1:
        print(f"{', '.join(names)}: accuracies of different datasets do not compare; --dataset shows one")
    for row in rows:
        for failure in row.failures:
            print(f"failed: {row.task}, {failure}")
