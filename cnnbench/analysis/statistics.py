"""Statistics over seeds: intervals, McNemar's test of two networks, and time to a target accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnbench.records.schema import Epoch

LEVEL = 0.95
"""Confidence level of every interval."""
LEAST_VALUES = 3
"""Fewest values for an interval of a mean."""

Bounds = tuple[float | None, float | None]
"""The smallest and largest possible value, such as (0, 1) for an accuracy."""


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval of a mean."""

    low: float
    high: float
    method: str


def interval(values: Sequence[float], bounds: Bounds = (None, None)) -> Interval | None:
    """Student's t interval of the mean of `values`, cut at `bounds`; None for fewer than three.

    Two values have one degree of freedom and an interval of 12.7 standard errors. It assumes nothing but that the
    values are independent and not very skewed; a BCa bootstrap of ten to thirty covers 89 to 94 % (docs/statistics.md).
    """
    count = len(values)
    if count < LEAST_VALUES:
        return None
    mean, half = float(np.mean(values)), quantile_of_t(count - 1) * float(np.std(values, ddof=1)) / count**0.5
    low, high = np.clip([mean - half, mean + half], *bounds).tolist()
    return Interval(low, high, "Student's t")


def proportion_interval(share: float, count: float, *, among: int = 1) -> Interval:
    """Wilson's (1927) 95 % interval of a share that was observed in `count` independent trials.

    Args:
        share: A fraction.
        count: May be a fraction: the number of trials that would have the variance of dependent ones.
        among: Of so many shares, of which one is picked by its value: all their intervals hold at once in 95 % (Dunn
            1961, doi:10.1080/01621459.1961.10482090, after Bonferroni).
    """
    z2 = quantile_of_normal(among) ** 2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = (z2 * share * (1 - share) / count + (z2 / (2 * count)) ** 2) ** 0.5 / (1 + z2 / count)
    return Interval(max(middle - half, 0.0), min(middle + half, 1.0), "Wilson")


def quantile_of_t(degrees: float, level: float = LEVEL) -> float:
    """Half the width of an interval of the mean, in standard errors."""
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    return -float(stdtrit(degrees, (1 - level) / 2))  # of the lower tail, which is exact near a level of 1


def quantile_of_normal(among: int = 1) -> float:
    """Half the width of an interval with a known standard error; of `among` intervals that hold at once."""
    return NormalDist().inv_cdf(1 - (1 - LEVEL) / 2 / among)


@dataclass(frozen=True)
class Summary:
    """One quantity over seeds: every value, mean, spread and interval."""

    values: tuple[float, ...]
    mean: float
    std: float | None
    """Sample standard deviation, with n - 1; None for a single value."""
    interval: Interval | None


def summary(values: Sequence[float], bounds: Bounds = (None, None)) -> Summary:
    """Mean, standard deviation and interval of at least one value; see `interval`."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Summary(tuple(values), float(np.mean(values)), std, interval(values, bounds))


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two networks on the same images."""

    only_a: int
    """Images that only a classifies correctly."""
    only_b: int
    p: float
    """Probability of a split at least as uneven if both were equally good (exact, two-sided)."""
    share: tuple[float, float]
    """95 % interval (Clopper and Pearson 1934) of a's share of the images that only one gets right: it holds 1/2
    exactly where `p` is at least 0.05."""


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> McNemar:
    """The exact test of McNemar (1947), for one seed of each network.

    Args:
        correct_a: `(images,)` bool, whether network a is right.
        correct_b: The same for b, on the same images in the same order.

    Raises:
        ValueError: The shapes are not `(images,)` for both.
    """
    if correct_a.shape != correct_b.shape or correct_a.ndim != 1:
        raise ValueError(f"expected two arrays (images,); got {correct_a.shape} and {correct_b.shape}")
    from scipy.stats import binomtest

    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    if only_a + only_b == 0:
        return McNemar(0, 0, 1.0, (0.0, 1.0))
    test = binomtest(only_a, only_a + only_b)
    share = test.proportion_ci(LEVEL)
    return McNemar(only_a, only_b, float(test.pvalue), (float(share.low), float(share.high)))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted so that any claim below 0.05 among all of them is false in at most 5 % (Holm 1979).

    It assumes nothing of how the tests depend on each other.
    """
    count, largest = len(p_values), 0.0
    adjusted = [0.0] * count
    for rank, place in enumerate(sorted(range(count), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (count - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


@dataclass(frozen=True)
class TimeToAccuracy:
    """What training cost until a target was first reached, evaluation excluded."""

    seconds: float
    epochs: int
    macs: int | None


def time_to_accuracy(curve: Sequence[Epoch], target: float, *, macs: int | None) -> TimeToAccuracy | None:
    """The cost of training up to the first validated epoch with at least `target` accuracy; None if there is none.

    Args:
        curve: The validated epochs of a run, in order.
        target: Validation accuracy, a fraction.
        macs: MACs of a forward and a backward pass per image; None where they were not counted.
    """
    reached = next((epoch for epoch in curve if epoch.val_accuracy >= target), None)
    if reached is None:
        return None
    return TimeToAccuracy(reached.train_seconds, reached.epoch, None if macs is None else macs * reached.images)


def censored_median(reached: Sequence[float], unreached: int) -> float | None:
    """The median over all runs, where those that did not reach the target count as later than all others; None where
    it lies among them.

    The estimate of Kaplan and Meier (1958) would leave a run out once it has stopped. That takes stopping for
    independent of the event, and a run stops after its epochs, whatever it would have reached.

    Args:
        reached: What was spent until the event.
        unreached: How many runs had no event.
    """
    ordered = [*sorted(reached), *[math.inf] * unreached]
    if not ordered:
        return None
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return None if math.isinf(middle) else middle
