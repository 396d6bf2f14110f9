"""What `compare` draws."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench import pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AREA = 0.45  # of a disc, in square points, for the square root of its parameters


def accuracy_against_cost(rows: list[dict[str, Any]], stem: Path, costs: dict[str, str]) -> list[Path]:
    """Accuracy of the rows of `compare` against each cost, one panel a cost.

    A disc's area grows with the square root of the parameters; bars are one standard deviation over seeds.

    Args:
        rows: The rows of `compare`.
        stem: Where to draw, without suffix.
        costs: Key of a cost in the rows, and the label of its axis.

    Returns:
        The files written: `stem` with .svg and .png.
    """
    rows = [row for row in rows if row["accuracy"] is not None]
    figure, panels = pictures.new(panels=len(costs))
    panels[0].set_ylabel("test accuracy, %")
    for axes in panels[1:]:
        axes.sharey(panels[0])
        axes.tick_params(labelleft=False)
    datasets = ", ".join(sorted({row["dataset"] for row in rows}))
    figure.suptitle(f"Accuracy against cost on {datasets}  (disc area: square root of the parameters)", fontsize=12)
    for axes, (key, label) in zip(panels, costs.items(), strict=True):
        _panel(axes, rows, key, label)
    return pictures.write(figure, stem)


def _panel(axes: Axes, rows: list[dict[str, Any]], key: str, label: str) -> None:
    """Accuracy against one cost, on a logarithmic axis."""
    points = [row for row in rows if row.get(key)]
    axes.set_xlabel(label)
    if not points:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes, color="#666666")
        return
    _logarithmic(axes, [row[key] for row in points])
    names = sorted({row["arch"] for row in rows})
    several = len({row["dataset"] for row in rows}) > 1
    labels = []
    for row in points:
        colour = pictures.COLOURS[names.index(row["arch"]) % len(pictures.COLOURS)]
        x, y, area = row[key], 100 * row["accuracy"], AREA * row["params"] ** 0.5
        spread = 100 * row["accuracy_std"] if row["accuracy_std"] else None
        axes.errorbar(x, y, yerr=spread, color=colour, capsize=3)
        axes.scatter(x, y, s=area, color=colour, alpha=0.55, linewidths=0)
        labels.append(axes.text(x, y, row["task"] if several else row["arch"], fontsize=9))
    from adjustText import adjust_text

    places = {"x": [row[key] for row in points], "y": [100 * row["accuracy"] for row in points]}
    line = {"arrowstyle": "-", "color": "#999999", "lw": 0.6}
    adjust_text(labels, **places, ax=axes, expand=(1.25, 2.2), arrowprops=line)  # off the discs, off each other


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
