"""`compare`: a table of runs, bundles and latencies; or two tasks compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from cnnbench.bench.record import mixed
from cnnbench.cli.hints import say_next
from cnnbench.cli.layout import Shown, prose
from cnnbench.cli.table import Format, render, write
from cnnbench.cli.units import Accuracy
from cnnbench.records.bundle import ExportRecord
from cnnbench.tables.by_class import MISTAKE_COLUMNS, mistakes
from cnnbench.tables.columns import (
    CATALOGUE,
    Column,
    every_column,
    latency_column,
    latency_pair_column,
    name_column,
    plain,
    select,
    target_columns,
)
from cnnbench.tables.gather import Records, fp32_latencies, gather, no_results_message
from cnnbench.tables.pair import PairedComparison, compare_pair
from cnnbench.tables.pairs import PAIR_COLUMNS, best_sentence
from cnnbench.tables.precisions import PRECISION_COLUMNS, precision_rows
from cnnbench.tables.rows import LatencyKey, Row, Scope, latency_keys, other_images, rows_of
from cnnbench.types import CnnbenchError, Exit

View = Literal["summary", "seeds", "cost", "classes", "mistakes", "robustness", "pairs", "precision"]

ROW_FLAGS = ("--view", "--dataset", "--target-accuracy", "--out")
TAKES = {
    "--baseline": (),
    "--pair": ("--pair", "--dataset"),
    "--view summary": (*ROW_FLAGS, "--batch", "--picture"),
    "--view seeds": ROW_FLAGS,
    "--view cost": ROW_FLAGS,
    "--view classes": ROW_FLAGS,
    "--view robustness": ROW_FLAGS,
    "--view mistakes": ("--view", "--dataset", "--out"),
    "--view pairs": ("--view", "--dataset", "--out", "--picture"),
    "--view precision": ("--view", "--dataset", "--out"),
}
"""What each table takes of the flags that not every table takes."""


def compare(
    paths: list[str],
    *,
    view: View = "summary",
    dataset: str | None = None,
    batch: int | None = None,
    target_accuracy: Accuracy | None = None,
    pair: list[str] | None = None,
    baseline: str | None = None,
    picture: str | None = None,
    out: str | None = None,
    columns: Shown = "fit",
    format: Format = "table",
) -> int:
    """Print one table of accuracy, cost, size and latency from the records.

    Args:
        paths: Folders of runs and bundles, and latency files of `bench`; folders are searched for all three.
        view: Which table: summary; seeds (every one); cost (of the network and its training);
            classes (majority baseline, balanced accuracy, macro F1, lowest recall); mistakes (of the best seed,
            most confident first, with files: labels to review); robustness (shifts, calibration);
            pairs (which networks can be told apart);
            precision (every file of the bundles, kept or refused).
        dataset: Show only this dataset.
        batch: The batch size whose latencies the table and the picture show, by default 1; csv and json have all.
        target_accuracy: Validation accuracy, such as 99%: adds what training took until it was first reached.
        pair: Two tasks or architectures, A,B: whether they differ, by how much, with an interval.
        baseline: Show the change since this latency file of this machine; PATHS is then the new one. Exits 5 if slower.
        picture: Also draw the table to this name, as .svg and .png.
        out: Also write every figure to this .csv, .json, .parquet or .md file.
        columns: fit prints the columns that fit the terminal and names the others; all prints all.
        format: How to print the table: for people (table, markdown) or for programs (csv, json: every figure).

    Examples:
        cnnbench compare runs
        cnnbench compare runs exports --view pairs
        cnnbench compare runs --pair lenet5,mlp
    """
    _check_flags(
        "--baseline" if baseline else "--pair" if pair else f"--view {view}",
        {"--view": view != "summary", "--pair": pair, "--dataset": dataset, "--batch": batch}
        | {"--target-accuracy": target_accuracy, "--picture": picture, "--out": out},
    )
    if baseline:
        return _print_baseline(paths, baseline, columns, format)
    if target_accuracy is not None and not 0 < target_accuracy <= 1:
        raise CnnbenchError(f"--target-accuracy {target_accuracy:g}: expected more than 0, such as 99%")
    gathered = gather(paths)
    if view == "precision":
        return _print_precisions(paths, gathered.bundles, dataset=dataset, out=out, shown=columns, format=format)
    gathered = _selected(gathered, paths, dataset)
    if pair:
        return _print_pair(gathered, pair, shown=columns, format=format)
    if view == "mistakes":
        return _print_mistakes(gathered, paths, out=out, shown=columns, format=format)
    if view == "pairs":
        return _print_pairs(gathered, paths, picture=picture, out=out, shown=columns, format=format)
    rows = rows_of(gathered, target=target_accuracy)
    size = 1 if batch is None else batch
    latencies = _at(latency_keys(gathered), size) if view == "summary" else []
    every = every_column(latency_keys(gathered), with_target=target_accuracy is not None)
    if out:
        write(Path(out), columns=every, rows=rows)
    _print_rows(rows, view, every, latencies=latencies, target=target_accuracy, shown=columns, format=format)
    drawn = _draw(rows, _stem(picture), latencies=latencies, batch=size) if picture else []
    if format == "table":
        _print_notes(rows, drawn)
        if latencies and (note := mixed(fp32_latencies(gathered))):
            print(note)
    say_next("choose", *paths, "--min-accuracy", "98%", format=format)
    return Exit.OK


def _check_flags(table: str, given: Mapping[str, object]) -> None:
    """Refuse the first given flag that a table has no use for. Raises CnnbenchError (exit 2)."""
    for flag, value in given.items():
        if value is not None and value is not False and flag not in TAKES[table]:
            raise CnnbenchError(f"{flag} does not apply to {table} (see `cnnbench compare --help`)")


def _selected(gathered: Records, paths: list[str], dataset: str | None) -> Records:
    """The records of a dataset. Raises CnnbenchError where there are none (exit 3), or none of it (exit 2)."""
    if not gathered.runs and not gathered.failures:
        if gathered.bundles:
            takes = "`cnnbench choose` and `compare --view precision` take them"
            raise CnnbenchError(f"there are bundles but no runs below {', '.join(paths)}: {takes}", Exit.DATA)
        raise CnnbenchError(no_results_message(paths), Exit.DATA)
    return gathered if dataset is None else gathered.of_dataset(dataset)


def _print_baseline(paths: list[str], baseline: str, shown: Shown, format: Format) -> int:
    from cnnbench.cli.bench import print_record_comparison

    if len(paths) != 1:
        raise CnnbenchError(f"--baseline {baseline}: expected one latency file to compare with it, got {len(paths)}")
    return print_record_comparison(Path(paths[0]), Path(baseline), shown=shown, format=format)


def _at(measured: list[LatencyKey], batch: int) -> list[LatencyKey]:
    """What was measured at a batch size. Raises CnnbenchError (exit 2) where only others were."""
    shown = [key for key in measured if key.batch == batch]
    if measured and not shown:
        sizes = ", ".join(str(size) for size in sorted({key.batch for key in measured}))
        raise CnnbenchError(f"no latency was measured at --batch {batch}; measured: {sizes}")
    return shown


def _print_precisions(
    paths: list[str],
    bundles: Sequence[ExportRecord],
    *,
    dataset: str | None,
    out: str | None,
    shown: Shown,
    format: Format,
) -> int:
    rows = precision_rows([bundle for bundle in bundles if dataset in (None, bundle.data.name)])
    if not rows:
        of = f" of {dataset}" if dataset else ""
        raise CnnbenchError(f"no bundles{of} below {', '.join(paths)}; `cnnbench export` makes them", Exit.DATA)
    if out:
        write(Path(out), columns=PRECISION_COLUMNS, rows=rows)
    render(PRECISION_COLUMNS, rows, title="Files of the bundles", format=format, shown=shown)
    return Exit.OK


def _print_mistakes(gathered: Records, paths: list[str], *, out: str | None, shown: Shown, format: Format) -> int:
    """Print the most confident mistakes; csv, json and --out have all."""
    found = mistakes(gathered)
    if not found:
        raise CnnbenchError(
            f"no mistakes below {', '.join(paths)}: there are no predictions (`cnnbench test` writes them), or all are "
            "right",
            Exit.DATA,
        )
    if out:
        write(Path(out), columns=MISTAKE_COLUMNS, rows=found)
    with_files = any(mistake.file for mistake in found)
    columns: Sequence[Column] = [c for c in MISTAKE_COLUMNS if c.key != ("image" if with_files else "file")]
    whole = format in ("csv", "json")
    render(
        MISTAKE_COLUMNS if whole else columns,
        found if whole else found[:MOST],
        title=TITLES["mistakes"],
        format=format,
        shown=shown,
    )
    if not whole and len(found) > MOST:
        print(f"{MOST} of {len(found):,} mistakes; --out FILE.csv has all")
    return Exit.OK


def _print_pair(gathered: Records, pair: list[str], *, shown: Shown, format: Format) -> int:
    """Print the seeds side by side with McNemar's test, and the answer over seeds and images in one sentence."""
    if len(pair) != 2:
        raise CnnbenchError(f"--pair {','.join(pair)}: expected two tasks or architectures, such as lenet5,mlp")
    comparison = compare_pair(gathered, a=pair[0], b=pair[1])
    if format == "json":
        print(json.dumps(_document(comparison), indent=2))
        return Exit.OK
    render(comparison.columns, comparison.seeds, title="Every seed", format=format, shown=shown)
    if format != "csv":
        print(f"\n{comparison.answer}" if format == "markdown" else comparison.answer)
    return Exit.OK


