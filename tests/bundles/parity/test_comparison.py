"""The comparison: rounding is forgiven, everything else is not."""

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnbench.bundles.parity import comparison
from cnnbench.bundles.parity.comparison import Flips, batched, error_bound, errors, flips, relative
from cnnbench.types import CnnbenchError, Exit

logits = arrays(np.float64, st.tuples(st.integers(1, 20), st.integers(2, 5)), elements=st.floats(-100, 100))
positive = st.floats(1e-12, 1e6)

REFERENCE = np.random.RandomState(0).randn(300, 7).astype(np.float32) * 10


@given(positive, positive)
def test_the_bound_is_what_float32_kernels_differ_by_and_more_where_the_network_itself_rounds_more(
    error: float, largest: float
) -> None:
    assert error_bound(error, largest) == max(8 * error, 4e-5 * largest)


@given(positive, positive, st.integers(-20, 20))
def test_the_bound_scales_with_the_logits(error: float, largest: float, exponent: int) -> None:
    scale = 2.0**exponent
    assert error_bound(scale * error, scale * largest) == scale * error_bound(error, largest)


def with_mantissa(values: np.ndarray, bits: int) -> np.ndarray:
    """Each number rounded to `bits` of mantissa: 24 for float32, 11 for TF32 and half, 8 for bfloat16."""
    mantissa, exponent = np.frexp(values)
    rounded: np.ndarray = np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits)
    return rounded


@pytest.mark.parametrize(("bits", "within"), [(24, True), (11, False), (8, False)], ids=["float32", "TF32", "bfloat16"])
def test_what_computes_in_less_than_float32_exceeds_it(bits: int, within: bool) -> None:
    """A layer of 784 weights on random pixels, its factors rounded."""
    random = np.random.RandomState(0)
    pixels, weight = random.uniform(size=(100, 784)), random.standard_normal((784, 10))
    exact = pixels @ weight
    error = np.abs(with_mantissa(pixels, bits) @ with_mantissa(weight, bits) - exact).max()
    float32 = np.abs(with_mantissa(pixels, 24) @ with_mantissa(weight, 24) - exact).max()
    assert bool(error <= error_bound(float(float32), float(np.abs(exact).max()))) is within


@given(logits, st.floats(-1e-3, 1e-3))
def test_a_relative_difference_is_in_parts_of_the_largest_logit(reference: np.ndarray, change: float) -> None:
    reference[0, 0] = -100
    changed = reference.copy()
    changed[-1, -1] += 100 * change
    assert relative(reference, changed) == pytest.approx(abs(change), abs=1e-15)
    assert relative(reference, changed, largest=200.0) == pytest.approx(abs(change) / 2, abs=1e-15)


def test_logits_that_are_all_zero_differ_by_nothing_from_themselves() -> None:
    zero = np.zeros((2, 3))
    assert relative(zero, zero) == 0
    assert relative(zero, zero + 1e-3) > 1e12


@pytest.mark.parametrize(
    "found",
    [REFERENCE[:1], REFERENCE[:, :1], np.full_like(REFERENCE, np.nan), np.full_like(REFERENCE, np.inf)],
    ids=["one image", "one class", "nan", "infinity"],
)
def test_what_cannot_be_compared_is_infinitely_far_off(found: np.ndarray) -> None:
    assert relative(REFERENCE, found) == float("inf")


def counts(found: Flips) -> tuple[int, int]:
    return found.beyond_rounding, found.rounding


@given(logits, st.floats(0, 10))
def test_identical_logits_flip_nothing(reference: np.ndarray, bound: float) -> None:
    assert counts(flips(reference, reference.copy(), bound=bound)) == (0, 0)


@given(st.data(), logits, st.floats(1e-3, 10))
def test_errors_within_the_bound_never_count_as_beyond_rounding(
    data: st.DataObject, reference: np.ndarray, bound: float
) -> None:
    noise = data.draw(arrays(np.float64, reference.shape, elements=st.floats(-0.99, 0.99)))
    assert flips(reference, reference + noise * bound, bound=bound).beyond_rounding == 0


