"""What a page is made of: answers, sections of blocks, and in a block charts, drawings, tables, claims or images.

`report`, `explain` and `lab` build a `Page` from these; `cnnbench.page.write` turns it into one HTML file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cnnbench import pictures
from cnnbench.lab import Claim
from cnnbench.tables.columns import Column

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A chart, with a still picture for paper and where no script runs, or a drawing."""

    alt: str
    """What it shows, for readers who do not see it."""
    title: str = ""
    caption: str = ""
    """What it shows and how to read it."""
    svg: str = ""
    """The still picture of a chart, or the drawing."""
    spec: str = ""
    """A chart as Vega-Lite: JSON that may stand inside a script element."""


def drawing(alt: str, figure: Figure) -> Picture:
    """A matplotlib figure as a picture in the colours of the page, light and dark."""
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
        for written in axes.texts if axes.images or axes.collections else ():
            if written.get_color() in ("black", "k", "#000000"):
                written.set_color("#010101")  # it stands on a light cell, whatever the page is
        for legend in filter(None, [axes.get_legend()]):
            legend.get_frame().set_alpha(0)
    text = pictures.svg(figure)
    for drawn, shown in PAGE_COLOURS.items():
        text = text.replace(drawn, shown)
    return Picture(alt, svg=text)


PAGE_COLOURS = {"#000000": "var(--ink)", "#666666": "var(--soft)", "#b0b0b0": "var(--grid)", "#333333": "var(--ink)"}
"""Black and greys of matplotlib, by the page's own, which differ in light and dark."""


@dataclass(frozen=True)
class Cell:
    """What a cell shows, the number by which it is sorted where it shows one, and its alignment."""

    text: str
    value: float | None
    right: bool


@dataclass(frozen=True)
class Table:
    """Rows under headings."""

    columns: Sequence[Column]
    rows: Sequence[object]
    """Frozen dataclasses, records or mappings."""
    title: str = ""
    filtered: bool = False
    """Whether the page offers a filter for its rows."""

    @property
    def cells(self) -> list[list[Cell]]:
        """The cells of every row."""
        return [
            [Cell(column.text(row), _number(column.value(row)), column.right) for column in self.columns]
            for row in self.rows
        ]


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) else None


@dataclass(frozen=True)
class Mistake:
    """A test image that a network classified wrongly."""

    source: str
    """PNG as a data URI."""
    true: str
    predicted: str
    probability: str
    place: str
    """Its file, else its number in the split."""


@dataclass(frozen=True)
class Thumbnail:
    """A small image of a file, with two lines below."""

    source: str
    """PNG as a data URI; empty where the file cannot be shown."""
    title: str
    text: str


@dataclass(frozen=True)
class LegendEntry:
    """A name with the colour and the shape of its marks (a symbol of Vega)."""

    name: str
    colour: str
    shape: str = "circle"


@dataclass(frozen=True)
class Ramp:
    """The ends of the colour scale that the pictures of a block share."""

    low: str
    high: str


@dataclass(frozen=True)
class Block:
    """Part of a section: of one dataset, or of one kind."""

    heading: str = ""
    notes: Sequence[str] = ()
    claims: Sequence[Claim] = ()
    legend: Sequence[LegendEntry] = ()
    pictures: Sequence[Picture] = ()
    layout: Literal["many", "three", "two", "wide"] = "three"
    """Pictures in a row on a wide screen; `wide` is one."""
    ramp: Ramp | None = None
    table: Table | None = None
    mistakes: Sequence[Mistake] = ()
    groups: Sequence[Sequence[Thumbnail]] = ()
    """Images that stand together."""


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph that says how to read it, and its blocks."""

    anchor: str
    """Unique on its page."""
    heading: str
    lead: str
    blocks: Sequence[Block]
    short: str = ""
    """Short form of the heading, for the list of sections."""


@dataclass(frozen=True)
class Fact:
    """A figure of an answer, and what it is."""

    value: str
    label: str


@dataclass(frozen=True)
class Alternative:
    """Another one that could be chosen, and how it differs."""

    name: str
    text: str


@dataclass(frozen=True)
class Answer:
    """What a page says of one dataset, in words."""

    dataset: str
    question: str
    name: str
    """Name of the network that answers it."""
    sentences: Sequence[str]
    facts: Sequence[Fact] = ()
    file: str = ""
    """Its path and the start of its hash; empty where there is none."""
    alternatives: Sequence[Alternative] = ()
    cautions: Sequence[str] = ()
    """What speaks against it, or is not known."""
    command: str = ""
    """What proves or makes the file."""
    picture: Picture | None = None


@dataclass(frozen=True)
class Missing:
    """Something that was not measured, and the command that measures it."""

    subject: str
    command: str


@dataclass(frozen=True)
class Page:
    """One HTML file."""

    verb: str
    """The verb that writes it."""
    title: str
    lead: str = ""
    counts: str = ""
    """What the page is based on, in one line."""
    answers: Sequence[Answer] = ()
    sections: Sequence[Section] = ()
    missing: Sequence[Missing] = ()
    origin: str = ""
    """Where its figures come from."""

    @property
    def has_charts(self) -> bool:
        """Whether it needs Vega."""
        shown = [picture for section in self.sections for block in section.blocks for picture in block.pictures]
        return any(picture.spec for picture in (*shown, *(answer.picture for answer in self.answers)) if picture)