def _print_pairs(
    gathered: Records, paths: list[str], *, picture: str | None, out: str | None, shown: Shown, format: Format
) -> int:
    """Print every pair of comparable networks, and draw which can be told apart."""
    from cnnbench.page.material import Material
    from cnnbench.page.pairs import draw, pairs_of

    material = Material(gathered)
    found = {dataset: pairs_of(material, dataset) for dataset in material.datasets}
    by_dataset = {dataset: pairs for dataset, (pairs, _) in found.items() if pairs}
    if not by_dataset:
        raise CnnbenchError(
            f"no two networks below {', '.join(paths)} have predictions of the same test images and a seed in common; "
            "`cnnbench test` writes predictions",
            Exit.DATA,
        )
    columns = [Column("dataset", "dataset"), *PAIR_COLUMNS]
    rows = [
        {"dataset": dataset, **{column.key: column.value(pair) for column in PAIR_COLUMNS}}
        for dataset, pairs in by_dataset.items()
        for pair in pairs
    ]
    columns = [replace(column, read=None) for column in columns]
    if out:
        write(Path(out), columns=columns, rows=rows)
    render(columns, rows, title=TITLES["pairs"], format=format, shown=shown)
    drawn = draw(by_dataset, _stem(picture)) if picture else []
    if format in ("table", "markdown"):
        lines = [best_sentence(pairs) for pairs in by_dataset.values()]
        lines += [note for _, notes in found.values() for note in notes]
        print("\n".join(["", *lines]))
        if drawn:
            print("picture: " + " and ".join(map(str, drawn)))
    return Exit.OK


