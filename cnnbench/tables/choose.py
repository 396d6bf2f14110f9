"""Which network to ship under some limits, and why the others were not chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args

from cnnbench.arguments import check_fields
from cnnbench.registry import hint
from cnnbench.tables.columns import CATALOGUE, Column, latency_column
from cnnbench.tables.gather import Records
from cnnbench.tables.results import Results, read_results
from cnnbench.tables.rows import LatencyKey, Row, latency_keys
from cnnbench.tables.text import count, percent, plural
from cnnbench.types import CnnbenchError, Exit

By = Literal["macs", "latency", "bytes", "params"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a network has to keep; None is no limit."""

    min_accuracy: float | None = None
    """Mean test accuracy over seeds, a fraction."""
    max_latency_ms: float | None = None
    """90th percentile of one call with one image."""
    max_bytes: int | None = None
    """Of the ONNX file."""
    max_macs: int | None = None
    """Multiply-adds for one image."""
    max_params: int | None = None

    def __post_init__(self) -> None:
        """Raises CnnbenchError (exit 2) for a limit that no network or every network keeps, or that is no number."""
        check_fields(self)
        if self.min_accuracy is not None and not 0 <= self.min_accuracy <= 1:
            raise CnnbenchError(f"minimum accuracy {self.min_accuracy:g}: expected a fraction such as 0.99")
        for name in ("latency_ms", "bytes", "macs", "params"):
            value = getattr(self, f"max_{name}")
            if value is not None and not value > 0:
                raise CnnbenchError(f"maximum {name} {value:g}: expected more than 0")


@dataclass(frozen=True)
class Figure:
    """A figure that limits speak of: its name in sentences, how it is shown, and the command that measures it."""

    column: Column
    name: str
    measured_by: str
    counted: bool = True
    """Whether it is a count ("fewest"), not a measure ("lowest")."""

    def show(self, value: Any) -> str:
        if self.column.key == "accuracy":
            return percent(value)
        return f"{value:.3g} ms" if self.column.unit == "ms" else count(value)


@dataclass(frozen=True)
class Limit:
    """A figure that a row has to keep: at least or at most a value."""

    figure: Figure
    value: float
    at_least: bool = False

    @property
    def text(self) -> str:
        """`accuracy >= 98.00 %`."""
        return f"{self.figure.name} {'>=' if self.at_least else '<='} {self.figure.show(self.value)}"

    def miss(self, row: Row) -> str:
        """Why a row does not keep it; empty where it does."""
        value = self.figure.column.value(row)
        if value is None:
            return f"{self.figure.name} not measured ({self.figure.measured_by})"
        if value >= self.value if self.at_least else value <= self.value:
            return ""
        shown, limit = self.figure.show(value), self.figure.show(self.value)
        if shown == limit:  # 0.97996 is below 0.98, though both are 98.00 %
            shown, limit = f"{value:.8g}", f"{self.value:.8g}"
        return f"{self.figure.name} {shown} is {'below' if self.at_least else 'above'} {limit}"

    def distance(self, row: Row) -> float:
        """By how much of the limit a row misses it: 0 where it keeps it, infinite where it was not measured."""
        value = self.figure.column.value(row)
        if value is None:
            return inf
        over = self.value - value if self.at_least else value - self.value
        return max(0.0, float(over)) / (self.value or 1)


@dataclass(frozen=True)
class Rejected:
    """A network that was not chosen, and why."""

    row: Row
    reason: str
    keeps_limits: bool


@dataclass(frozen=True)
class Choice:
    """The cheapest network that keeps every limit, and the others."""

    chosen: Row | None
    others: tuple[Rejected, ...]
    """In the order of the rows."""
    nearest: Rejected | None
    """Where none keeps the limits: the one that misses the fewest, of these by the smallest share; None where no
    network has every figure measured."""
    answer: str
    """One sentence: what was chosen, and by which figures."""


