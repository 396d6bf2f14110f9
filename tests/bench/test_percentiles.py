"""Percentiles, their intervals, and how many samples they need."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy.stats import binom

from cnnbench.bench.percentiles import needed, overlatency_allowed, percentile


@pytest.mark.parametrize(("percent", "published"), [(50, 11), (90, 64), (99, 662)])
def test_needed_samples_are_mlperfs(percent: int, published: int) -> None:
    def at_most_one_slower(n: int) -> Fraction:
        slower = Fraction(100 - percent, 100)
        return (1 - slower) ** n + comb(n, 1) * slower * (1 - slower) ** (n - 1)

    assert needed(percent) == published
    assert at_most_one_slower(published) <= Fraction(1, 100) < at_most_one_slower(published - 1)


@pytest.mark.parametrize("percent", [50, 90, 99])
def test_a_percentile_with_too_few_samples_is_null_with_the_reason(percent: int) -> None:
    few = percentile([1e-3] * (needed(percent) - 1), percent)
    assert (few.seconds, few.low_seconds, few.high_seconds) == (None, None, None)
    spent = 1e-3 * (needed(percent) - 1)
    assert (
        few.reason == f"p{percent} needs {needed(percent)} samples, {needed(percent) - 1} were taken in {spent:.3g} s"
    )
    enough = percentile([1e-3] * needed(percent), percent)
    assert (enough.seconds, enough.low_seconds, enough.high_seconds, enough.reason) == (1e-3, 1e-3, 1e-3, "")


@pytest.mark.parametrize(
    "percent", [50, pytest.param(90, marks=pytest.mark.slow), pytest.param(99, marks=pytest.mark.slow)]
)
def test_the_interval_covers_the_true_percentile_as_often_as_it_says(percent: int) -> None:
    draw, trials = np.random.default_rng(percent), 300
    true = -np.log(1 - percent / 100)  # of the exponential distribution
    covered = 0
    for _ in range(trials):
        found = percentile(draw.exponential(size=700).tolist(), percent)
        assert found.seconds is not None
        assert found.low_seconds is not None
        assert found.high_seconds is not None
        assert found.low_seconds <= found.seconds <= found.high_seconds
        covered += found.low_seconds <= true <= found.high_seconds
    assert covered >= binom.ppf(0.001, trials, 0.95)


def test_the_interval_of_the_median_is_made_of_order_statistics() -> None:
    found = percentile([float(value) for value in range(1, 101)], 50)
    # Binomial(100, 1/2): the 40th and 61st smallest are the standard 95 % bounds (Conover 1999, table A3)
    assert (found.seconds, found.low_seconds, found.high_seconds) == (50.5, 40, 61)


def test_late_queries_that_p99_allows() -> None:
    assert overlatency_allowed(662, 1)
    assert not overlatency_allowed(661, 1)
    assert not overlatency_allowed(662, 2)
    assert overlatency_allowed(20_000, 160)
    assert not overlatency_allowed(20_000, 200)  # one in a hundred exactly proves nothing
