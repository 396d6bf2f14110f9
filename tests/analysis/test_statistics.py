"""Intervals have their stated coverage, comparisons are paired, and costs are those of the right epoch."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from cnnbench.analysis import statistics
from cnnbench.analysis.statistics import (
    Difference,
    TimeToAccuracy,
    interval,
    mcnemar,
    paired_difference,
    summary,
    time_to_accuracy,
)
from cnnbench.records.schema import Epoch

ACCURACIES = st.lists(st.floats(0, 1), min_size=2, max_size=9)


def test_below_ten_values_the_interval_is_students_t() -> None:
    values = [0.981, 0.984, 0.979, 0.985, 0.986]
    result = interval(values)
    assert result is not None
    # scipy's own one-sample test inverts to the same interval
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert result.method == "Student's t"


def test_from_ten_values_on_it_is_the_bca_bootstrap_and_the_same_every_time() -> None:
    values = np.random.RandomState(0).lognormal(size=10).tolist()
    result = interval(values)
    assert result is not None
    assert result.method == "BCa bootstrap"
    assert result == interval(values)
    expected = stats.bootstrap((values,), np.mean, n_resamples=50_000, rng=np.random.default_rng(1)).confidence_interval
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high), abs=0.05 * np.std(values))
    mean = float(np.mean(values))
    assert result.high - mean > mean - result.low  # it follows the skew, which Student's t does not


@pytest.mark.parametrize("count", [2, 9, 10, 30])
def test_equal_values_have_an_interval_without_width(count: int) -> None:
    result = interval([0.98] * count)
    assert result is not None
    assert (result.low, result.high) == (0.98, 0.98)


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


@pytest.mark.slow
def test_a_percentile_bootstrap_of_five_covers_84_percent_and_students_t_95() -> None:
    """Why few seeds get Student's t: every one of the 5^5 resamples of 4,000 samples, so nothing is left to chance."""
    samples = np.random.RandomState(0).normal(size=(4000, 5))
    resamples = np.array(list(itertools.product(range(5), repeat=5)))  # 3125, 5
    weights = np.stack([(resamples == place).mean(axis=1) for place in range(5)])  # 5, 3125
    ends = np.quantile(samples @ weights, [0.025, 0.975], axis=1)
    assert np.mean((ends[0] <= 0) & (ends[1] >= 0)) == pytest.approx(0.84, abs=0.015)
    result = [interval(sample.tolist()) for sample in samples[:2000]]
    assert np.mean([ci is not None and ci.low <= 0 <= ci.high for ci in result]) == pytest.approx(0.95, abs=0.015)


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


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((2, 3), (2, 3))])
def test_mcnemar_takes_one_seed_of_the_same_images(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"expected two arrays \(images,\)"):
        mcnemar(np.ones(shapes[0], dtype=bool), np.ones(shapes[1], dtype=bool))


EDGE = 0.05
"""True accuracy difference of the networks of a `pair`."""


def pair(
    random: np.random.RandomState, seeds: int, images: int, of_seeds: float, of_images: float
) -> tuple[np.ndarray, np.ndarray]:
    """Whether two networks are right `(seeds, images)`, with crossed effects of seed and image on their difference.

    The effects are symmetric and leave no probability outside [0, 1], so that the true difference is `EDGE`.
    """
    effect = np.clip(of_seeds * random.normal(size=(seeds, 1)), -2.5 * of_seeds, 2.5 * of_seeds)
    effect = effect + of_images * random.choice([-1, 1], size=(1, images))
    a, b = (random.random_sample((seeds, images)) < 0.5 + half / 2 for half in (EDGE + effect, -EDGE - effect))
    return a, b


