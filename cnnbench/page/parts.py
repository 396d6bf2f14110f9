"""What the report page is made of: sections of blocks with pictures, a table or images; and what they speak of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cnnbench.analysis.confidence import Predictions
from cnnbench.page.answer import Group, interval
from cnnbench.page.charts import Palette, Picture, Point, error, palette
from cnnbench.records.schema import DataRecord
from cnnbench.tables.columns import Column, texts
from cnnbench.tables.gather import Records, groups
from cnnbench.tables.rows import LatencyKey, Row, latency_keys, row_of
from cnnbench.tables.text import percent
from cnnbench.types import CnnbenchError, Dataset

DRAWN = 40
"""Networks in a picture; more would not be told apart."""


@dataclass(frozen=True)
class Table:
    """Rows under headings."""

    columns: list[Column]
    rows: Sequence[object]
    filtered: bool = False
    """Whether a script adds a filter, as to the large table."""

    @property
    def texts(self) -> list[list[tuple[str, Any, bool]]]:
        """Of every cell what it shows, the value it is sorted by where that is another, whether it stands right."""
        return [
            [
                (text, value if isinstance(value := column.value(row), int | float) else None, column.right)
                for column, text in zip(self.columns, texts(self.columns, row), strict=True)
            ]
            for row in self.rows
        ]


@dataclass(frozen=True)
class Mistake:
    """A test image that a network took for something else."""

    source: str
    """PNG as a data URI."""
    true: str
    predicted: str
    probability: str
    index: int


@dataclass(frozen=True)
class Block:
    """Part of a section: of one dataset, or of one kind."""

    heading: str = ""
    notes: list[str] = field(default_factory=list)
    legend: list[tuple[str, str, str]] = field(default_factory=list)
    """(name, colour, shape)."""
    pictures: list[Picture] = field(default_factory=list)
    layout: str = "three"
    """How wide pictures are: three or many in a row, or wide."""
    ramp: tuple[str, str] | None = None
    """The ends of the colour scale of the pictures, where they share one."""
    table: Table | None = None
    mistakes: list[Mistake] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """A heading, a sentence that says how to read it, and its blocks."""

    anchor: str
    heading: str
    lead: str
    blocks: list[Block]


@dataclass(frozen=True)
class Material:
    """Everything that was found, as the sections read it."""

    found: Records
    target: float | None
    root: str | None = None
    folder: str | None = None
    opened: dict[str, Dataset | None] = field(default_factory=dict)
    """Datasets that were looked for, by their hash."""
    read: dict[Path, Predictions] = field(default_factory=dict)
    """Predictions that were read."""

    @cached_property
    def groups(self) -> list[Group]:
        """All groups, those of a dataset together, the most accurate first."""
        made = [(runs, row_of(runs, self.found, target=self.target)) for runs in groups(self.found)]
        made.sort(key=lambda pair: (pair[1].dataset, -(pair[1].accuracy or 0)))
        names = labels([made_row for _, made_row in made])
        return [Group(name, runs, figures) for name, (runs, figures) in zip(names, made, strict=True)]

    @cached_property
    def datasets(self) -> list[str]:
        """Names, the one with the most test images first, of these the one with the most networks."""
        networks = Counter(group.row.dataset for group in self.groups)
        images: Counter[str] = Counter()
        for group in self.groups:
            images[group.row.dataset] = max(images[group.row.dataset], group.row.test_images or 0)
        return sorted(networks, key=lambda name: (-images[name], -networks[name], name))

    @cached_property
    def measured(self) -> list[LatencyKey]:
        return latency_keys(self.found)

    @cached_property
    def palette(self) -> Palette:
        return palette(group.row.arch for group in sorted(self.groups, key=lambda group: group.macs))

    def all_of(self, dataset: str) -> list[Group]:
        """Every tested group of a dataset, the most accurate first."""
        return [each for each in self.groups if each.row.dataset == dataset and each.row.accuracy is not None]

    def of(self, dataset: str) -> list[Group]:
        """Those trained on the most images of it, which is what compares."""
        tested = self.all_of(dataset)
        most = max((group.train_images for group in tested), default=0)
        return [group for group in tested if group.train_images == most]

    def drawn(self, dataset: str, count: int = DRAWN) -> tuple[list[Group], list[str]]:
        """The most accurate of `of`, and a note where there are more."""
        groups = self.of(dataset)
        note = f"The {count} most accurate of {len(groups):,} are drawn; the table has all."
        return groups[:count], [note] if len(groups) > count else []

    def images(self, recorded: DataRecord) -> Dataset | None:
        """The images that a record speaks of; None where they are not there."""
        from cnnbench.datasets.choice import open_recorded

        key = recorded.sha256
        if key not in self.opened:
            try:
                self.opened[key] = open_recorded(recorded, root=self.root, folder=self.folder)
            except CnnbenchError:
                self.opened[key] = None
        return self.opened[key]

    def heading(self, dataset: str) -> str:
        """Headings name a dataset where there are several."""
        return f"on {dataset}" if len(self.datasets) > 1 else ""

    def legend(self, groups: list[Group]) -> list[tuple[str, str, str]]:
        """The part of the palette's legend that a picture needs."""
        used = {self.palette.groups[group.row.arch] for group in groups}
        return [entry for entry in self.palette.legend if entry[0] in used]

    def point(self, group: Group) -> Point:
        """What every mark of a group has."""
        figures = group.row
        found = {
            "name": group.name,
            "arch": figures.arch,
            "group": self.palette.groups[figures.arch],
            "error": error(group.accuracy),
            "accuracy": f"{percent(group.accuracy)} ({interval(figures)})",
        }
        if figures.accuracy_low is not None and figures.accuracy_high is not None:
            found |= {"low_error": error(figures.accuracy_low), "high_error": error(figures.accuracy_high)}
        return found


def labels(rows: Sequence[Row]) -> list[str]:
    """What the page calls each row: its architecture where that is enough, else its task, else with what differs."""
    archs = Counter((row.dataset, row.arch) for row in rows)
    tasks = Counter((row.dataset, row.task) for row in rows)
    seen: Counter[str] = Counter()
    made = []
    for each in rows:
        usual = each.task == f"{each.dataset}_{each.arch}"
        name = each.arch if usual or archs[each.dataset, each.arch] == 1 else each.task
        if tasks[each.dataset, each.task] > 1:
            name += f" ({each.train_images:,} images, {each.epochs} epochs)"
        seen[each.dataset + name] += 1
        made.append(name if seen[each.dataset + name] == 1 else f"{name} #{seen[each.dataset + name]}")
    return made