def _document(comparison: PairedComparison) -> Mapping[str, object]:
    return {
        "a": comparison.a,
        "b": comparison.b,
        **asdict(comparison.difference),
        "shown": comparison.difference.shown,
        "answer": comparison.answer,
        "per_seed": [asdict(seed) for seed in comparison.seeds],
        "alone": comparison.alone,
    }


MOST = 30
"""Mistakes that are printed for people."""
TITLES = {
    "summary": "Accuracy, cost and latency",
    "seeds": "Every seed",
    "cost": "What the networks cost",
    "classes": "Classes: the constant answer, and figures that weigh classes alike",
    "robustness": "Shifted images and confidence",
    "mistakes": "Mistakes to review for wrong labels",
    "pairs": "Which networks can be told apart",
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
COST = (
    "params",
    "fc_weights",
    "macs",
    "form",
    "weight_bytes",
    "activation_bytes",
    "memory_bytes",
    "train_seconds",
    "energy_joules",
    "energy_kind",
)
CLASSES = (
    "class_weights",
    "accuracy_and_std",
    "majority",
    "majority_class",
    "balanced_accuracy",
    "macro_f1",
    "lowest_recall",
    "lowest_recall_class",
    "seeds_and_failures",
    "test_images",
)
BESIDE_ACCURACY = ("majority", "balanced_accuracy")
"""Figures of the summary where a class is much larger than the others."""
ROBUSTNESS = ("accuracy_and_std", "shift_mean", "shift_worst", "equivariance_error", "ece", "ece_interval", "ece_null")


def _columns(view: View, rows: Sequence[Row], *, latencies: Sequence[LatencyKey], target: float | None) -> list[Column]:
    """What people read in a view."""
    several_sizes = len({(row.dataset, row.train_images) for row in rows}) > len({row.dataset for row in rows})
    several_augments = len({(row.dataset, row.augment) for row in rows}) > len({row.dataset for row in rows})
    more = ["train_images"] * (several_sizes and view != "seeds") + ["augment"] * several_augments
    names = [name_column(rows), *select("dataset", *more)]
    summary = [*SUMMARY]
    if any(row.is_unbalanced for row in rows):
        summary[2:2] = BESIDE_ACCURACY
    views = {
        "summary": [*select(*summary), *map(latency_pair_column, latencies), *select("train_seconds")],
        "seeds": select(*SEEDS),
        "cost": select(*COST),
        "classes": select(*CLASSES),
        "robustness": select(*ROBUSTNESS),
    }
    return [*names, *views[view], *(target_columns(target) if target is not None else [])]


def _print_rows(
    rows: Sequence[Row],
    view: View,
    every: Sequence[Column],
    *,
    latencies: Sequence[LatencyKey],
    target: float | None,
    shown: Shown,
    format: Format,
) -> None:
    """Print a view for people; for programs every figure."""
    if format in ("csv", "json"):
        render(every, plain(every, rows) if format == "json" else rows, format=format)
        return
    columns, title = _columns(view, rows, latencies=latencies, target=target), TITLES[view]
    if format == "table":
        bounds = CATALOGUE["accuracy_bounds"]
        columns = [bounds if column.key == "accuracy_interval" else column for column in columns]
        if len(names := {row.dataset for row in rows}) == 1:
            columns = [column for column in columns if column.key != "dataset"]
            title += f" on {names.pop()}"
    render(columns, rows, title=title, format=format, shown=shown)


def _stem(picture: str) -> Path:
    """Where to draw, without suffix."""
    path = Path(picture)
    return path.with_suffix("") if path.suffix in (".svg", ".png") else path


def _draw(rows: Sequence[Row], stem: Path, *, latencies: Sequence[LatencyKey], batch: int) -> list[Path]:
    from cnnbench.page.figures import accuracy_against_cost

    cpu = [key for key in latencies if (key.backend, key.provider) == ("onnxruntime", "cpu")]
    key = cpu[0] if cpu else LatencyKey(batch=batch)
    title = f"median latency of one call, ms (ONNX Runtime, {key.setting})"
    latency = replace(latency_column(key, 50), heading=title, unit="")
    macs = replace(CATALOGUE["macs"], heading="MACs for one image")
    return accuracy_against_cost(rows, stem, costs=[macs, latency])


def _in_scope(rows: Sequence[Row], scope: Scope) -> str:
    """Names of the rows whose interval is for new images alone, or for new seeds alone."""
    return ", ".join(dict.fromkeys(row.arch for row in rows if row.interval_scope == scope))


def _print_notes(rows: Sequence[Row], drawn: Sequence[Path]) -> None:
    """What a reader of the table has to know."""
    if drawn:
        print("picture: " + " and ".join(str(path) for path in drawn))
    if alone := _in_scope(rows, "images"):
        print(prose(f"{alone}: one seed, so the interval is for new images alone; another training may differ"))
    if alone := _in_scope(rows, "seeds"):
        told = f"{alone}: predictions are missing, so the interval is over seeds alone and says nothing of new images"
        print(prose(told))
    names = sorted({row.dataset for row in rows})
    if len(names) > 1:
        print(prose(f"{', '.join(names)}: accuracies of different datasets do not compare; --dataset shows one"))
    for name in names:
        if difference := other_images([row for row in rows if row.dataset == name]):
            print(prose(difference))
    for row in rows:
        for failure in row.failures:
            print(prose(f"failed: {row.task}, {failure}"))
