"""Which networks can be told apart: every pair on the same test images, as a section and as a picture of `compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench import pictures
from cnnbench.page.charts import accuracy as charts
from cnnbench.page.charts.base import Point
from cnnbench.page.material import Material
from cnnbench.page.section import Block, Section
from cnnbench.tables.pairs import Pair, best_sentence, compare_all

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

MOST = 25
"""Networks of a matrix; of more the cells could not be read."""
CAPTION = (
    "A cell is the accuracy of the network at its left minus that of the network below, in points. Coloured cells are "
    "significant after Holm's correction for all pairs; grey ones are not."
)


def pairs_of(material: Material, dataset: str) -> tuple[list[Pair], list[str]]:
    """The pairs of the most accurate networks of a dataset, and notes on those that were left out."""
    same, others = material.on_the_same_images(dataset)
    pairs, missing = compare_all({group.name: group.runs for group in same[:MOST]})
    notes = [f"Predictions are missing: {', '.join(missing)} (cnnbench test)."] if missing else []
    notes += others
    if len(same) > MOST:
        notes.append(f"The {MOST} most accurate of {len(same)} networks are compared.")
    return pairs, notes


def section(material: Material) -> Section | None:
    """A matrix per dataset with at least two comparable networks."""
    blocks = []
    for dataset in material.datasets:
        pairs, notes = pairs_of(material, dataset)
        if pairs:
            title = f"Pairs {material.heading(dataset)}".strip()
            picture = charts.matrix(_cells(pairs), _names(pairs), title=title, caption=CAPTION)
            notes = [f"{best_sentence(pairs)}.", *notes]
            blocks.append(Block(material.heading(dataset), notes, pictures=[picture], layout="two"))
    lead = (
        "Differences of accuracy on the same test images, for new seeds and new images; between networks of one seed, "
        "for new images alone."
    )
    return Section("pairs", "Which networks can be told apart", lead, blocks, "Pairs") if blocks else None


def _names(pairs: Sequence[Pair]) -> list[str]:
    return list(dict.fromkeys(name for pair in pairs for name in (pair.a, pair.b)))


def _cells(pairs: Sequence[Pair]) -> list[Point]:
    """Both cells of every pair."""
    cells: list[Point] = []
    for pair in pairs:
        for left, below, sign in ((pair.a, pair.b, 1), (pair.b, pair.a, -1)):
            points = 100 * sign * pair.difference.mean + 0.0  # no -0.0
            result = "no difference shown" if not pair.told_apart else "better" if points > 0 else "worse"
            interval = sorted(100 * sign * end for end in (pair.difference.low, pair.difference.high))
            cells.append(
                {
                    "left": left,
                    "below": below,
                    "result": result,
                    "points": f"{points:+.1f}",
                    "interval": f"{interval[0]:.2f} to {interval[1]:.2f}",
                    "p": f"{pair.p_holm:.2g}",
                }
            )
    return cells


def draw(by_dataset: dict[str, list[Pair]], stem: Path) -> list[Path]:
    """The matrices of `compare --view pairs`, a panel per dataset; the files written."""
    most = max(len(_names(pairs)) for pairs in by_dataset.values())
    size = 2.4 + 0.62 * most
    figure, panels = pictures.new(size * len(by_dataset), size, panels=len(by_dataset))
    for axes, (dataset, pairs) in zip(panels, by_dataset.items(), strict=True):
        _panel(axes, pairs, dataset)
    return pictures.write(figure, stem)


def _panel(axes: Axes, pairs: Sequence[Pair], dataset: str) -> None:
    names = _names(pairs)
    colours = {"better": pictures.COLOURS[0], "worse": pictures.COLOURS[1], "no difference shown": "#cccccc"}
    for cell in _cells(pairs):
        x, y = names.index(cell["below"]), names.index(cell["left"])
        axes.add_patch(_square(x, y, colours[cell["result"]]))
        axes.text(x, y, cell["points"], ha="center", va="center", fontsize=8)
    axes.set_title(f"{dataset}: row minus column, points\ngrey: no difference shown", fontsize=10)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=9)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.grid(visible=False)


def _square(x: int, y: int, colour: str) -> Rectangle:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, color=colour, alpha=0.6, linewidth=0)