def mean_squares(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Of seeds, of images and of the rest, as an analysis of variance has them."""
    x = a.astype(float) - b
    seeds, images = x.shape
    rows, columns = x.mean(axis=1, keepdims=True), x.mean(axis=0, keepdims=True)
    rest = x - rows - columns + x.mean()
    of_seeds = images * rows.var() * seeds / (seeds - 1) if seeds > 1 else 0.0
    of_rest = (rest**2).sum() / ((seeds - 1) * (images - 1)) if seeds > 1 else 0.0
    return of_seeds, seeds * columns.var() * images / (images - 1), of_rest


@pytest.mark.parametrize(("seeds", "of_seeds", "of_images"), [(3, 0.1, 0.3), (5, 0.0, 0.3), (12, 0.2, 0.0), (5, 0, 0)])
def test_the_parts_agree_with_an_analysis_of_variance(seeds: int, of_seeds: float, of_images: float) -> None:
    a, b = pair(np.random.RandomState(0), seeds, 150, of_seeds, of_images)
    result = paired_difference(a, b)
    rows, columns, rest = mean_squares(a, b)
    half2 = stats.t.ppf(0.975, seeds - 1) ** 2 * rows + stats.t.ppf(0.975, 149) ** 2 * max(columns - rest, 0)
    expected = (half2 / (seeds * 150)) ** 0.5
    assert result.mean == pytest.approx(a.mean() - b.mean())
    assert result.high - result.mean == pytest.approx(expected, rel=0.03)  # 20,000 replicates: one deviation is 0.5 %
    assert result.mean - result.low == pytest.approx(result.high - result.mean)


def test_one_seed_covers_other_images_only_and_the_sentence_states_it() -> None:
    a, b = pair(np.random.RandomState(0), 1, 400, 0, 0)
    result = paired_difference(a, b)
    expected = stats.t.interval(0.95, 399, loc=a.mean() - b.mean(), scale=stats.sem(a[0].astype(float) - b[0]))
    assert (result.low, result.high) == pytest.approx(expected, abs=0.002)
    assert result.seeds == 1
    assert result.sentence("a", "b").endswith("; over images alone: one seed, 400 images")


def test_the_same_images_under_more_seeds_are_not_more_images() -> None:
    """Five identical seeds tell of images what one tells; drawing each seed's images anew would tell more."""
    a, b = pair(np.random.RandomState(1), 1, 300, 0, 0.2)
    once = paired_difference(a, b)
    five = paired_difference(np.repeat(a, 5, axis=0), np.repeat(b, 5, axis=0))
    assert five.high - five.low == pytest.approx(once.high - once.low, rel=0.03)


def test_the_same_difference_on_every_image_and_seed_has_an_interval_without_width() -> None:
    a, b = np.ones((3, 50), dtype=bool), np.zeros((3, 50), dtype=bool)
    result = paired_difference(a, b)
    assert (result.mean, result.low, result.high, result.shown) == (1, pytest.approx(1), pytest.approx(1), True)


def test_networks_with_equal_predictions_show_no_difference() -> None:
    a = np.random.RandomState(0).random_sample((3, 50)) < 0.9
    result = paired_difference(a, a)
    assert (result.mean, result.low, result.high, result.shown) == (0, 0, 0, False)
    assert "no difference shown" in result.sentence("a", "b")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(2, 40))
@example(685625341, 2, 3)  # half the interval is 1.7
@pytest.mark.slow
def test_the_interval_is_deterministic_antisymmetric_and_permutation_invariant(
    seed: int, seeds: int, images: int
) -> None:
    random = np.random.RandomState(seed)
    a, b = pair(random, seeds, images, 0.1, 0.2)
    result, back = paired_difference(a, b), paired_difference(b, a)
    assert result == paired_difference(a, b)
    assert (back.mean, back.low, back.high) == pytest.approx((-result.mean, -result.high, -result.low), abs=1e-12)
    order = random.permutation(images)
    shuffled = paired_difference(a[:, order], b[:, order])
    assert (shuffled.low, shuffled.high) == pytest.approx((result.low, result.high), abs=1e-12)
    per_seed = a.mean(axis=1) - b.mean(axis=1)
    if seeds > 1:  # other images may only widen what other seeds leave open
        half = stats.t.ppf(0.975, seeds - 1) * stats.sem(per_seed)
        assert result.high - result.mean >= 0.97 * half - 1e-12  # seeds that are all equal differ by rounding


