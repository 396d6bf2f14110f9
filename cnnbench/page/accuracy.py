"""Sections on accuracy: against cost, all measurements, seeds, learning curves, training images, time to a target."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from cnnbench.page.charts import accuracy as charts
from cnnbench.page.charts.base import Point, error
from cnnbench.page.material import Group, Material
from cnnbench.page.section import Block, Picture, Section, Table
from cnnbench.records.schema import RunRecord
from cnnbench.tables.columns import CATALOGUE, Column, latency_column, select
from cnnbench.tables.rows import LatencyKey, Row
from cnnbench.tables.text import count, milliseconds, percent, short

POINTS = 300
"""In a picture of accuracy against cost."""
CURVES = 20
"""Runs in a picture of learning curves; where there are more, one per network."""
MANY = 12
"""Rows above which a table has its own filter."""
SIZES = 200
"""Points in a picture of accuracy against training images."""


def table(material: Material) -> Section | None:
    """Every figure of every group: what decides, then all others by subject."""
    rows = material.groups
    if not rows:
        return None
    key = material.fastest_key
    fast = [latency_column(key, percent) for key in ([key] if key else []) for percent in (50, 90)]
    others = [latency_column(key, percent) for key in material.latency_keys for percent in _percents(key)]
    keys = {column.key for column in fast}
    spread = Column("spread", "95 % interval", right=True, read=lambda row: row.accuracy_spread)
    several = [CATALOGUE["dataset"]] * (len(material.datasets) > 1)
    tables = [
        _table("", rows, [*several, CATALOGUE["accuracy"], spread, *select(*FIGURES), *fast]),
        *(_table(title, rows, [*several, *select(*figures)]) for title, figures in MORE.items()),
        _table("Latency of other settings", rows, [*several, *(each for each in others if each.key not in keys)]),
    ]
    lead = (
        "One row for all runs that differ in their seed alone. Accuracy is on test images that were read once, after "
        "training; its interval is for new seeds and new images unless it says what it leaves out. A multiply-add "
        "(MAC) counts as one operation."
    )
    blocks = [Block(table=each) for each in tables if each]
    return Section("table", "All measurements", lead, blocks, "Measurements")


FIGURES = ("seeds", "macs", "params", "model_bytes")
"""Keys of the catalogue between accuracy and latency."""
MORE = {
    "Robustness and calibration": ("shift_mean", "shift_worst", "equivariance_error", "ece", "ece_null"),
    "Classes": ("majority", "balanced_accuracy", "macro_f1", "lowest_recall"),
    "Training and memory": (
        "train_images",
        "class_weights",
        "augment",
        "epochs",
        "train_seconds",
        "memory_bytes",
        "energy_joules",
        "activation_bytes",
        "fc_weights",
    ),
}
"""Keys of the catalogue by the title of their table."""


def _table(title: str, groups: Sequence[Group], columns: Sequence[Column]) -> Table | None:
    """A table of groups, without the columns that were measured for none; None where no figure was."""
    measured = [column for column in columns if any(column.value(group.row) is not None for group in groups)]
    shown = [_of_group(column) for column in measured]
    if not [column for column in shown if column.key != "dataset"]:
        return None
    return Table([Column("name", "network"), *shown], groups, title, filtered=not title or len(groups) > MANY)


def _of_group(column: Column) -> Column:
    """The column for rows that are groups."""
    return replace(column, read=lambda group: column.value(group.row))


def _percents(key: LatencyKey) -> tuple[int, ...]:
    return (50, 90, 99) if key.batch == 1 else (50,)


def pareto(material: Material) -> Section | None:
    """Accuracy against MACs, parameters and latency."""
    blocks = []
    for dataset in material.datasets:
        groups, notes = material.top(dataset, POINTS)
        if len(groups) > 1:
            pictures = [_cost(material, groups, column) for column in _costs(material)]
            shown = [picture for picture in pictures if picture]
            blocks.append(Block(material.heading(dataset), notes, legend=material.legend(groups), pictures=shown))
    lead = (
        "Up and to the left is better. The dashed line is the Pareto front: no network is better than those on it in "
        "both. The accuracy axis is logarithmic in the error: each halving of the error is the same distance. Bars "
        "are 95 % intervals."
    )
    return Section("cost", "Accuracy against cost", lead, blocks, "Cost") if blocks else None


TITLES = {"macs": "Accuracy and arithmetic", "params": "Accuracy and size"}
"""Titles of the pictures, by the key of the cost; the other is latency."""


def _costs(material: Material) -> list[Column]:
    """The column of each cost; its heading is the title of the axis."""
    costs = [replace(CATALOGUE["macs"], heading="multiply-adds for one image"), CATALOGUE["params"]]
    if key := material.fastest_key:
        costs.append(replace(latency_column(key, 50), heading=f"median ms for one image ({key.place})"))
    return costs


def _cost(material: Material, groups: Sequence[Group], cost: Column) -> Picture | None:
    """Accuracy against one cost; None where it was not measured at all."""
    points = [
        {**material.point(group), "cost": value, "figure": _with_unit(cost, value)}
        for group in groups
        if (value := cost.value(group.row))
    ]
    if not points:
        return None
    names = ", ".join(point["name"] for point in charts.front(points)[:8])
    missing = len(groups) - len(points)
    caption = f"On the front: {names}." + (f" Not measured for {missing} of {len(groups)}." if missing else "")
    title = TITLES.get(cost.key, "Accuracy and latency")
    return charts.pareto(points, material.palette, axis=cost.heading, title=title, caption=caption)


def _with_unit(cost: Column, value: float) -> str:
    if cost.unit == "ms":
        return f"{milliseconds(value)} ms"
    return f"{value:,} {'MACs' if cost.key == 'macs' else cost.heading}"


def seeds(material: Material) -> Section | None:
    """How much runs differ by their seed alone."""
    blocks = []
    for dataset in material.datasets:
        groups, notes = material.top(dataset)
        if any(len(group.row.accuracies) > 1 for group in groups):
            heading = material.heading(dataset)
            picture = _seeds(material, groups, f"Seeds {heading}".strip())
            blocks.append(Block(heading, notes, pictures=[picture], layout="wide"))
    lead = "Each network, trained with several seeds. Where intervals overlap, a single run shows no difference."
    return Section("seeds", "Variation between seeds", lead, blocks, "Seeds") if blocks else None


def _seeds(material: Material, groups: Sequence[Group], title: str) -> Picture:
    means = [material.point(group) for group in groups]
    points = [point for group in groups for point in _seed_points(material, group)]
    single = [group.name for group in groups if group.row.seeds == 1]
    caption = "A dot is a run, the tick the mean, the bar its 95 % interval for new seeds and new images."
    if single:
        caption += f" One seed, so the bar is for new images alone: {', '.join(single)}."
    return charts.seeds(points, material.palette, means=means, title=title, caption=caption)


def _seed_points(material: Material, group: Group) -> list[Point]:
    shared = {key: value for key, value in material.point(group).items() if not key.endswith("_error")}
    return [
        {
            **shared,
            "error": error(run.record.test.accuracy),
            "accuracy": percent(run.record.test.accuracy),
            "seed": str(run.record.seed),
        }
        for run in group.runs
        if run.record.test
    ]


def curves(material: Material) -> Section | None:
    """Validation accuracy against epochs and against seconds of training."""
    blocks = []
    for dataset in material.datasets:
        groups, notes = material.top(dataset)
        runs = [(group, run.record) for group in groups for run in group.runs if len(run.record.fit.curve) > 1]
        if len(runs) > CURVES:
            notes = [*notes, f"One of the {len(runs):,} runs is drawn per network: the best by validation accuracy."]
            runs = [(group, group.best_run.record) for group in groups if len(group.best_run.record.fit.curve) > 1]
        if runs:
            points = [
                point for place, (group, record) in enumerate(runs) for point in _epochs(material, group, record, place)
            ]
            block = Block(material.heading(dataset), notes, legend=material.legend(groups), layout="two")
            blocks.append(replace(block, pictures=_curves(material, points)))
    lead = "One line per run, scored on validation images after each epoch: by epochs, and by seconds of training."
    return Section("curves", "Learning curves", lead, blocks, "Learning") if blocks else None


def _epochs(material: Material, group: Group, record: RunRecord, place: int) -> list[Point]:
    """A point per epoch of a run; `place` tells the runs of a picture apart."""
    return [
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
        for epoch in record.fit.curve
    ]


def _curves(material: Material, points: Sequence[Point]) -> list[Picture]:
    by_epoch = [{**point, "spent": point["epoch"]} for point in points]
    caption = "Validation accuracy after each epoch."
    pictures = [charts.curves(by_epoch, material.palette, axis="epochs", log=False, title="By epochs", caption=caption)]
    by_time = [{**point, "spent": point["seconds"]} for point in points if point["seconds"] > 0]
    if by_time:
        axis = "seconds of training, validation excluded"
        caption = "Validation accuracy by seconds of training, on the machines named at the end of this page."
        pictures.append(charts.curves(by_time, material.palette, axis=axis, log=True, title="By time", caption=caption))
    return pictures


def efficiency(material: Material) -> Section | None:
    """Test accuracy against the number of training images, where networks were trained on several."""
    blocks = []
    for dataset in material.datasets:
        groups = _on_several_sizes(material.tested(dataset))
        if groups:
            points = [
                {
                    **material.point(group),
                    "name": group.row.arch,
                    "images": group.train_images,
                    "figure": count(group.train_images),
                }
                for group in sorted(groups, key=lambda group: group.train_images)
            ]
            caption = "Subsets are stratified by class; smaller subsets are part of larger ones."
            title = "Accuracy and training images"
            picture = charts.efficiency(points, material.palette, title=title, caption=caption)
            legend = material.legend(groups)
            blocks.append(Block(material.heading(dataset), legend=legend, pictures=[picture], layout="two"))
    lead = "The flatter the line, the less the accuracy depends on the number of training images."
    return Section("data", "Accuracy against training images", lead, blocks, "Training images") if blocks else None


def _on_several_sizes(groups: Sequence[Group]) -> list[Group]:
    """Groups of architectures that were trained on several numbers of images."""
    sizes = defaultdict[str, set[int]](set)
    for group in groups:
        sizes[group.row.arch].add(group.train_images)
    return [group for group in groups if len(sizes[group.row.arch]) > 1][:SIZES]


def time_to_target(material: Material) -> Section | None:
    """What training took until the target was first reached on validation images."""
    if material.target is None:
        return None
    rows = [{"name": group.name, "dataset": group.row.dataset, **_reached(group.row)} for group in material.groups]
    columns = [
        Column("name", "network"),
        Column("dataset", "dataset"),
        Column("reached", "seeds that reached it"),
        Column("seconds", "seconds, median", "{:.1f}".format, right=True),
        Column("epochs", "epochs, median", "{:g}".format, right=True),
        Column("macs", "training MACs, median", short, right=True),
    ]
    lead = (
        f"What training took until {percent(material.target)} of the validation images were classified correctly for "
        "the first time, validation excluded; medians are over all seeds, those that did not get there counted as "
        "later than all others. There is none where half of them did not."
    )
    return Section("target", "Time to the target", lead, [Block(table=Table(columns, rows))], "Target")


def _reached(row: Row) -> dict[str, str | float | None]:
    time = row.time_to_target
    assert time is not None
    share = f"{time.seeds} of {time.runs}"
    if not time.seeds:
        return {"reached": f"never ({share})"}
    return {
        "reached": share,
        "seconds": time.median("seconds"),
        "epochs": time.median("epochs"),
        "macs": time.median("macs"),
    }
