"""Intervals for new seeds and new images: formulas, coverage, and sentences that no other test contradicts."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from cnnbench.analysis.crossed import (
    Difference,
    accuracy_interval,
    mean_squares,
    paired_difference,
    sign_flip_p,
    squared_half_width,
)
from cnnbench.analysis.statistics import mcnemar, proportion_interval

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


def anova(x: np.ndarray) -> tuple[float, float, float]:
    """Mean squares of seeds, of images and of the rest, from the sums of squares of effects."""
    seeds, images = x.shape
    rows, columns = x.mean(axis=1, keepdims=True) - x.mean(), x.mean(axis=0, keepdims=True) - x.mean()
    rest = x - rows - columns - x.mean()
    degrees = (seeds - 1) * (images - 1)
    return images * (rows**2).sum() / (seeds - 1), seeds * (columns**2).sum() / (images - 1), (rest**2).sum() / degrees


@pytest.mark.parametrize(("seeds", "of_seeds", "of_images"), [(2, 0.2, 0.3), (5, 0.0, 0.3), (12, 0.2, 0.0), (5, 0, 0)])
def test_the_mean_squares_are_those_of_an_analysis_of_variance(seeds: int, of_seeds: float, of_images: float) -> None:
    a, b = pair(np.random.RandomState(0), seeds, 150, of_seeds, of_images)
    x = a.astype(float) - b
    result = mean_squares(a.astype(np.int8) - b)
    assert (result.seeds, result.images, result.rest) == pytest.approx(anova(x), abs=1e-12)


def quantile(degrees: float) -> float:
    return float(stats.t.ppf(0.975, degrees))


def test_up_to_three_seeds_the_interval_is_banerjee_s() -> None:
    a, b = pair(np.random.RandomState(0), 3, 150, 0.2, 0.3)
    seeds, images, rest = (square / 450 for square in anova(a.astype(float) - b))
    result = paired_difference(a, b)
    half = (quantile(2) ** 2 * seeds + quantile(149) ** 2 * (images - rest)) ** 0.5
    assert images > rest
    assert (result.low, result.high) == pytest.approx((result.mean - half, result.mean + half))
    assert result.mean == pytest.approx(a.mean() - b.mean())


def test_from_four_seeds_its_square_is_the_mean_of_banerjee_s_and_satterthwaite_s() -> None:
    a, b = pair(np.random.RandomState(0), 6, 150, 0.1, 0.3)
    seeds, images, rest = (square / 900 for square in anova(a.astype(float) - b))
    variance = seeds + images - rest
    satterthwaite = quantile(5 * (variance / seeds) ** 2) ** 2 * variance
    banerjee = quantile(5) ** 2 * seeds + quantile(149) ** 2 * (images - rest)
    assert squared_half_width(mean_squares(a.astype(np.int8) - b)) == pytest.approx((satterthwaite + banerjee) / 2)
    assert 1.05 * satterthwaite < banerjee  # they differ, so that the test tells them apart


def test_the_interval_is_never_narrower_than_the_images_alone() -> None:
    """Two seeds of a that each miss another image: the seeds agree by chance, and the interaction is all there is."""
    a = np.ones((2, 500), dtype=bool)
    b = a.copy()
    b[0, 0] = b[1, 1] = False
    result = paired_difference(a, b)
    half = quantile(499) * stats.sem((a.astype(float) - b).mean(axis=0))
    assert (result.mean, result.high - result.mean) == (pytest.approx(0.002), pytest.approx(half))
    assert not result.shown


def test_four_images_to_none_show_nothing_as_mcnemar_has_it() -> None:
    a = np.ones((1, 500), dtype=bool)
    b = np.arange(500)[None] >= 4
    result = paired_difference(a, b)
    assert result.p == pytest.approx(0.125)
    assert result.low < 0 < result.high
    assert quantile(499) * stats.sem(~b[0]) < result.mean  # Student's t alone would exclude 0


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from([80, 500, 10_000]))
@example(6, 0, 500)
@example(5, 0, 500)
@example(0, 0, 80)
def test_one_seed_shows_a_difference_exactly_where_mcnemar_s_test_does(only_a: int, only_b: int, images: int) -> None:
    a = np.arange(images) < images - only_b
    b = (np.arange(images) >= only_a) | (np.arange(images) >= images - only_b)
    test = mcnemar(a, b)
    result = paired_difference(a[None], b[None])
    assert (test.only_a, test.only_b, result.p) == (only_a, only_b, test.p)
    assert result.shown == (test.p < 0.05)
    assert result.low <= result.mean <= result.high


def test_many_images_of_one_seed_have_student_s_t() -> None:
    a, b = pair(np.random.RandomState(0), 1, 4000, 0, 0)
    result = paired_difference(a, b)
    expected = stats.t.interval(0.95, 3999, loc=a.mean() - b.mean(), scale=stats.sem(a[0].astype(float) - b[0]))
    assert (result.low, result.high) == pytest.approx(expected, abs=0.001)
    assert "of these two trained networks: " in result.sentence("a", "b")
    assert result.sentence("a", "b").endswith(", 4,000 images, one seed: another training may differ")


def test_the_same_images_under_more_seeds_are_not_more_images() -> None:
    """Five identical seeds tell of images what one tells; drawing each seed's images anew would tell more."""
    a, b = pair(np.random.RandomState(1), 1, 300, 0, 0.2)
    once = paired_difference(a, b)
    five = paired_difference(np.repeat(a, 5, axis=0), np.repeat(b, 5, axis=0))
    assert five.high - five.low == pytest.approx(once.high - once.low, rel=0.03)