@pytest.mark.parametrize(
    "differences",
    [
        [[1, 1, 0, -1], [0, 1, 0, 0]],
        [[1, -1, 0, 0], [1, 0, -1, 0]],  # without a sum, told apart by the patterns
        [[1, -1, 1, 1, -1], [1, -1, -1, -1, 1]],  # by how often each occurs
        [[1, -1, 0], [-1, 1, 0]],  # its own mirror
    ],
)
def test_the_interval_turns_its_sign_with_the_networks(differences: list[list[int]]) -> None:
    a, b = np.array(differences) > 0, np.array(differences) < 0
    result, back = paired_difference(a, b), paired_difference(b, a)
    assert (back.mean, back.low, back.high) == pytest.approx((-result.mean, -result.high, -result.low), abs=1e-12)


@pytest.mark.parametrize(("a", "b"), [((3, 5), (3, 6)), ((5,), (5,)), ((0, 5), (0, 5)), ((3, 1), (3, 1))], ids=str)
def test_unpaired_shapes_are_refused(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected two arrays \(seeds, images >= 2\)"):
        paired_difference(np.ones(a, dtype=bool), np.ones(b, dtype=bool))


def coverage(seeds: int, of_seeds: float, of_images: float, times: int) -> float:
    random = np.random.RandomState(seeds)
    result = [paired_difference(*pair(random, seeds, 40, of_seeds, of_images)) for _ in range(times)]
    return float(np.mean([ci.low <= EDGE <= ci.high for ci in result]))


@pytest.fixture
def _fewer_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth: widths are known to 2 % instead of 0.5 %, which over many samples changes no coverage."""
    monkeypatch.setattr(statistics, "REPLICATES", 2000)


@pytest.mark.usefixtures("_fewer_replicates")
@pytest.mark.parametrize("seeds", [3, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_the_true_difference_is_covered_if_seeds_dominate(seeds: int) -> None:
    """Percentiles of three seeds cover 75 % here."""
    assert coverage(seeds, of_seeds=0.3, of_images=0.1, times=300) >= 0.93


@pytest.mark.slow
@pytest.mark.usefixtures("_fewer_replicates")
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("of_seeds", "of_images"), [(0.3, 0), (0.2, 0.2), (0.05, 0.4), (0, 0.4), (0, 0)])
def test_the_true_difference_is_covered_for_any_effects(seeds: int, of_seeds: float, of_images: float) -> None:
    assert coverage(seeds, of_seeds, of_images, times=400) >= 0.93


def difference_of(mean: float, low: float, high: float, seeds: int = 5) -> Difference:
    return Difference(mean, low, high, seeds, 10_000, statistics.REPLICATES)


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (
            difference_of(0.0019, 0.0005, 0.0033),
            "lenet5 is better than mlp by 0.19 points (95 % interval 0.05 to 0.33); 5 seeds, 10,000 images",
        ),
        (
            difference_of(-0.0019, -0.0033, -0.0005),
            "mlp is better than lenet5 by 0.19 points (95 % interval 0.05 to 0.33); 5 seeds, 10,000 images",
        ),
        (
            difference_of(0.0005, -0.001, 0.0021),
            "no difference shown between lenet5 and mlp (95 % interval -0.10 to 0.21 points); 5 seeds, 10,000 images",
        ),
        (
            difference_of(0.01, 0.005, 0.015, seeds=1),
            "lenet5 is better than mlp by 1.00 points (95 % interval 0.50 to 1.50); over images alone: one seed, "
            "10,000 images",
        ),
    ],
)
def test_the_sentence_has_winner_margin_seeds_and_images(difference: Difference, expected: str) -> None:
    assert difference.sentence("lenet5", "mlp") == expected


@pytest.mark.parametrize(("low", "high", "shown"), [(0.0, 0.1, False), (-0.1, 0.0, False), (1e-9, 0.1, True)])
def test_an_interval_that_touches_0_shows_no_difference(low: float, high: float, shown: bool) -> None:
    assert difference_of((low + high) / 2, low, high).shown is shown


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
