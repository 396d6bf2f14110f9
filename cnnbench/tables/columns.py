"""The columns of tables: a column reads one figure of a row, names it with its unit, and formats it for people.

`CATALOGUE` has every figure of a `tables.rows.Row`; `compare`, `choose` and `report` select theirs from it by key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from cnnbench.tables.text import count, interval, milliseconds, percent, percent_digits

if TYPE_CHECKING:  # a table of other rows needs neither numpy nor the readers of records
    from cnnbench.tables.rows import LatencyKey, Row, TimeToTarget


@dataclass(frozen=True)
class Column:
    """A figure of rows: its key for programs, its heading, unit and format for people.

    Args:
        key: Name of the figure in CSV and JSON; also the attribute of a row, or the key of a mapping, that is read.
        heading: What people read above it, without the unit.
        show: Formats a value that is not None.
        unit: Unit of the value as `show` formats it; empty where it has none.
        right: Whether values are aligned to the right.
        read: Reads the figure of a row where it is not the attribute called `key`.
        priority: Columns of the lowest are left out first where a terminal is narrow.
        short: Heading with its unit in a terminal, where the title is long.
    """

    key: str
    heading: str
    show: Callable[[Any], str] = str
    _: KW_ONLY
    unit: str = ""
    right: bool = False
    read: Callable[[Any], Any] | None = None
    priority: int = 5
    short: str = ""

    @property
    def title(self) -> str:
        """The heading with its unit."""
        return f"{self.heading}, {self.unit}" if self.unit else self.heading

    def value(self, row: object) -> Any:
        """The figure of a row, in full precision; None where it was not measured.

        Raises:
            AttributeError: The row is not a mapping and has no such attribute.
        """
        if self.read is not None:
            return self.read(row)
        return row.get(self.key) if isinstance(row, Mapping) else getattr(row, self.key)

    def text(self, row: object) -> str:
        """The figure as people read it: a dash where it was not measured."""
        value = self.value(row)
        return "-" if value is None else self.show(value)


def texts(columns: Sequence[Column], row: object) -> list[str]:
    """The cells of a row as people read them."""
    return [column.text(row) for column in columns]


def plain(columns: Sequence[Column], rows: Sequence[object]) -> list[Mapping[str, object]]:
    """The figures of the columns by key, in full precision; a missing value is None."""
    return [{column.key: msgspec.to_builtins(column.value(row)) for column in columns} for row in rows]


def select(*keys: str) -> list[Column]:
    """Columns of the catalogue, in this order."""
    return [CATALOGUE[key] for key in keys]


def labels(rows: Sequence[Row]) -> list[str]:
    """A name per row, unique within its dataset: its architecture, with its task where that is not enough, and more."""
    archs = Counter((row.dataset, row.arch) for row in rows)
    tasks = Counter((row.dataset, row.task) for row in rows)
    seen: Counter[tuple[str, str]] = Counter()
    names = []
    for row in rows:
        usual = row.task == f"{row.dataset}_{row.arch}"
        name = row.arch if usual or archs[row.dataset, row.arch] == 1 else f"{row.arch} ({row.task})"
        if tasks[row.dataset, row.task] > 1:
            name += f" ({row.train_images:,} images, {row.epochs} epochs)"
        seen[row.dataset, name] += 1
        repeated = seen[row.dataset, name]
        names.append(name if repeated == 1 else f"{name} #{repeated}")
    return names


def name_column(rows: Sequence[Row]) -> Column:
    """What a row is called beside these others, in the place of its architecture."""
    names = {id(row): name for row, name in zip(rows, labels(rows), strict=True)}
    return replace(CATALOGUE["arch"], read=lambda row: names[id(row)])


def latency_column(key: LatencyKey, percent: int) -> Column:
    """A percentile of one call."""
    return Column(
        key.column(percent),
        f"{key.place} p{percent}, {key.setting}",
        milliseconds,
        unit="ms",
        right=True,
        read=lambda row: row.latency_ms(key, percent),
    )


def latency_pair_column(key: LatencyKey) -> Column:
    """The 50th and the 90th percentile of one call, in one cell."""

    def both(row: Row) -> str | None:
        figures = [row.latency_ms(key, percent) for percent in (50, 90)]
        if figures[0] is None:
            return None
        return " / ".join("-" if figure is None else milliseconds(figure) for figure in figures)

    return Column(
        key.column(50),
        f"{key.place} p50 / p90, {key.setting}",
        unit="ms",
        right=True,
        read=both,
        short=f"{key.place}, ms",
        priority=7 if key.backend == "onnxruntime" else 3,
    )


def target_columns(target: float) -> list[Column]:
    """What training took to reach a validation accuracy, as people read it: medians of all seeds, ranges of those."""

    def spread(name: Literal["seconds", "epochs", "macs"], digits: str) -> Callable[[Row], str | None]:
        return lambda row: _spread(row.time_to_target, name, digits)

    reached = Column("reached", f"seeds to val {percent(target)}", right=True, read=_reached)
    seconds = "s, validation excluded: median of all (range of those)"
    return [
        reached,
        Column("seconds", seconds, right=True, read=spread("seconds", ".1f"), short="training, s"),
        Column("epochs", "epochs", right=True, read=spread("epochs", "g")),
        Column("macs", "training MACs", right=True, read=spread("macs", ".2e")),
    ]


def _reached(row: Row) -> str | None:
    time = row.time_to_target
    if time is None:
        return None
    seeds = f"{time.seeds} of {time.runs}"
    return seeds if time.seeds else f"never ({seeds})"


def _spread(time: TimeToTarget | None, name: Literal["seconds", "epochs", "macs"], digits: str) -> str | None:
    """Median over all seeds, and range of those that reached the target; None where none did."""
    if time is None or not getattr(time, name):
        return None
    values, middle = sorted(getattr(time, name)), time.median(name)
    text = f"more than {time.most(name):{digits}}" if middle is None else format(middle, digits)
    ends = list(dict.fromkeys(f"{value:{digits}}" for value in (values[0], values[-1])))
    return text if ends == [text] else f"{text} ({' to '.join(ends)})"


def _of_target(name: str) -> Callable[[Row], Any]:
    """Reads a figure of the time to the target; None where no target was given."""
    return lambda row: None if row.time_to_target is None else getattr(row.time_to_target, name)


def _accuracy_and_std(row: Row) -> str | None:
    if row.accuracy is None:
        return "failed" if row.failures else "not read"
    spread = "" if row.accuracy_std is None else f" +- {percent_digits(row.accuracy_std)}"
    return percent_digits(row.accuracy) + spread


def _accuracy_interval(row: Row) -> str | None:
    return None if row.accuracy is None else row.accuracy_spread


def _accuracy_bounds(row: Row) -> str | None:
    """The interval without what it leaves out, which stands below the table."""
    spread = _accuracy_interval(row)
    return spread.partition(",")[0] if spread else None


def _ece_interval(row: Row) -> str | None:
    return None if row.ece_low is None or row.ece_high is None else interval(row.ece_low, row.ece_high)


def _seeds_and_failures(row: Row) -> str | None:
    if row.accuracy is None and not row.failures:
        return None
    return f"{row.seeds} ({len(row.failures)} failed)" if row.failures else str(row.seeds)


def _number(
    key: str,
    heading: str,
    show: Callable[[Any], str] = str,
    *,
    unit: str = "",
    read: Callable[[Row], Any] | None = None,
    short: str = "",
    priority: int = 5,
) -> Column:
    return Column(key, heading, show, unit=unit, right=True, read=read, short=short, priority=priority)


FIGURES = (
    Column("task", "task"),
    Column("arch", "architecture"),
    Column("dataset", "dataset", priority=8),
    _number("train_images", "training images", count, short="train images"),
    Column("class_weights", "class weights"),
    Column("augment", "augmentation"),
    _number("epochs", "epochs"),
    _number("accuracy", "test accuracy", percent_digits, unit="%", priority=9),
    _number("val_accuracy", "validation accuracy", percent_digits, unit="%"),
    _number("accuracy_std", "standard deviation over seeds", percent_digits, unit="%"),
    _number("accuracy_low", "95 % interval from", percent_digits, unit="%"),
    _number("accuracy_high", "95 % interval to", percent_digits, unit="%"),
    Column("interval", "method of the interval"),
    Column("interval_scope", "the interval is for new"),
    _number("accuracies", "every seed, in order", lambda values: " ".join(map(percent_digits, values))),
    _number("majority", "always answering the largest class", percent_digits, unit="%", short="majority, %"),
    Column("majority_class", "largest class"),
    _number("balanced_accuracy", "balanced accuracy", percent_digits, unit="%", short="balanced, %", priority=7),
    _number("macro_f1", "macro F1", percent_digits, unit="%"),
    _number("lowest_recall", "lowest recall of a class", percent_digits, unit="%", short="lowest recall, %"),
    Column("lowest_recall_class", "class with the lowest recall", short="in class"),
    _number("seeds", "seeds"),
    Column("failures", "failed", "; ".join),
    _number("test_images", "test images", count, priority=2),
    _number("params", "parameters", count, priority=4),
    _number("fc_weights", "weights, were every layer fully connected", count, short="if connected", priority=3),
    _number("macs", "MACs", count),
    Column("form", "counted as"),
    _number("weight_bytes", "weight bytes", count),
    _number("activation_bytes", "activation bytes", count),
    _number("model_bytes", "ONNX bytes", count, priority=6),
    Column("verdict", "verdict"),
    _number("train_seconds", "training", "{:.1f}".format, unit="s", priority=2),
    _number("memory_bytes", "training memory", lambda value: f"{value / 1e6:.0f}", unit="MB"),
    Column("memory_kind", "memory measured by"),
    _number("energy_joules", "training energy", "{:.0f}".format, unit="J"),
    Column("energy_kind", "energy measured by"),
    _number("ece", "calibration error (ECE)", percent_digits, unit="%", short="ECE, %", priority=6),
    _number("ece_low", "ECE, 95 % interval for new images from", percent_digits, unit="%"),
    _number("ece_high", "ECE, 95 % interval to", percent_digits, unit="%"),
    _number("ece_null", "ECE of a calibrated network, at most", percent_digits, unit="%", short="calibrated, %"),
    _number("shift_mean", "mean over shifts up to 4 px", percent_digits, unit="%", short="shifted, %", priority=6),
    _number("shift_worst", "worst shift", percent_digits, unit="%", priority=6),
    _number(
        "equivariance_error",
        "equivariance error at 1 px (0: features move with the image)",
        "{:.3f}".format,
        short="equivariance error",
    ),
)
"""Every figure of a row, without latencies and the time to a target, in the order of CSV and JSON."""

TARGET_FIGURES = (
    _number("target", "target", percent_digits, unit="%", read=_of_target("target")),
    _number("target_seeds", "seeds that reached it", read=_of_target("seeds")),
    _number("target_of", "of seeds", read=_of_target("runs")),
    _number("target_seconds", "to the target", unit="s", read=_of_target("seconds")),
    _number("target_unreached_seconds", "spent without it", unit="s", read=_of_target("unreached_seconds")),
    _number("target_epochs", "epochs to the target", read=_of_target("epochs")),
    _number("target_macs", "MACs to the target", read=_of_target("macs")),
)
"""The figures of a row's time to a target; None where no target was given."""

JOINED = (
    _number(
        "accuracy_and_std",
        "test accuracy",
        unit="% (mean +- std)",
        read=_accuracy_and_std,
        short="accuracy, %",
        priority=9,
    ),
    _number("accuracy_interval", "95 % interval", read=_accuracy_interval, priority=8),
    _number("accuracy_bounds", "95 % interval", read=_accuracy_bounds, priority=8),
    _number("ece_interval", "ECE, 95 % interval, new images", read=_ece_interval, short="ECE interval", priority=4),
    _number("seeds_and_failures", "seeds", read=_seeds_and_failures),
)
"""Cells that hold several figures, for people alone."""

CATALOGUE: Mapping[str, Column] = {column.key: column for column in (*FIGURES, *TARGET_FIGURES, *JOINED)}
"""Every column of a row by its key; latencies have theirs from `latency_column`."""


def every_column(latencies: Sequence[LatencyKey], *, with_target: bool = False) -> list[Column]:
    """Every figure of a row in its own column, for programs."""
    columns = [*FIGURES, *(TARGET_FIGURES if with_target else ())]
    return [*columns, *(latency_column(key, percent) for key in latencies for percent in (50, 90, 99))]
