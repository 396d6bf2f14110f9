"""The limits that a file has to keep, and how they are put in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor, inf

from cnnbench.arguments import check_fields
from cnnbench.tables.candidates import Candidate, Score
from cnnbench.tables.text import count, milliseconds, percent
from cnnbench.types import CnnbenchError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a file has to keep; None: no limit."""

    min_accuracy: float | None = None
    """On the validation images, a fraction."""
    max_latency_ms: float | None = None
    """90th percentile of one call with one image."""
    max_bytes: int | None = None
    """Maximum size of the ONNX file."""
    max_macs: int | None = None
    """Multiply-adds for one image."""
    max_params: int | None = None

    def __post_init__(self) -> None:
        """Raises CnnbenchError (exit 2) for a limit that no network or every network keeps, or that is not a number."""
        check_fields(self)
        if self.min_accuracy is not None and not 0 <= self.min_accuracy <= 1:
            raise CnnbenchError(f"minimum accuracy {self.min_accuracy:g}: expected a fraction such as 0.99")
        for name in ("latency_ms", "bytes", "macs", "params"):
            value = getattr(self, f"max_{name}")
            if value is not None and not value > 0:
                raise CnnbenchError(f"maximum {name} {value:g}: expected more than 0")


@dataclass(frozen=True)
class Figure:
    """A figure that limits speak of: its name in sentences, how it is read and shown, and what measures it."""

    name: str
    value: Callable[[Candidate], float | None]
    show: Callable[[float], str]
    measured_by: str
    is_counted: bool = True
    """Whether it is a count ("fewest"), not a measure ("lowest")."""


@dataclass(frozen=True)
class Limit:
    """A figure that a file has to keep: at least or at most a value."""

    figure: Figure
    value: float
    at_least: bool = False

    @property
    def text(self) -> str:
        """`accuracy >= 98.00 %`."""
        return f"{self.figure.name} {'>=' if self.at_least else '<='} {self.figure.show(self.value)}"

    def miss(self, candidate: Candidate) -> str:
        """Why a file does not keep it; empty where it does."""
        value = self.figure.value(candidate)
        if value is None:
            return f"{self.figure.name} not measured ({self.figure.measured_by})"
        if value >= self.value if self.at_least else value <= self.value:
            return ""
        shown, limit = self._texts(value)
        return f"{self.figure.name} {shown} is {'below' if self.at_least else 'above'} {limit}"

    def relaxed(self, candidate: Candidate) -> str:
        """`ONNX bytes from 100,000 to 181,649`: the limit that a file would keep; empty where it keeps it."""
        value = self.figure.value(candidate)
        if value is None or not self.miss(candidate):
            return ""
        if not self.figure.is_counted:  # as it is shown, but never on the other side of the value
            step = 1e-4 if self.at_least else 1e-3
            steps = value / step  # of 0.948 it is 9479.999999999998
            value = (floor(steps + 1e-9) if self.at_least else ceil(steps - 1e-9)) * step
        shown, limit = self._texts(value)
        return f"{self.figure.name} from {limit} to {shown}"

    def _texts(self, value: float) -> tuple[str, str]:
        shown, limit = self.figure.show(value), self.figure.show(self.value)
        if shown == limit:  # 0.97996 is below 0.98, though both are 98.00 %
            shown, limit = f"{value:.8g}", f"{self.value:.8g}"
        return shown, limit

    def distance(self, candidate: Candidate) -> float:
        """By how much of the limit a file misses it: 0 where it keeps it, infinite where it was not measured."""
        value = self.figure.value(candidate)
        if value is None:
            return inf
        over = self.value - value if self.at_least else value - self.value
        return max(0.0, float(over)) / (self.value or 1)


def figures_of(*, strict: bool, among: int = 1) -> dict[str, Figure]:
    """What limits and `by` speak of.

    Args:
        strict: Whether an accuracy is the lower end of its interval.
        among: How many files are compared; see `proportion_interval`.
    """

    def accuracy(candidate: Candidate) -> float | None:
        if candidate.val is None:
            return None
        return candidate.val.low(among) if strict else candidate.val.accuracy

    def p90_ms(candidate: Candidate) -> float | None:
        return candidate.percentiles.p90_ms if candidate.percentiles else None

    return {
        "accuracy": Figure(
            "lower end of accuracy" if strict else "accuracy",
            accuracy,
            percent_down if strict else percent,
            "cnnbench export",
            is_counted=False,
        ),
        "latency": Figure(
            "p90 latency",
            p90_ms,
            lambda value: f"{milliseconds(value)} ms",
            "cnnbench bench; a p90 needs 64 calls",
            is_counted=False,
        ),
        "bytes": Figure("ONNX bytes", lambda candidate: candidate.bytes, count, "cnnbench export"),
        "macs": Figure("MACs", lambda candidate: candidate.row.macs, count, "cnnbench fit"),
        "params": Figure("parameters", lambda candidate: candidate.row.params, count, "cnnbench fit"),
    }


def given_limits(limits: Limits, figures: dict[str, Figure]) -> list[Limit]:
    """The limits that were given."""
    values = {
        "accuracy": limits.min_accuracy,
        "latency": limits.max_latency_ms,
        "bytes": limits.max_bytes,
        "macs": limits.max_macs,
        "params": limits.max_params,
    }
    return [Limit(figures[key], value, key == "accuracy") for key, value in values.items() if value is not None]


def images_needed(accuracy: float, *, among: int = 1) -> int | None:
    """The fewest images of which all right would show an accuracy: Wilson's lower end of n of n is n / (n + z^2).

    None for 1, which no number of images shows. See `proportion_interval` for `among`.
    """
    from cnnbench.analysis.statistics import quantile_of_normal

    return None if accuracy >= 1 else ceil(quantile_of_normal(among) ** 2 * accuracy / (1 - accuracy) - 1e-9)


def evidence(val: Score, accuracy: float, *, among: int = 1) -> str:
    """Where the interval of one of `among` files begins: `95 % interval from 98.25 %, above the limit`."""
    low = val.low(among)
    shown = percent_down(low) if low < accuracy and percent(low) == percent(accuracy) else percent(low)
    text = f"95 % interval{f' for {among:,} files at once' if among > 1 else ''} from {shown}"
    if low >= accuracy:
        return f"{text}, above the limit"
    needed = images_needed(accuracy, among=among)
    if needed is None:
        return f"{text}, below the limit, as with any number of images"
    more = f", and would be with all of them right: it takes {needed:,} images or more" if needed > val.images else ""
    return f"{text}, below the limit{more}"


def percent_down(value: float) -> str:
    """A share, rounded down: never shown at a limit that it does not keep."""
    return percent(floor(value * 1e4 + 1e-9) / 1e4)
