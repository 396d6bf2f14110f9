"""What the sections of a report read: groups of runs with their figures and names, the images, the predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cnnbench.analysis.confidence import Predictions, read_predictions
from cnnbench.arguments import require_fraction
from cnnbench.page.charts.base import Palette, Point, error, palette
from cnnbench.page.section import LegendEntry
from cnnbench.records.schema import DataRecord
from cnnbench.tables import text
from cnnbench.tables.columns import labels
from cnnbench.tables.gather import Records, Run, groups
from cnnbench.tables.limits import Limits
from cnnbench.tables.rows import LatencyKey, Row, latency_keys, row_of
from cnnbench.types import CnnbenchError, Dataset

TOP = 40
"""Networks in a picture; more could not be told apart."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone, their figures, and their name on the page."""

    name: str
    runs: Sequence[Run]
    row: Row

    @property
    def accuracy(self) -> float:
        """Accuracy of a tested group."""
        assert self.row.accuracy is not None
        return self.row.accuracy

    @property
    def val_accuracy(self) -> float:
        """Validation accuracy of a tested group, mean over its seeds."""
        assert self.row.val_accuracy is not None
        return self.row.val_accuracy

    @property
    def macs(self) -> int:
        assert self.row.macs is not None
        return self.row.macs

    @property
    def params(self) -> int:
        assert self.row.params is not None
        return self.row.params

    @property
    def train_images(self) -> int:
        assert self.row.train_images is not None
        return self.row.train_images

    @property
    def best_run(self) -> Run:
        """The run whose predictions are shown: a choice among seeds is by validation accuracy."""
        tested = [run for run in self.runs if run.record.test]
        return max(tested or self.runs, key=lambda run: run.record.fit.val_accuracy)


@dataclass(frozen=True)
class Material:
    """Every record, and what is derived from several of them.

    Args:
        records: As gathered.
        target: Accuracy that is enough, a fraction; None takes the best of each dataset, rounded down.
        limits: What a file has to keep to be recommended; its accuracy has precedence over the target.
        root: Folder of the downloaded datasets, if it has moved.
        folder: Folder of the user's own images, if it has moved.

    Raises:
        CnnbenchError: The target is not a fraction (exit 2).
    """

    records: Records
    target: float | None = None
    root: str | None = None
    folder: str | None = None
    limits: Limits = field(default_factory=Limits)
    _datasets: dict[str, Dataset | None] = field(default_factory=dict, init=False)
    """By hash of their images; None where they are not on this machine."""
    _predictions: dict[Path, Predictions] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        require_fraction("target accuracy", self.target)

    @cached_property
    def groups(self) -> list[Group]:
        """All groups, those of a dataset together, the most accurate first."""
        pairs = [(runs, row_of(runs, self.records, target=self.target)) for runs in groups(self.records)]
        pairs.sort(key=lambda pair: (pair[1].dataset, -(pair[1].accuracy or 0)))
        names = labels([row for _, row in pairs])
        return [Group(name, runs, row) for name, (runs, row) in zip(names, pairs, strict=True)]

    @cached_property
    def datasets(self) -> list[str]:
        """Names, the one with the most test images first, among equals the one with the most networks."""
        networks = Counter(group.row.dataset for group in self.groups)
        images: Counter[str] = Counter()
        for group in self.groups:
            images[group.row.dataset] = max(images[group.row.dataset], group.row.test_images or 0)
        return sorted(networks, key=lambda name: (-images[name], -networks[name], name))

    @cached_property
    def latency_keys(self) -> list[LatencyKey]:
        """Everything that a latency was measured on."""
        return latency_keys(self.records)

    @property
    def fastest_key(self) -> LatencyKey | None:
        """The latency by which networks are called fast: of one image, in ONNX Runtime if measured there."""
        single = [key for key in self.latency_keys if key.batch == 1]
        return min(single, key=lambda key: (key.place != "onnxruntime", key.threads), default=None)

    @cached_property
    def palette(self) -> Palette:
        """Colours and shapes of the whole page."""
        return palette(group.row.arch for group in sorted(self.groups, key=lambda group: group.macs))

    def tested(self, dataset: str) -> list[Group]:
        """Every tested group of a dataset, the most accurate first."""
        return [group for group in self.groups if group.row.dataset == dataset and group.row.accuracy is not None]

    def comparable(self, dataset: str) -> list[Group]:
        """The tested groups that were trained on the most images of the dataset."""
        tested = self.tested(dataset)
        most = max((group.train_images for group in tested), default=0)
        return [group for group in tested if group.train_images == most]

    def on_the_same_images(self, dataset: str) -> tuple[list[Group], list[str]]:
        """The comparable groups on the images of the most accurate one, and a note where there are others."""
        groups = self.comparable(dataset)
        same = [group for group in groups if group.row.images_sha256 == groups[0].row.images_sha256]
        others = ", ".join(group.name for group in groups if group not in same)
        return same, [f"Tested on other images, and left out: {others}."] if others else []

    def top(self, dataset: str, count: int = TOP) -> tuple[list[Group], list[str]]:
        """The most accurate of the comparable groups, and a note where there are more."""
        groups = self.comparable(dataset)
        note = f"The {count} most accurate of {len(groups):,} are drawn; the table has all."
        return groups[:count], [note] if len(groups) > count else []

    def images(self, recorded: DataRecord) -> Dataset | None:
        """The images that a record names; None where they are not on this machine."""
        from cnnbench.datasets.choice import open_recorded

        key = recorded.sha256
        if key not in self._datasets:
            try:
                self._datasets[key] = open_recorded(recorded, root=self.root, folder=self.folder)
            except CnnbenchError:
                self._datasets[key] = None
        return self._datasets[key]

    def predictions(self, run: Run) -> Predictions:
        """The predictions of a run, read once."""
        path = run.predictions
        if path not in self._predictions:
            self._predictions[path] = read_predictions(path)
        return self._predictions[path]

    def heading(self, dataset: str) -> str:
        """Headings name a dataset where there are several."""
        return f"on {dataset}" if len(self.datasets) > 1 else ""

    def legend(self, groups: Sequence[Group]) -> list[LegendEntry]:
        """The part of the palette's legend that a picture of these groups needs."""
        used = {self.palette.groups[group.row.arch] for group in groups}
        return [entry for entry in self.palette.legend if entry.name in used]

    def point(self, group: Group) -> Point:
        """What every mark of a tested group has: name, arch, group (its colour), error, accuracy and its interval."""
        row = group.row
        point = {
            "name": group.name,
            "arch": row.arch,
            "group": self.palette.groups[row.arch],
            "error": error(group.accuracy),
            "accuracy": f"{text.percent(group.accuracy)} ({interval(row)})",
        }
        if row.accuracy_low is None or row.accuracy_high is None:
            return point
        return {**point, "low_error": error(row.accuracy_low), "high_error": error(row.accuracy_high)}


def interval(row: Row) -> str:
    """The interval of a row's accuracy in words, or why there is none, with its seeds."""
    spread = row.accuracy_spread
    return f"{spread if row.accuracy_low is None else f'95 % interval {spread}'}, {text.plural(row.seeds, 'seed')}"
