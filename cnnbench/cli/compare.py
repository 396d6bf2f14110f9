"""`compare`: the tables. Runs, bundles and latencies joined into one row a task; or two tasks set side by side."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any, Literal

from cnnbench.cli.table import Column, Format, plain, render, write
from cnnbench.records.schema import Manifest
from cnnbench.tables.gather import Case, Found, cases, gather, latency_key, nothing, rows, threads
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
    found = gather(paths)
    if view == "variants":
        return _variants(paths, found.bundles, dataset, format, out)
    if not found.runs and not found.failures:
        raise CnnbenchError(nothing(paths), Exit.DATA)
    found = _only(found, dataset)
    if pair and out:
        raise CnnbenchError(f"--out {out}: --pair writes no file; `--format json` prints every figure of it")
    if pair:
        from cnnbench.tables.pair import show

        return show(found, pair, format)
    made = rows(found, target)
    measured = cases(found)
    shown = _at(measured, batch)
    every = _plain_columns(measured, target)
    if out:
        write(Path(out), every, made)
    if format in ("csv", "json"):
        render("", every, plain(every, made), format)
    else:
        people = [{**row, **_joined(row, shown)} for row in made]
        columns = _columns(view, shown, target)
        if view != "seeds" and len({(row["dataset"], row["train_images"]) for row in made}) > len(
            {row["dataset"] for row in made}
        ):  # else each dataset was used whole
            columns.insert(2, Column("train_images", "training images", "{:,}".format, right=True))
        render(TITLES[view], columns, people, format)
    drawn = _draw(made, _stem(paths, figure), shown, batch) if view == "summary" else []
    if format == "table":
        _notes(made, drawn)
    return Exit.OK


def _against(paths: list[str], baseline: str, format: Format) -> int:
    from cnnbench.cli.bench import print_record_comparison

    if len(paths) != 1:
        raise CnnbenchError(f"--baseline {baseline}: expected one latency file to hold against it, got {len(paths)}")
    return print_record_comparison(Path(paths[0]), Path(baseline), format=format)


def _only(found: Found, dataset: str | None) -> Found:
    """The runs of one dataset, where one is named."""
    if dataset is None:
        return found
    names = sorted({run.record.data.name for run in found.runs} | {each.dataset for each in found.failures})
    if dataset not in names:
        from cnnbench.registry import hint

        raise CnnbenchError(f"no runs on {dataset!r}: {hint(dataset, names)}")
    runs = [run for run in found.runs if run.record.data.name == dataset]
    failures = [each for each in found.failures if each.dataset == dataset]
    return Found(runs, failures, found.bundles, found.latencies)


def _at(measured: list[Case], batch: int) -> list[Case]:
    shown = [case for case in measured if case[1] == batch]
    if measured and not shown:
        sizes = ", ".join(str(size) for size in sorted({case[1] for case in measured}))
        raise CnnbenchError(f"no latency was measured at --batch {batch}; measured: {sizes}")
    return shown


def _stem(paths: list[str], figure: str | None) -> Path:
    first = Path(paths[0])
    return Path(figure) if figure else (first if first.is_dir() else first.parent) / "compare"


def _draw(made: list[dict[str, Any]], stem: Path, shown: list[Case], batch: int) -> list[Path]:
    from cnnbench.page.figures import accuracy_against_cost

    case = next((case for case in shown if case[0] == "onnxruntime"), ("onnxruntime", batch, 1))
    latency = f"median latency of one call, ms (ONNX Runtime, batch {case[1]}, {threads(case)})"
    return accuracy_against_cost(made, stem, {"macs": "MACs for one image", latency_key(case, 50): latency})


def _notes(made: list[dict[str, Any]], drawn: list[Path]) -> None:
    """What a reader of the table has to know."""
    if drawn:
        print("picture: " + " and ".join(str(path) for path in drawn))
    if any(row["seeds"] == 1 for row in made):
        print("one seed: no interval, since one run does not show how much runs differ")
    names = sorted({row["dataset"] for row in made})
    if len(names) > 1:
        print(f"{', '.join(names)}: accuracies of different datasets do not compare; --dataset shows one")
    for row in made:
        for failure in row["failures"]:
            print(f"failed: {row['task']}, {failure}")


TITLES = {
    "summary": "Accuracy, cost and latency",
    "seeds": "Every seed",
    "cost": "What the networks cost",
    "robustness": "Shifted images and confidence",
}

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


def _variants(paths: list[str], bundles: list[Manifest], dataset: str | None, format: Format, out: str | None) -> int:
    made = _variant_rows([bundle for bundle in bundles if dataset in (None, bundle.data.name)])
    if not made:
        of = f" of {dataset}" if dataset else ""
        raise CnnbenchError(f"no bundles{of} below {', '.join(paths)}; `cnnbench export` makes them", Exit.DATA)
    if out:
        write(Path(out), VARIANT_COLUMNS, made)
    render("Files of the bundles", VARIANT_COLUMNS, made, format)
    return Exit.OK


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


PLAIN = (
    "task",
    "arch",
    "dataset",
    "train_images",
    "epochs",
    "accuracy",
    "accuracy_std",
    "accuracy_low",
    "accuracy_high",
    "interval",
    "accuracies",
    "seeds",
    "failures",
    "test_images",
    "params",
    "fc_weights",
    "macs",
    "weight_bytes",
    "activation_bytes",
    "model_bytes",
    "verdict",
    "train_seconds",
    "memory_bytes",
    "memory_kind",
    "energy_joules",
    "energy_kind",
    "ece",
    "shift_mean",
    "shift_worst",
    "equivariance_error",
)
TARGET = ("target", "target_seeds", "target_of", "target_seconds", "target_epochs", "target_macs")


def _plain_columns(measured: list[Case], target: float | None) -> list[Column]:
    """Every figure in a column of its own, for a program."""
    latencies = [latency_key(case, percent) for case in measured for percent in (50, 90, 99)]
    return [Column(key, key) for key in (*PLAIN, *(TARGET if target is not None else ()), *latencies)]


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _joined(row: dict[str, Any], shown: list[Case]) -> dict[str, str]:
    """Cells that hold several figures, as a person reads them."""
    joined = {}
    if row["accuracy"] is not None:
        spread = "" if row["accuracy_std"] is None else f" +- {_percent(row['accuracy_std'])}"
        joined["accuracy with spread"] = _percent(row["accuracy"]) + spread
        joined["each seed"] = " ".join(_percent(accuracy) for accuracy in row["accuracies"])
        low, high = row["accuracy_low"], row["accuracy_high"]
        joined["seeds and failures"] = f"{row['seeds']}{_failed(row)}"
        joined["interval"] = "one seed" if low is None else f"{_percent(low)} to {_percent(high)}"
    elif row["failures"]:
        joined["accuracy with spread"] = "failed"
        joined["seeds and failures"] = f"0{_failed(row)}"
    for case in shown:
        if row.get(latency_key(case, 50)) is not None:
            figures = [row[latency_key(case, percent)] for percent in (50, 90)]
            joined[str(case)] = " / ".join("-" if each is None else f"{each:.3f}" for each in figures)
    if "target" in row:
        joined |= _reached(row)
    return joined


def _failed(row: dict[str, Any]) -> str:
    return f" ({len(row['failures'])} failed)" if row["failures"] else ""


def _reached(row: dict[str, Any]) -> dict[str, str]:
    """Seconds, epochs and MACs to the target: the median of the seeds that reached it, and their range."""
    count = f"{row['target_seeds']} of {row['target_of']}"
    if not row["target_seeds"]:
        return {"seeds that reached it": f"never ({count})"}

    def spread(key: str, shown: str) -> str:
        values = sorted(row[key])
        text = format(median(values), shown)
        return text if values[0] == values[-1] else f"{text} ({values[0]:{shown}} to {values[-1]:{shown}})"

    return {
        "seeds that reached it": count,
        "seconds to target": spread("target_seconds", ".1f"),
        "epochs to target": spread("target_epochs", "g"),
        "macs to target": spread("target_macs", ".2e"),
    }


def _columns(view: View, shown: list[Case], target: float | None) -> list[Column]:
    """What a person compares."""
    names = [Column("arch", "architecture"), Column("dataset", "dataset")]
    accuracy = Column("accuracy with spread", "test accuracy, % (mean +- std)", right=True)
    number, one = "{:,}".format, "{:.1f}".format
    views = {
        "summary": [
            accuracy,
            Column("interval", "95 % interval", right=True),
            Column("seeds and failures", "seeds", right=True),
            Column("test_images", "test images", number, right=True),
            Column("params", "parameters", number, right=True),
            Column("macs", "MACs", number, right=True),
            Column("model_bytes", "ONNX bytes", number, right=True),
            *(
                Column(str(case), f"{case[0]} ms, p50 / p90, batch {case[1]}, {threads(case)}", right=True)
                for case in shown
            ),
            Column("train_seconds", "train s", one, right=True),
        ],
        "seeds": [
            accuracy,
            Column("interval", "95 % interval", right=True),
            Column("each seed", "every seed, in order", right=True),
            Column("train_images", "training images", number, right=True),
            Column("epochs", "epochs", right=True),
        ],
        "cost": [
            Column("params", "parameters", number, right=True),
            Column("fc_weights", "fully connected equivalent", number, right=True),
            Column("macs", "MACs", number, right=True),
            Column("weight_bytes", "weight bytes", number, right=True),
            Column("activation_bytes", "activation bytes", number, right=True),
            Column("memory_bytes", "training memory, MB", lambda value: f"{value / 1e6:.0f}", right=True),
            Column("train_seconds", "train s", one, right=True),
            Column("energy_joules", "energy, J", "{:.0f}".format, right=True),
            Column("energy_kind", "energy measured by"),
        ],
        "robustness": [
            accuracy,
            Column("shift_mean", "shifted up to 4 px, mean, %", _percent, right=True),
            Column("shift_worst", "worst shift, %", _percent, right=True),
            Column("equivariance_error", "equivariance error, 1 px", "{:.3f}".format, right=True),
            Column("ece", "expected calibration error", "{:.4f}".format, right=True),
        ],
    }
    reached = (
        [
            Column("seeds that reached it", f"seeds to val {_percent(target)} %", right=True),
            Column("seconds to target", "s, validation excluded: median (range) of those", right=True),
            Column("epochs to target", "epochs", right=True),
            Column("macs to target", "training MACs", right=True),
        ]
        if target is not None
        else []
    )
    return [*names, *views[view], *reached]
