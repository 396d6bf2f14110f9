"""Sections on accuracy: the table, accuracy against cost, seeds, learning curves, data, time to a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from cnnbench.page import charts
from cnnbench.page.answer import Group, fastest
from cnnbench.page.charts import Picture, Point, error
from cnnbench.page.parts import Block, Material, Section, Table
from cnnbench.tables.columns import CATALOGUE, Column, latency_column
from cnnbench.tables.rows import LatencyKey, Row
from cnnbench.tables.text import interval, percent, short, short_bytes

FRONTED = 300
"""Points in a picture of accuracy against cost."""
CURVES = 20
"""Runs in a picture of learning curves; where there are more, one a network."""


def table(material: Material) -> Section:
    """Every figure of every group, and of what failed its name."""
    rows = material.groups
    columns = [
        column for column in _columns(material.measured) if any(column.value(group) is not None for group in rows)
    ]
    if len({group.train_images for group in rows}) == len(material.datasets):
        columns = [column for column in columns if column.key != "train_images"]
    lead = (
        "One row for all runs that differ in their seed alone. Accuracy is on test images that were read once, after "
        "training; a multiply-add (MAC) counts as one operation."
    )
    return Section("table", "All figures", lead, [Block(table=Table(columns, rows, filtered=True))])


def _spread(row: Row) -> str:
    if row.accuracy is None:
        return "not tested"
    if row.accuracy_low is None or row.accuracy_high is None:
        return "one seed"
    return interval(row.accuracy_low, row.accuracy_high)


FIGURES = (
    "train_images",
    "epochs",
    "train_seconds",
    "memory_bytes",
    "energy_joules",
    "shift_mean",
    "shift_worst",
    "equivariance_error",
    "ece",
    "activation_bytes",
    "fc_weights",
)
"""Keys of the catalogue that follow the latencies."""
BRIEF = {
    "macs": short,
    "params": short,
    "fc_weights": short,
    "model_bytes": short_bytes,
    "memory_bytes": short_bytes,
    "activation_bytes": short_bytes,
}
"""The page has no room for all digits."""


def _columns(measured: Sequence[LatencyKey]) -> list[Column]:
    """Of the large table, whose rows are groups."""
    spread = Column("spread", "95 % interval", right=True, read=_spread)
    latencies = [latency_column(key, percent) for key in measured for percent in _percents(key)]
    figures = [
        *(CATALOGUE[key] for key in ("dataset", "accuracy")),
        spread,
        *(CATALOGUE[key] for key in ("seeds", "macs", "params", "model_bytes")),
        *latencies,
        *(CATALOGUE[key] for key in FIGURES),
    ]
    return [Column("name", "network"), *map(_of_group, figures)]


def _percents(key: LatencyKey) -> tuple[int, ...]:
    return (50, 90, 99) if key.batch == 1 else (50,)


def _of_group(column: Column) -> Column:
    """The column for rows that are groups."""
    brief = replace(column, show=BRIEF[column.key], unit="") if column.key in BRIEF else column
    return replace(brief, read=lambda group: column.value(group.row))


def pareto(material: Material) -> Section | None:
    """Accuracy against MACs, parameters and latency."""
    blocks = []
    for dataset in material.datasets:
        groups, notes = material.drawn(dataset, FRONTED)
        if len(groups) > 1:
            pictures = [made for column, title in _costs(material) if (made := _cost(material, groups, column, title))]
            blocks.append(Block(material.heading(dataset), notes, material.legend(groups), pictures))
    lead = (
        "Up and to the left is better. The dashed line is the front: no network beats those on it in both. Accuracy "
        "is drawn by its mistakes, so that each halving of them is equally far; bars are 95 % intervals over seeds."
    )
    return Section("cost", "What accuracy costs", lead, blocks) if blocks else None


def _costs(material: Material) -> list[tuple[Column, str]]:
    """The column of each cost, titled as its axis, and the title of the picture."""
    costs = [
        (replace(CATALOGUE["macs"], heading="multiply-adds for one image"), "Accuracy and arithmetic"),
        (CATALOGUE["params"], "Accuracy and size"),
    ]
    if key := fastest(material.measured):
        axis = f"median ms for one image ({key.place})"
        costs.append((replace(latency_column(key, 50), heading=axis), "Accuracy and latency"))
    return costs


def _cost(material: Material, groups: list[Group], column: Column, title: str) -> Picture | None:
    def told(value: float) -> str:
        unit = "MACs" if column.key == "macs" else column.heading
        return f"{value:.3g} ms" if column.unit == "ms" else f"{value:,} {unit}"

    points = [
        {**material.point(group), "cost": value, "figure": told(value)}
        for group in groups
        if (value := column.value(group.row))
    ]
    if not points:
        return None
    front = ", ".join(point["name"] for point in charts.front(points)[:8])
    missing = len(groups) - len(points)
    caption = f"On the front: {front}." + (f" Not measured for {missing} of {len(groups)}." if missing else "")
    return charts.pareto(points, material.palette, column.heading, title, caption)


def seeds(material: Material) -> Section | None:
    """How much runs differ by their seed alone."""
    blocks = []
    for dataset in material.datasets:
        groups, notes = material.drawn(dataset)
        if not any(len(group.row.accuracies) > 1 for group in groups):
            continue
        means = [material.point(group) for group in groups]
        points = [point for group in groups for point in _seeds(material, group)]
        single = [group.name for group in groups if group.row.seeds == 1]
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
            sizes.setdefault(group.row.arch, set()).add(group.train_images)
        several = [group for group in groups if len(sizes[group.row.arch]) > 1][:200]
        if several:
            points = [
                {
                    **material.point(group),
                    "name": group.row.arch,
                    "images": group.train_images,
                    "figure": f"{group.train_images:,}",
                }
                for group in sorted(several, key=lambda group: group.train_images)
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
        f"What training took until {percent(material.target)} of the validation images were right for the first time, "
        "validation excluded; medians are over the seeds that got there."
    )
    return Section("target", "Time to the target", lead, [Block(table=Table(columns, rows))])


def _reached(row: Row) -> dict[str, str | float]:
    time = row.time_to_target
    assert time is not None
    count = f"{time.seeds} of {time.runs}"
    if not time.seeds:
        return {"reached": f"never ({count})"}
    return {
        "reached": count,
        "seconds": median(time.seconds),
        "epochs": median(time.epochs),
        "macs": median(time.macs),
    }
