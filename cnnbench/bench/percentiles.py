"""Percentiles of raw samples, each with its interval, and none where there are too few samples to tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

PERCENTS = (50, 90, 99)
CONFIDENCE = 0.95
EARLY_STOPPING = 0.99
"""Confidence of the rule that says how many samples a percentile needs (MLPerf inference rules, early stopping)."""


@dataclass(frozen=True)
class Percentile:
    """A percentile of call times in seconds, and its 95 % interval; all None where `reason` says why."""

    percent: int
    seconds: float | None
    low_seconds: float | None
    high_seconds: float | None
    reason: str = ""


@cache
def needed(percent: int) -> int:
    """Samples below which a percentile is not reported: 11, 64 and 662 for the 50th, 90th and 99th.

    The smallest n at which seeing at most one sample above the true percentile, Binomial(n, 1 - p), has a chance of
    at most 1 %: with fewer, the tail may simply not have shown itself (MLPerf inference rules, early stopping).
    """
    from scipy.stats import binom

    n = 2
    while binom.cdf(1, n, 1 - percent / 100) > 1 - EARLY_STOPPING:
        n += 1
    return n


def percentile(seconds: Sequence[float], percent: int) -> Percentile:
    """A percentile of the seconds of each call, with an interval from order statistics.

    The interval assumes no distribution. It takes calls for independent: differences between processes widen it too
    little.
    """
    if len(seconds) < needed(percent):
        reason = f"p{percent} needs {needed(percent)} samples, {len(seconds)} were taken in {sum(seconds):.3g} s"
        return Percentile(percent, None, None, None, reason)
    from scipy.stats import quantile_test

    share = percent / 100
    interval = quantile_test(seconds, p=share).confidence_interval(CONFIDENCE)
    return Percentile(percent, float(np.percentile(seconds, percent)), float(interval.low), float(interval.high))


def overlatency_allowed(queries: int, late: int) -> bool:
    """Whether `late` of `queries` beyond a bound are few enough to say that its p99 holds, with 99 % confidence."""
    from scipy.stats import binom

    return bool(binom.cdf(late, queries, 0.01) <= 1 - EARLY_STOPPING)
