"""Intervals agree with scipy's, McNemar's test is exact, and costs are those of the right epoch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cnnbench.analysis.statistics import (
    TimeToAccuracy,
    censored_median,
    holm,
    interval,
    mcnemar,
    proportion_interval,
    summary,
    time_to_accuracy,
)
from cnnbench.records.schema import Epoch

ACCURACIES = st.lists(st.floats(0, 1), min_size=3, max_size=20)


@pytest.mark.parametrize("count", [3, 5, 10, 30])
def test_the_interval_of_a_mean_is_student_s_t(count: int) -> None:
    values = np.random.RandomState(0).lognormal(size=count).tolist()
    result = interval(values)
    assert result is not None
    # scipy's own one-sample test inverts to the same interval
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert result.method == "Student's t"


@pytest.mark.parametrize("count", [3, 9, 30])
def test_equal_values_have_an_interval_without_width(count: int) -> None:
    result = interval([0.98] * count)
    assert result is not None
    assert (result.low, result.high) == pytest.approx((0.98, 0.98), abs=1e-12)


def test_two_values_are_too_few_for_an_interval() -> None:
    result = summary([0.98, 0.99])
    assert result.interval is None
    assert result.std == pytest.approx(0.01 / 2**0.5)


@pytest.mark.parametrize(("right", "images"), [(0, 10), (494, 500), (500, 500), (9_924, 10_000)])
def test_the_interval_of_a_share_is_wilson_s(right: int, images: int) -> None:
    expected = stats.binomtest(right, images).proportion_ci(0.95, method="wilson")
    result = proportion_interval(right / images, images)
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= result.low <= right / images <= result.high <= 1


def test_one_value_has_neither_spread_nor_interval() -> None:
    assert interval([0.98]) is None
    result = summary([0.98])
    assert (result.values, result.mean, result.std, result.interval) == ((0.98,), 0.98, None, None)


def test_a_summary_keeps_every_value_and_divides_by_n_less_1() -> None:
    result = summary([0.25, 0.5, 1.0])
    assert result.values == (0.25, 0.5, 1.0)
    assert result.mean == pytest.approx(1.75 / 3)
    squares = (0.25 - 1.75 / 3) ** 2 + (0.5 - 1.75 / 3) ** 2 + (1 - 1.75 / 3) ** 2
    assert result.std == pytest.approx((squares / 2) ** 0.5)


@given(ACCURACIES)
def test_an_interval_of_accuracies_holds_their_mean_and_stays_within_0_and_1(values: list[float]) -> None:
    result = interval(values, (0, 1))
    assert result is not None
    assert 0 <= result.low <= np.mean(values) + 1e-12
    assert np.mean(values) - 1e-12 <= result.high <= 1


def test_bounds_cut_only_where_they_are_given() -> None:
    free, above = interval([0.8, 1.0, 0.95]), interval([0.8, 1.0, 0.95], (None, 1))
    assert free is not None
    assert above is not None
    assert free.high > 1 == above.high
    assert free.low == above.low


def test_mcnemar_counts_what_only_one_gets_right_and_its_p_is_binomial() -> None:
    a = np.array([True] * 9 + [False] * 2 + [True] * 80)
    b = np.array([False] * 9 + [True] * 2 + [True] * 80)
    result = mcnemar(a, b)
    assert (result.only_a, result.only_b) == (9, 2)
    assert result.p == pytest.approx(2 * (1 + 11 + 55) / 2**11)  # 0, 1 or 2 of 11, and the other tail
    assert mcnemar(b, a).p == pytest.approx(result.p)


def test_mcnemar_of_equal_predictions_has_p_1() -> None:
    correct = np.array([True, False, True])
    assert mcnemar(correct, correct).p == 1


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_s_interval_of_the_share_holds_a_half_exactly_where_p_shows_nothing(only_a: int, only_b: int) -> None:
    a = np.repeat([True, False], [only_a, only_b])
    result = mcnemar(a, ~a)
    low, high = result.share
    assert (low <= 0.5 <= high) == (result.p >= 0.05)


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((2, 3), (2, 3))])
def test_mcnemar_takes_one_seed_of_the_same_images(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"expected two arrays \(images,\)"):
        mcnemar(np.ones(shapes[0], dtype=bool), np.ones(shapes[1], dtype=bool))


def test_holm_s_p_values_are_those_of_his_steps() -> None:
    """4 x 0.01, 3 x 0.02, 2 x 0.021 and 0.04, none smaller than the one before."""
    assert holm([0.02, 0.01, 0.04, 0.021]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


CURVE = tuple(
    Epoch(epoch, 10 * epoch, 2.5 * epoch, 1000 * epoch, accuracy, 0.1, None)
    for epoch, accuracy in enumerate([0.90, 0.97, 0.96, 0.98], start=1)
)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (0.97, TimeToAccuracy(5.0, 2, 21 * 2000)),  # at the target, not above it
        (0.965, TimeToAccuracy(5.0, 2, 21 * 2000)),  # first reached, though lost again
        (0.975, TimeToAccuracy(10.0, 4, 21 * 4000)),
        (0.5, TimeToAccuracy(2.5, 1, 21 * 1000)),
        (0.99, None),
    ],
)
def test_time_to_accuracy_is_the_cost_up_to_the_target(target: float, expected: TimeToAccuracy | None) -> None:
    assert time_to_accuracy(CURVE, target, macs=21) == expected


def test_training_macs_that_were_not_counted_are_none() -> None:
    assert time_to_accuracy(CURVE, 0.97, macs=None) == TimeToAccuracy(5.0, 2, None)


def test_without_validated_epochs_no_target_is_reached() -> None:
    assert time_to_accuracy((), 0.1, macs=7) is None


@pytest.mark.parametrize(
    ("reached", "unreached", "expected"),
    [
        ([5.0, 9.0, 6.0], 0, 6.0),
        ([5.0, 7.0], 0, 6.0),
        ([5.0, 9.0, 6.0], 1, 7.5),  # as if the fourth were later than all
        ([5.0, 9.0, 6.0], 2, 9.0),
        ([5.0, 9.0, 6.0], 3, None),  # half of them never did
        ([], 1, None),
        ([], 0, None),
    ],
)
def test_the_median_counts_those_that_did_not_get_there_as_later(
    reached: list[float], unreached: int, expected: float | None
) -> None:
    assert censored_median(reached, unreached) == expected