@given(st.integers(1, 20), st.floats(1e-6, 10), st.floats(2.01, 1e6))
def test_a_flip_over_more_than_twice_the_bound_is_beyond_rounding(rows: int, bound: float, ratio: float) -> None:
    reference = np.tile([0, ratio * bound, -1e9], (rows, 1))
    assert counts(flips(reference, reference[:, [1, 0, 2]], bound=bound)) == (rows, 0)


@given(st.integers(1, 20), st.floats(1e-6, 10), st.floats(0.01, 1.99))
def test_a_flip_over_less_is_rounding(rows: int, bound: float, ratio: float) -> None:
    reference = np.tile([0, ratio * bound, -1e9], (rows, 1))
    assert counts(flips(reference, reference[:, [1, 0, 2]], bound=bound)) == (0, rows)


def test_a_flip_over_exactly_twice_the_bound_is_rounding() -> None:
    reference = np.array([[0, 0.5]])
    assert counts(flips(reference, reference[:, ::-1], bound=0.25)) == (0, 1)
    assert counts(flips(reference, reference[:, ::-1], bound=np.nextafter(0.25, 0))) == (1, 0)


@given(st.data(), logits, st.floats(0, 10))
def test_every_flip_is_named_once_with_its_classes_and_pytorchs_margin(
    data: st.DataObject, reference: np.ndarray, bound: float
) -> None:
    other = data.draw(arrays(np.float64, reference.shape, elements=st.floats(-100, 100)))
    found = flips(reference, other, bound=bound)
    expected = {
        image: (max(row) - row[list(theirs).index(max(theirs))], list(row).index(max(row)))
        for image, (row, theirs) in enumerate(zip(reference.tolist(), other.tolist(), strict=True))
        if list(row).index(max(row)) != list(theirs).index(max(theirs))
    }
    assert {
        image: (margin, top) for image, margin, top in zip(found.images, found.margins, found.expected, strict=True)
    } == expected
    assert len(found.images) == len(expected)
    assert [other[image].argmax() for image in found.images] == found.actual.tolist()
    assert found.beyond_rounding == sum(margin > 2 * bound for margin, _ in expected.values())
    assert found.beyond_rounding + found.rounding == len(expected)


@given(st.data(), logits)
def test_the_largest_margin_is_first_and_equal_ones_are_in_order_of_the_images(
    data: st.DataObject, reference: np.ndarray
) -> None:
    rounded = reference.round(-1)  # many equal margins
    other = data.draw(arrays(np.float64, reference.shape, elements=st.floats(-100, 100)))
    found = flips(rounded, other, bound=1)
    ranked = [(-margin, image) for margin, image in zip(found.margins, found.images, strict=True)]
    assert ranked == sorted(ranked)
    assert all(found.margins >= 0)


def test_flips_of_known_logits() -> None:
    reference = np.array([[3.0, 1, 0], [0, 2, 1.5], [5, 0, 0], [0, 0, 9]])
    other = np.array([[1.0, 3, 0], [0, 1, 2.0], [5, 1, 1], [9, 0, 0]])
    found = flips(reference, other, bound=0.5)
    assert found.images.tolist() == [3, 0, 1]
    assert found.expected.tolist() == [2, 0, 1]
    assert found.actual.tolist() == [0, 1, 2]
    assert found.margins.tolist() == [9, 2, 0.5]
    assert counts(found) == (2, 1)


def test_the_largest_error_is_that_of_the_one_logit_that_is_off() -> None:
    found = REFERENCE.copy()
    found[17, 3] += 0.5
    seen = errors(REFERENCE, found)
    assert seen.max_abs_error == pytest.approx(0.5, rel=1e-5)
    assert seen.max_rel_error == pytest.approx(0.5 / max(abs(value) for value in REFERENCE[17].tolist()), rel=1e-5)
    assert seen.p999_abs_error == pytest.approx(0, abs=1e-6)  # one of 2,100 logits is beyond the percentile