def choose(
    results: Results | str | Path | Sequence[str | Path],
    *,
    min_accuracy: float | None = None,
    max_latency_ms: float | None = None,
    max_bytes: int | None = None,
    max_macs: int | None = None,
    max_params: int | None = None,
    by: By = "macs",
    dataset: str | None = None,
    backend: str = "onnxruntime",
    provider: str = "cpu",
    threads: int = 1,
) -> Choice:
    """The cheapest network that keeps every limit, and why the others were not chosen.

    Args:
        results: From `read_results`, or the paths to read.
        min_accuracy, max_latency_ms, max_bytes, max_macs, max_params: See `Limits`.
        by: What cheap means: "macs", "latency", "bytes" or "params".
        dataset: Which one, where there are several.
        backend, provider, threads: Of the latency that counts.

    Returns:
        The choice; `chosen` is None where no network keeps the limits, and `nearest` the one that misses the fewest.

    Raises:
        CnnbenchError: A limit is impossible, the dataset is not named or unknown, or the latency was not measured
            (exit 2); there are no results (exit 3).
    """
    limits = Limits(
        min_accuracy=min_accuracy,
        max_latency_ms=max_latency_ms,
        max_bytes=max_bytes,
        max_macs=max_macs,
        max_params=max_params,
    )
    read = results if isinstance(results, Results) else read_results(results)
    rows = comparable_rows(read.rows, dataset)
    if not rows:
        raise CnnbenchError("there are bundles but no runs to choose from; `cnnbench sweep` makes them", Exit.DATA)
    latency = LatencyKey(backend, provider, threads=threads)
    if max_latency_ms is not None or by == "latency":
        check_measured(read.records, latency)
    return choose_network(rows, limits, by=by, latency=latency)


def choose_network(
    rows: Sequence[Row], limits: Limits, *, by: By = "macs", latency: LatencyKey | None = None
) -> Choice:
    """Choose the cheapest network that keeps every limit.

    Of equally cheap ones the more accurate is chosen, of these the first by name.

    Args:
        rows: Networks that compare: of one dataset, trained on equally many images of it.
        limits: What to keep.
        by: What cheap means.
        latency: The latency that counts, at its 90th percentile; by default one image on one CPU thread in ONNX
            Runtime.

    Raises:
        CnnbenchError: `by` is none of those (exit 2).
    """
    if by not in get_args(By):
        raise CnnbenchError(f"cheap by {by!r}: {hint(by, list(get_args(By)))}")
    figures = _figures(latency or LatencyKey())
    cost = figures[by]
    given = _given(limits, figures)
    limited = [*given, Limit(cost, inf)]  # the cost itself has to be measured
    fitting = [row for row in rows if not _misses(row, limited)]
    chosen = min(fitting, key=lambda row: (cost.column.value(row), -(row.accuracy or 0), row.task), default=None)
    others = tuple(
        Rejected(row, _reason(row, chosen, limited, cost), row in fitting) for row in rows if row is not chosen
    )
    nearest = None if chosen else _nearest(others, limited)
    answer = _answer(chosen, cost, [figures[key] for key in ("macs", "bytes", "latency")], given)
    return Choice(chosen, others, nearest, answer)


def comparable_rows(rows: Sequence[Row], dataset: str | None) -> list[Row]:
    """The rows of one dataset that were trained on the most images of it, and its failures.

    Raises:
        CnnbenchError: There are several datasets and none is named, or the named one has no runs (exit 2).
    """
    names = sorted({row.dataset for row in rows})
    if dataset is None and len(names) > 1:
        raise CnnbenchError(f"there are runs on {', '.join(names)}: name one with --dataset")
    if names and dataset is not None and dataset not in names:
        raise CnnbenchError(f"no runs on {dataset!r}; there are {', '.join(names)}")
    of_dataset = [row for row in rows if dataset in (None, row.dataset)]
    most = max((row.train_images or 0 for row in of_dataset), default=0)
    return [row for row in of_dataset if row.train_images in (None, most)]


def check_measured(gathered: Records, latency: LatencyKey) -> None:
    """Refuse a latency that was not measured where others of one image were.

    Raises:
        CnnbenchError: Latencies of one image were measured, but not this one (exit 2).
    """
    known = [key for key in latency_keys(gathered) if key.batch == 1]
    if known and latency not in known:
        measured = ", ".join(f"{key.place} with {key.threads} thread(s)" for key in known)
        wanted = f"{latency.place} with {latency.threads} thread(s)"
        raise CnnbenchError(f"no latency of {wanted} and one image; measured: {measured}")


