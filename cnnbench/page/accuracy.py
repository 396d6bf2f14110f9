"""Sections on accuracy: the table, accuracy against cost, seeds, learning curves, data, time to a target."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from cnnbench.cli.table import Column
from cnnbench.page import charts
from cnnbench.page.answer import Group, fastest_key
from cnnbench.page.charts import Picture, Point, error, percent, short
from cnnbench.page.parts import Block, Material, Section, Table
from cnnbench.tables.gather import Case, latency_key, threads

FRONTED = 300
"""Points in a picture of accuracy against cost."""
CURVES = 20
"""Runs in a picture of learning curves; where there are more, one a network."""


def table(material: Material) -> Section:
    """Every figure of every group, and of what failed its name."""
    rows = [{**group.row, "name": group.name, **_told(group.row)} for group in material.groups]
    columns = [column for column in _columns(material.measured) if any(row.get(column.key) is not None for row in rows)]
    if len({row["train_images"] for row in rows}) == len(material.datasets):
        columns = [column for column in columns if column.key != "train_images"]
    lead = (
        "One row for all runs that differ in their seed alone. Accuracy is on test images that were read once, after "
        "training; a multiply-add (MAC) counts as one operation."
    )
    return Section("table", "All figures", lead, [Block(table=Table(columns, rows, filtered=True))])


def _told(row: dict[str, Any]) -> dict[str, Any]:
    if row["accuracy"] is None:
        return {"spread": "not tested"}
    if row["accuracy_low"] is None:
        return {"spread": "one seed"}
    return {"spread": f"{100 * row['accuracy_low']:.2f} to {100 * row['accuracy_high']:.2f}"}


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def bytes_told(value: float) -> str:
    """Bytes with a unit: 246 kB."""
    text = short(value)
    return f"{text}B" if text[-1].isalpha() else f"{text} B"


def _columns(measured: Sequence[Case]) -> list[Column]:
    number = "{:,}".format
    latencies = [
        Column(
            latency_key(case, percent),
            f"{case[0]} p{percent}, ms, batch {case[1]}, {threads(case)}",
            "{:.3f}".format,
            right=True,
        )
        for case in measured
        for percent in ((50, 90, 99) if case[1] == 1 else (50,))
    ]
    return [
        Column("name", "network"),
        Column("dataset", "dataset"),
        Column("accuracy", "test accuracy, %", _percent, right=True),
        Column("spread", "95 % interval", right=True),
        Column("seeds", "seeds", right=True),
        Column("macs", "MACs", short, right=True),
        Column("params", "parameters", short, right=True),
        Column("model_bytes", "ONNX file", bytes_told, right=True),
        *latencies,
        Column("train_images", "training images", number, right=True),
        Column("epochs", "epochs", right=True),
        Column("train_seconds", "training, s", "{:.1f}".format, right=True),
        Column("memory_bytes", "training memory", bytes_told, right=True),
        Column("energy_joules", "training energy, J", "{:.0f}".format, right=True),
        Column("shift_mean", "shifted up to 4 px, %", _percent, right=True),
        Column("shift_worst", "worst shift, %", _percent, right=True),
        Column("equivariance_error", "equivariance error, 1 px", "{:.3f}".format, right=True),
        Column("ece", "calibration error (ECE), %", _percent, right=True),
        Column("activation_bytes", "activations", bytes_told, right=True),
        Column("fc_weights", "weights if fully connected", short, right=True),
    ]


def pareto(material: Material) -> Section | None:
    """Accuracy against MACs, parameters and latency."""
    blocks = []
    for dataset in material.datasets:
        groups, notes = material.drawn(dataset, FRONTED)
        if len(groups) > 1:
            pictures = [
                made for key, axis, title in _costs(material) if (made := _cost(material, groups, key, axis, title))
            ]
            blocks.append(Block(material.heading(dataset), notes, material.legend(groups), pictures))
    lead = (
        "Up and to the left is better. The dashed line is the front: no network beats those on it in both. Accuracy "
        "is drawn by its mistakes, so that each halving of them is equally far; bars are 95 % intervals over seeds."
    )
    return Section("cost", "What accuracy costs", lead, blocks) if blocks else None


def _costs(material: Material) -> list[tuple[str, str, str]]:
    """Key, title of the axis and title of the picture of each cost."""
    key = fastest_key(material.measured)
    engine = (key or "").split("_")[0]
    return [
        ("macs", "multiply-adds for one image", "Accuracy and arithmetic"),
        ("params", "parameters", "Accuracy and size"),
        *([(key, f"median ms for one image ({engine})", "Accuracy and latency")] if key else []),
    ]


def _cost(material: Material, groups: list[Group], key: str, axis: str, title: str) -> Picture | None:
    def told(value: float) -> str:
        return f"{value:.3g} ms" if key.endswith("_ms") else f"{value:,} {'MACs' if key == 'macs' else key}"

    points = [
        {**material.point(group), "cost": group.row[key], "figure": told(group.row[key])}
        for group in groups
        if group.row.get(key)
    ]
    if not points:
        return None
    front = ", ".join(point["name"] for point in charts.front(points)[:8])
    missing = len(groups) - len(points)
    caption = f"On the front: {front}." + (f" Not measured for {missing} of {len(groups)}." if missing else "")
    return charts.pareto(points, material.palette, axis, title, caption)


def seeds(material: Material) -> Section | None:
    """How much runs differ by their seed alone."""
    blocks = []
    for dataset in material.datasets:
        groups, notes = material.drawn(dataset)
        if not any(len(group.row["accuracies"]) > 1 for group in groups):
            continue
        means = [material.point(group) for group in groups]
        points = [point for group in groups for point in _seeds(material, group)]
        single = [group.name for group in groups if group.row["seeds"] == 1]
        caption = "A dot is a run, the tick the mean, the bar its 95 % interval." + (
            f" One seed, so no interval: {', '.join(single)}." if single else ""
        )
        drawn = charts.seeds(points, means, material.palette, f"Seeds {material.heading(dataset)}".strip(), caption)
        blocks.append(Block(material.heading(dataset), notes, [], [drawn], "wide"))
    lead = "The same network, trained again with another seed. Where intervals overlap, one run proves nothing."
    return Section("seeds", "How much luck there is", lead, blocks) if blocks else None


def _seeds(material: Material, group: Group) -> list[Point]:
    tested = [run.record for run in group.runs if run.record.test]
    return [
        {
            **{key: value for key, value in material.point(group).items() if not key.endswith("_error")},
            "error": error(record.test.accuracy),
            "accuracy": percent(record.test.accuracy),
            "seed": str(record.seed),
        }
        for record in tested
        if record.test
    ]


def curves(material: Material) -> Section | None:
    """Validation accuracy against epochs and against seconds of training."""
    blocks = []
    for dataset in material.datasets:
        groups, notes = material.drawn(dataset)
        runs = [(group, run.record) for group in groups for run in group.runs if len(run.record.fit.curve) > 1]
        if len(runs) > CURVES:
            notes = [*notes, f"Of {len(runs):,} runs one a network is drawn: the best seed by validation accuracy."]
            runs = [(group, group.shown.record) for group in groups if len(group.shown.record.fit.curve) > 1]
        if runs:
            points = [
                {
                    "run": f"{record.task} {record.seed} {place}",
                    "name": f"{group.name}, seed {record.seed}",
                    "group": material.palette.groups[record.arch],
                    "error": error(epoch.val_accuracy),
                    "accuracy": percent(epoch.val_accuracy),
                    "epoch": epoch.epoch,
                    "seconds": epoch.train_seconds,
                    "when": f"epoch {epoch.epoch}, {epoch.train_seconds:.3g} s",
                }
                for place, (group, record) in enumerate(runs)
                for epoch in record.fit.curve
            ]
            blocks.append(
                Block(material.heading(dataset), notes, material.legend(groups), _curves(material, points), "two")
            )
    lead = "Every line is a run, scored on validation images after each epoch. Left by epochs, right by the clock."
    return Section("curves", "How they learn", lead, blocks) if blocks else None


def _curves(material: Material, points: list[Point]) -> list[Picture]:
    by_epoch = [{**point, "spent": point["epoch"]} for point in points]
    by_time = [{**point, "spent": point["seconds"]} for point in points if point["seconds"] > 0]
    made = [
        charts.curves(
            by_epoch, material.palette, "epochs", False, "By epochs", "What each pass over the images brings."
        )
    ]
    if by_time:
        caption = "What each second brings, on the machines named at the end of this page."
        made.append(
            charts.curves(
                by_time, material.palette, "seconds of training, validation excluded", True, "By the clock", caption
            )
        )
    return made


def efficiency(material: Material) -> Section | None:
    """Test accuracy against the number of training images, where networks were trained on several."""
    blocks = []
    for dataset in material.datasets:
        groups = material.all_of(dataset)
        sizes: dict[str, set[int]] = {}
        for group in groups:
            sizes.setdefault(group.row["arch"], set()).add(group.row["train_images"])
        several = [group for group in groups if len(sizes[group.row["arch"]]) > 1][:200]
        if several:
            points = [
                {
                    **material.point(group),
                    "name": group.row["arch"],
                    "images": group.row["train_images"],
                    "figure": f"{group.row['train_images']:,}",
                }
                for group in sorted(several, key=lambda group: group.row["train_images"])
            ]
            caption = "Fewer images are drawn class by class, in proportion, and smaller draws are part of larger ones."
            drawn = charts.efficiency(points, material.palette, "Accuracy and training images", caption)
            blocks.append(Block(material.heading(dataset), [], material.legend(several), [drawn], "two"))
    lead = "The same network, trained on fewer images: the flatter its line, the fewer it needs."
    return Section("data", "How many images they need", lead, blocks) if blocks else None


def time_to_target(material: Material) -> Section | None:
    """What training took until the target was first reached on validation images."""
    if material.target is None:
        return None
    rows = [{"name": group.name, "dataset": group.row["dataset"], **_reached(group.row)} for group in material.groups]
    columns = [
        Column("name", "network"),
        Column("dataset", "dataset"),
        Column("reached", "seeds that reached it"),
        Column("seconds", "seconds, median", "{:.1f}".format, right=True),
        Column("epochs", "epochs, median", "{:g}".format, right=True),
        Column("macs", "training MACs, median", short, right=True),
    ]
    lead = (
        f"What training took until {percent(material.target)} of the validation images were right for the first time, "
        "validation excluded; medians are over the seeds that got there."
    )
    return Section("target", "Time to the target", lead, [Block(table=Table(columns, rows))])


def _reached(row: dict[str, Any]) -> dict[str, Any]:
    count = f"{row['target_seeds']} of {row['target_of']}"
    if not row["target_seeds"]:
        return {"reached": f"never ({count})"}
    return {"reached": count, **{key: median(row[f"target_{key}"]) for key in ("seconds", "epochs", "macs")}}