def test_the_same_difference_on_every_image_leaves_room_for_others() -> None:
    a, b = np.ones((3, 50), dtype=bool), np.zeros((3, 50), dtype=bool)
    result = paired_difference(a, b)
    least = 2 * stats.binomtest(50, 50).proportion_ci(0.95).low - 1  # Clopper and Pearson
    assert (result.mean, result.low, result.high, result.shown) == (1, pytest.approx(least), 1, True)
    assert result.p == pytest.approx(2 / 2**50)


@pytest.mark.parametrize("seeds", [1, 3])
def test_equal_predictions_leave_room_for_images_that_would_tell_the_networks_apart(seeds: int) -> None:
    a = np.random.RandomState(0).random_sample((seeds, 50)) < 0.9
    result = paired_difference(a, a)
    unseen = stats.binomtest(0, 50).proportion_ci(0.95).high  # Clopper and Pearson
    assert (result.mean, result.low, result.high, result.shown) == (
        0,
        pytest.approx(-unseen),
        pytest.approx(unseen),
        False,
    )
    assert "no difference shown" in result.sentence("a", "b")


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(2, 40))
def test_the_interval_is_antisymmetric_permutation_invariant_and_widened_by_seeds_and_images(
    seed: int, seeds: int, images: int
) -> None:
    random = np.random.RandomState(seed)
    a, b = pair(random, seeds, images, 0.1, 0.2)
    result, back = paired_difference(a, b), paired_difference(b, a)
    assert (back.mean, back.low, back.high) == pytest.approx((-result.mean, -result.high, -result.low), abs=1e-12)
    order = random.permutation(images)
    shuffled = paired_difference(a[:, order], b[:, order])
    assert (shuffled.low, shuffled.high) == pytest.approx((result.low, result.high), abs=1e-12)
    differences = a.astype(float) - b
    assert result.high - result.mean >= quantile(images - 1) * stats.sem(differences.mean(axis=0)) - 1e-12
    if 1 < seeds <= 3:  # from four on, Satterthwaite's part is narrower than a t-test over the seeds
        assert result.high - result.mean >= quantile(seeds - 1) * stats.sem(differences.mean(axis=1)) - 1e-12


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_the_p_value_is_the_smallest_level_whose_interval_excludes_0_or_that_of_the_signs(
    seed: int, seeds: int
) -> None:
    a, b = pair(np.random.RandomState(seed), seeds, 60, 0.1, 0.2)
    differences = a.astype(np.int8) - b
    result, flipped = paired_difference(a, b), sign_flip_p(differences.sum(axis=0))
    assert result.shown == (result.p < 0.05)
    assert result.p >= flipped
    half = squared_half_width(mean_squares(differences), 1 - result.p) ** 0.5
    if result.p > flipped:
        assert half == pytest.approx(abs(result.mean), rel=1e-6, abs=1e-9)
    else:  # a larger p has a narrower interval
        assert half <= abs(result.mean) + 1e-9


@pytest.mark.parametrize("seeds", [2, 5])
@pytest.mark.parametrize(("only_a", "only_b"), [(4, 0), (5, 0), (6, 0), (12, 3), (13, 3)])
def test_seeds_that_agree_show_no_more_than_mcnemar_s_test_of_one(seeds: int, only_a: int, only_b: int) -> None:
    place = np.arange(500)
    a, b = place >= only_b, (place < only_b) | (place >= only_b + only_a)
    result = paired_difference(np.repeat(a[None], seeds, axis=0), np.repeat(b[None], seeds, axis=0))
    test = mcnemar(a, b)
    assert (test.only_a, test.only_b) == (only_a, only_b)
    assert result.shown == (test.p < 0.05)
    assert result == dataclasses.replace(paired_difference(a[None], b[None]), seeds=seeds)


