"""What `compare` draws."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench import pictures
from cnnbench.tables.columns import Column
from cnnbench.tables.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AREA = 0.45  # of a disc, in square points, for the square root of its parameters
NAMED = 30
"""Names in a panel; more cover each other."""
STEPS = 500
"""Steps of moving names apart. A limit of time would draw the same rows differently on a busy machine."""


def accuracy_against_cost(rows: Sequence[Row], stem: Path, *, costs: Sequence[Column]) -> list[Path]:
    """Accuracy of the rows of `compare` against each cost, one panel per cost.

    A disc's area grows with the square root of the parameters; bars are one standard deviation over seeds.

    Args:
        rows: The rows of `compare`.
        stem: Where to draw, without suffix.
        costs: What to draw against; their titles label the axes.

    Returns:
        The files written: `stem` with .svg and .png.
    """
    tested = [row for row in rows if row.accuracy is not None]
    figure, panels = pictures.new(panels=len(costs))
    panels[0].set_ylabel("test accuracy, %")
    for axes in panels[1:]:
        axes.sharey(panels[0])
        axes.tick_params(labelleft=False)
    datasets = ", ".join(sorted({row.dataset for row in tested}))
    figure.suptitle(f"Accuracy against cost on {datasets}  (disc area: square root of the parameters)", fontsize=12)
    for axes, cost in zip(panels, costs, strict=True):
        _panel(axes, tested, cost)
    return pictures.write(figure, stem)


def _panel(axes: Axes, rows: Sequence[Row], cost: Column) -> None:
    """Accuracy against one cost, on a logarithmic axis."""
    points = [(row, value) for row in rows if (value := cost.value(row))]
    axes.set_xlabel(cost.title)
    if not points:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes, color="#666666")
        return
    _logarithmic(axes, [x for _, x in points])
    several = len({row.dataset for row in rows}) > 1
    colours = dict(zip(sorted({row.arch for row in rows}), cycle(pictures.COLOURS), strict=False))
    by_colour: dict[str, list[tuple[Row, float]]] = {}
    for row, x in points:
        by_colour.setdefault(colours[row.arch], []).append((row, x))
    for colour, marks in by_colour.items():
        _discs(axes, marks, colour)
    labelled = _labelled(points)
    labels = [
        axes.text(x, _percent(row), row.task if several else row.arch, fontsize=9, parse_math=False)
        for row, x in labelled
    ]
    if len(labelled) < len(points):
        note = f"{len(labelled)} of {len(points):,} are named: those that no other beats in cost and accuracy"
        axes.set_title(note, fontsize=8, color="#666666", loc="right")
    from adjustText import adjust_text

    places = {"x": [x for _, x in labelled], "y": [_percent(row) for row, _ in labelled]}
    line = {"arrowstyle": "-", "color": "#999999", "lw": 0.6}
    with pictures.any_script():  # off the discs, off each other
        adjust_text(labels, **places, ax=axes, expand=(1.25, 2.2), iter_lim=STEPS, arrowprops=line)


def _discs(axes: Axes, marks: Sequence[tuple[Row, float]], colour: str) -> None:
    """Discs of one colour, with a bar where there is a spread."""
    x, y = [x for _, x in marks], [_percent(row) for row, _ in marks]
    areas = [AREA * (row.params or 0) ** 0.5 for row, _ in marks]
    axes.scatter(x, y, s=areas, color=colour, alpha=0.55, linewidths=0)
    ranged = [(row, x) for row, x in marks if row.accuracy_std]
    if ranged:
        x, y = [x for _, x in ranged], [_percent(row) for row, _ in ranged]
        spreads = [100 * (row.accuracy_std or 0) for row, _ in ranged]
        axes.errorbar(x, y, yerr=spreads, color=colour, capsize=3, fmt="none")


def _labelled(points: Sequence[tuple[Row, float]]) -> list[tuple[Row, float]]:
    """What is named: all points where names fit, else those that no other beats in cost and accuracy."""
    if len(points) <= NAMED:
        return list(points)
    front: list[tuple[Row, float]] = []
    for point in sorted(points, key=lambda point: (point[1], -_percent(point[0]))):
        if not front or _percent(point[0]) > _percent(front[-1][0]):
            front.append(point)
    return front[-NAMED:]


def _percent(row: Row) -> float:
    return 100 * (row.accuracy or 0)


def _logarithmic(axes: Axes, values: list[float]) -> None:
    """A logarithmic axis with plain numbers (1 M, 0.05) at 1, 2 and 5, and room beside the outermost values."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    lowest, highest = min(values), max(values)
    room = max(1.6, (highest / lowest) ** 0.15)
    axes.set_xlim(lowest / room, highest * room)
    axes.margins(y=0.15)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter(sep=" ") if lowest >= 1000 else "{x:g}")