def test_the_percentile_is_that_of_the_standard_library() -> None:
    found = REFERENCE + np.random.RandomState(1).standard_cauchy(REFERENCE.shape).astype(np.float32)
    absolute = [abs(a - b) for a, b in zip(found.ravel().tolist(), REFERENCE.ravel().tolist(), strict=True)]
    scales = [max(map(abs, row)) for row in REFERENCE.tolist() for _ in row]
    relative = [error / scale for error, scale in zip(absolute, scales, strict=True)]
    seen = errors(REFERENCE, found)
    assert seen.max_abs_error == pytest.approx(max(absolute), rel=1e-5)
    assert seen.max_rel_error == pytest.approx(max(relative), rel=1e-5)
    assert seen.p999_abs_error == pytest.approx(
        statistics.quantiles(absolute, n=1000, method="inclusive")[-1], rel=1e-5
    )
    assert seen.p999_rel_error == pytest.approx(
        statistics.quantiles(relative, n=1000, method="inclusive")[-1], rel=1e-5
    )


@given(logits, st.floats(-0.5, 0.5))
def test_a_factor_on_all_logits_is_the_relative_error(reference: np.ndarray, factor: float) -> None:
    reference[:, 0] = 100  # so that the largest logit of each image is known
    seen = errors(reference, reference * (1 + factor))
    assert seen.max_rel_error == pytest.approx(abs(factor), abs=1e-12)
    assert seen.max_abs_error == pytest.approx(100 * abs(factor), abs=1e-10)


@given(st.data(), logits)
def test_the_percentile_never_exceeds_the_largest_error(data: st.DataObject, reference: np.ndarray) -> None:
    seen = errors(reference, data.draw(arrays(np.float64, reference.shape, elements=st.floats(-100, 100))))
    assert 0 <= seen.p999_abs_error <= seen.max_abs_error
    assert 0 <= seen.p999_rel_error <= seen.max_rel_error


def test_an_image_whose_logits_are_all_zero_gives_finite_errors() -> None:
    seen = errors(np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32))
    assert (seen.max_abs_error, seen.max_rel_error) == (0, 0)


@pytest.mark.parametrize(
    "found",
    [REFERENCE[:, :6], REFERENCE[:299], REFERENCE[:1], REFERENCE[:, :1], REFERENCE[:, None], REFERENCE[0]],
    ids=["a class too few", "an image too few", "one image", "one class", "an axis too many", "an axis too few"],
)
def test_logits_of_another_shape_are_refused(found: np.ndarray) -> None:
    with pytest.raises(CnnbenchError, match="PyTorch") as caught:
        errors(REFERENCE, found)
    assert caught.value.code == Exit.VERDICT


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    found = REFERENCE.copy()
    found[-1, 0] = value
    with pytest.raises(CnnbenchError, match="not finite") as caught:
        errors(REFERENCE, found)
    assert caught.value.code == Exit.VERDICT


@given(st.integers(1, 30), st.integers(1, 40))
def test_batches_cover_every_image_once_in_order(count: int, size: int) -> None:
    images, sizes = np.arange(count), []

    def same(some: np.ndarray) -> np.ndarray:
        sizes.append(len(some))
        return some

    assert np.array_equal(batched(same, images, size=size), images)
    assert sizes == [size] * (count // size) + [count % size] * (count % size > 0)


def test_the_batch_sizes_are_small_ones_primes_powers_of_two_and_a_neighbour() -> None:
    assert comparison.BATCH_SIZES == (1, 2, 3, 7, 8, 32, 64, 65, 100)
    assert comparison.BATCH_SIZE_IMAGES == 200