@given(st.lists(st.integers(-6, 6), max_size=10))
def test_the_p_value_of_the_signs_counts_every_choice_of_signs(sums: list[int]) -> None:
    size = abs(sum(sums))
    extreme = [abs(sum(signs)) >= size for signs in itertools.product(*((-value, value) for value in sums))]
    assert sign_flip_p(np.array(sums, dtype=int)) == pytest.approx(np.mean(extreme), abs=1e-12)


def test_of_one_seed_it_is_mcnemar_s() -> None:
    a, b = (correct[0] for correct in pair(np.random.RandomState(3), 1, 10_000, 0, 0.1))
    assert sign_flip_p(a.astype(int) - b) == pytest.approx(mcnemar(a, b).p, abs=1e-13)


@pytest.mark.parametrize(("a", "b"), [((3, 5), (3, 6)), ((5,), (5,)), ((0, 5), (0, 5)), ((3, 1), (3, 1))], ids=str)
def test_unpaired_shapes_are_refused(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected two arrays \(seeds, images >= 2\)"):
        paired_difference(np.ones(a, dtype=bool), np.ones(b, dtype=bool))


def coverage(seeds: int, of_seeds: float, of_images: float, times: int) -> float:
    random = np.random.RandomState(seeds)
    result = [paired_difference(*pair(random, seeds, 40, of_seeds, of_images)) for _ in range(times)]
    return float(np.mean([ci.low <= EDGE <= ci.high for ci in result]))


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(("of_seeds", "of_images"), [(0.3, 0.1), (0.3, 0), (0.2, 0.2), (0.05, 0.4), (0, 0.4), (0, 0)])
def test_the_true_difference_is_covered_for_any_effects(seeds: int, of_seeds: float, of_images: float) -> None:
    assert coverage(seeds, of_seeds, of_images, times=2000) >= 0.94 - 2 * (0.05 * 0.95 / 2000) ** 0.5


def difference_of(mean: float, low: float, high: float, seeds: int = 5, p: float = 0.5) -> Difference:
    return Difference(mean, low, high, seeds, 10_000, p)


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
            difference_of(0.01, 0.005, 0.015, seeds=1, p=0.00012),
            "of these two trained networks: lenet5 is better than mlp by 1.00 points (95 % interval 0.50 to 1.50); "
            "McNemar p 0.00012, 10,000 images, one seed: another training may differ",
        ),
    ],
)
def test_the_sentence_has_winner_margin_seeds_and_images(difference: Difference, expected: str) -> None:
    assert difference.sentence("lenet5", "mlp") == expected


@pytest.mark.parametrize(("low", "high", "shown"), [(0.0, 0.1, False), (-0.1, 0.0, False), (1e-9, 0.1, True)])
def test_an_interval_that_touches_0_shows_no_difference(low: float, high: float, shown: bool) -> None:
    assert difference_of((low + high) / 2, low, high).shown is shown


def test_two_seeds_are_too_few_for_an_interval_of_an_accuracy() -> None:
    assert accuracy_interval(np.ones((2, 50), dtype=bool)) is None


def test_seeds_that_are_all_right_have_wilson_s_interval_of_one() -> None:
    result = accuracy_interval(np.ones((3, 500), dtype=bool))
    expected = stats.binomtest(500, 500).proportion_ci(0.95, method="wilson")
    assert result is not None
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high))


def test_seeds_that_agree_on_every_image_tell_what_one_of_them_tells() -> None:
    correct = np.repeat(np.arange(500)[None] < 480, 4, axis=0)
    result = accuracy_interval(correct)
    expected = stats.binomtest(480, 500).proportion_ci(0.95, method="wilson")
    assert result is not None
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high), abs=2e-4)


def test_an_accuracy_of_many_errors_has_the_width_of_the_crossed_model() -> None:
    a, _ = pair(np.random.RandomState(0), 6, 4000, 0.02, 0.5)
    result = accuracy_interval(a)
    half = squared_half_width(mean_squares(a)) ** 0.5
    assert result is not None
    assert result.high - result.low == pytest.approx(2 * half, rel=0.01)
    assert (result.high + result.low) / 2 == pytest.approx(a.mean(), abs=half / 20)


def test_of_few_errors_the_spread_over_images_is_that_of_four_more_on_which_all_seeds_agree() -> None:
    correct = np.ones((10, 500), dtype=bool)
    correct[0, 0] = correct[1, 1] = False  # two images that one seed each gets wrong
    accuracy = correct.mean()
    agreement = correct.mean(axis=0).var(ddof=1) / (accuracy * (1 - accuracy))
    result = accuracy_interval(correct)
    expected = proportion_interval(accuracy, 500 / ((agreement * 2 + 4) / 6))
    assert agreement < 0.2
    assert result is not None
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high))