def _figures(latency: LatencyKey) -> dict[str, Figure]:
    """What limits and `by` speak of."""
    return {
        "accuracy": Figure(CATALOGUE["accuracy"], "accuracy", "cnnbench test"),
        "latency": Figure(
            latency_column(latency, 90), "p90 latency", "cnnbench bench; a p90 needs 64 calls", counted=False
        ),
        "bytes": Figure(CATALOGUE["model_bytes"], "ONNX bytes", "cnnbench export"),
        "macs": Figure(CATALOGUE["macs"], "MACs", "cnnbench fit"),
        "params": Figure(CATALOGUE["params"], "parameters", "cnnbench fit"),
    }


def _given(limits: Limits, figures: dict[str, Figure]) -> list[Limit]:
    """The limits that were given."""
    values = {
        "accuracy": limits.min_accuracy,
        "latency": limits.max_latency_ms,
        "bytes": limits.max_bytes,
        "macs": limits.max_macs,
        "params": limits.max_params,
    }
    return [Limit(figures[key], value, key == "accuracy") for key, value in values.items() if value is not None]


def _misses(row: Row, limits: Sequence[Limit]) -> list[str]:
    """Why a row cannot be chosen; empty where it can."""
    if row.accuracy is None:
        return list(row.failures) or ["it has no tested run (cnnbench test)"]
    return [miss for miss in dict.fromkeys(limit.miss(row) for limit in limits) if miss]


def _nearest(others: Sequence[Rejected], limits: Sequence[Limit]) -> Rejected | None:
    """The tested network that misses the fewest limits, of these the one that misses them by the smallest share."""

    def distance(rejected: Rejected) -> tuple[int, float]:
        distances = [limit.distance(rejected.row) for limit in limits if limit.value < inf]
        return sum(share > 0 for share in distances), sum(distances)

    measured = [
        other
        for other in others
        if other.row.accuracy is not None and all(limit.figure.column.value(other.row) is not None for limit in limits)
    ]
    return min(measured, key=distance, default=None)


def _reason(row: Row, chosen: Row | None, limits: Sequence[Limit], cost: Figure) -> str:
    """Why a row is not the chosen one: the limits that it misses, or what the chosen one is better by."""
    misses = _misses(row, limits)
    if misses or chosen is None:
        return "; ".join(misses)
    accuracy, chosen_accuracy = row.accuracy or 0, chosen.accuracy or 0
    keeps = f"keeps the limits with {percent(accuracy)}"
    value, least = cost.column.value(row), cost.column.value(chosen)
    if value == least:
        less = "but is less accurate" if accuracy < chosen_accuracy else "and is as accurate"
        return f"{keeps} at the same {cost.name}, {less}"
    return f"{keeps}, but has {value / least:.3g}x the {cost.name} ({cost.show(value)})"


def _answer(chosen: Row | None, cost: Figure, shown: Sequence[Figure], limits: Sequence[Limit]) -> str:
    wanted = ", ".join(limit.text for limit in limits)
    if chosen is None:
        measured = "" if cost.name in ("MACs", "parameters") else f" and has its {cost.name} measured"
        return f"none: no network keeps {wanted or 'no limits'}{measured}"
    bounds = chosen.accuracy_spread
    spread = f"{bounds if chosen.accuracy_low is None else f'95 % interval {bounds}'}, {plural(chosen.seeds, 'seed')}"
    values = [(figure, figure.column.value(chosen)) for figure in shown]
    figures = [f"{figure.name} {figure.show(value)}" for figure, value in values if value]
    accuracy = f"accuracy {percent(chosen.accuracy or 0)} ({spread})"
    cheapest = f"{'fewest' if cost.counted else 'lowest'} {cost.name}"
    asked = f"with {wanted}" if wanted else "(no limits given)"
    return f"{chosen.task}: {cheapest} {asked}; {', '.join([accuracy, *figures])}"
