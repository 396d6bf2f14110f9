"""The judgement: rounding is forgiven, everything else is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnbench.export.verdict import BATCH_SIZES, RELATIVE_TOLERANCE, Logits, batched, count_flips, parity
from cnnbench.types import CnnbenchError, Exit

logits = arrays(np.float64, st.tuples(st.integers(1, 20), st.integers(2, 5)), elements=st.floats(-100, 100))

WEIGHTS = np.random.RandomState(0).randn(12, 3).astype(np.float32)
IMAGES = np.random.RandomState(1).randint(0, 256, size=(300, 2, 2, 3), dtype=np.uint8)


def linear(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 255 @ WEIGHTS


REFERENCE = linear(IMAGES)
LABELS = np.random.RandomState(2).randint(0, 3, size=300)


@given(logits, st.floats(0, 10))
def test_identical_logits_flip_nothing(reference: np.ndarray, tolerance: float) -> None:
    assert count_flips(reference, reference.copy(), tolerance) == (0, 0)


@given(st.data(), logits, st.floats(1e-3, 10))
def test_errors_within_the_tolerance_never_count_as_flips(
    data: st.DataObject, reference: np.ndarray, tolerance: float
) -> None:
    noise = data.draw(arrays(np.float64, reference.shape, elements=st.floats(-0.99, 0.99)))
    assert count_flips(reference, reference + noise * tolerance, tolerance)[0] == 0


@given(st.integers(1, 20), st.floats(1e-6, 10), st.floats(2.01, 1e6))
def test_a_flip_over_more_than_twice_the_tolerance_is_real(rows: int, tolerance: float, ratio: float) -> None:
    reference = np.tile([0, ratio * tolerance, -1e9], (rows, 1))
    assert count_flips(reference, reference[:, [1, 0, 2]], tolerance) == (rows, 0)


@given(st.integers(1, 20), st.floats(1e-6, 10), st.floats(0.01, 1.99))
def test_a_flip_over_less_is_rounding(rows: int, tolerance: float, ratio: float) -> None:
    reference = np.tile([0, ratio * tolerance, -1e9], (rows, 1))
    assert count_flips(reference, reference[:, [1, 0, 2]], tolerance) == (0, rows)


@given(st.integers(1, 30), st.integers(1, 40))
def test_batches_cover_every_image_once_in_order(count: int, size: int) -> None:
    images = np.arange(count)
    assert np.array_equal(batched(lambda some: some, images, size), images)


def test_the_same_function_passes_with_the_accuracy_of_its_labels() -> None:
    result = parity("cpu", REFERENCE, linear, IMAGES, LABELS)
    assert result.passed
    assert (result.flips, result.rounding_flips, result.images) == (0, 0, 300)
    assert result.torch_accuracy == result.onnx_accuracy == np.mean(REFERENCE.argmax(1) == LABELS)
    assert result.tolerance == pytest.approx(RELATIVE_TOLERANCE * max(1, np.abs(REFERENCE).max()))
    assert {1, 2, 7, 64} <= set(result.batch_sizes)


def broken(change: Logits) -> Logits:
    return lambda images: change(linear(images).copy())


@pytest.mark.parametrize(
    "onnx",
    [
        broken(lambda found: found[:, ::-1]),
        broken(lambda found: found * 1.001),
        broken(lambda found: found + 0.001),  # no class changes, yet it is another network
        lambda images: linear(images) * (2 if len(images) == 1 else 1),
        lambda images: linear(images) + (0.01 if len(images) == 7 else 0),
    ],
    ids=["classes swapped", "scaled", "shifted", "other at batch 1", "other at batch 7"],
)
def test_another_function_does_not_pass(onnx: Logits) -> None:
    assert not parity("cpu", REFERENCE, onnx, IMAGES, LABELS).passed


def test_images_that_change_class_are_counted() -> None:
    def one_wrong(images: np.ndarray) -> np.ndarray:
        found = linear(images)
        if np.array_equal(images[0], IMAGES[0]) and len(images) == 256:
            found[0, REFERENCE[0].argmin()] = 1000
        return found

    assert parity("cpu", REFERENCE, one_wrong, IMAGES, LABELS).flips == 1


@pytest.mark.parametrize("size", [2, 64, 256])
def test_a_graph_fixed_to_one_batch_size_is_caught(size: int) -> None:
    def fixed(images: np.ndarray) -> np.ndarray:
        if len(images) != size:
            raise RuntimeError(f"Got invalid dimensions: Got: {len(images)} Expected: {size}\nmore")
        return linear(images)

    with pytest.raises(CnnbenchError, match=r"does not run with a batch of .*Got invalid dimensions") as caught:
        parity("cpu", REFERENCE, fixed, IMAGES, LABELS)
    assert caught.value.code == Exit.VERDICT
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("size", [1, 44])  # 44 are left over at the end of 300 in steps of 256
def test_logits_that_are_not_finite_are_caught(value: float, size: int) -> None:
    def poisoned(images: np.ndarray) -> np.ndarray:
        found = linear(images)
        found[-1, 0] = value if len(images) == size else found[-1, 0]
        return found

    with pytest.raises(CnnbenchError, match="not finite") as caught:
        parity("cpu", REFERENCE, poisoned, IMAGES, LABELS)
    assert caught.value.code == Exit.VERDICT


def test_a_network_that_is_not_finite_itself_does_not_pass() -> None:
    reference = REFERENCE.copy()
    reference[5, 1] = np.nan
    assert not parity("cpu", reference, linear, IMAGES, LABELS).passed


@pytest.mark.parametrize(
    "onnx",
    [lambda images: linear(images)[:, :2], lambda images: linear(images)[:1], lambda images: linear(images)[:, None]],
    ids=["a class too few", "one row a batch", "an axis too many"],
)
def test_logits_of_another_shape_are_caught(onnx: Logits) -> None:
    with pytest.raises(CnnbenchError) as caught:
        parity("cpu", REFERENCE, onnx, IMAGES, LABELS)
    assert caught.value.code == Exit.VERDICT


def test_a_batch_that_loses_rows_is_caught() -> None:
    with pytest.raises(CnnbenchError, match="batch of 7"):
        parity("cpu", REFERENCE, lambda i: linear(i)[: 1 if len(i) == 7 else None], IMAGES, LABELS)


def test_the_batch_sizes_include_one_a_prime_and_a_usual_one() -> None:
    assert set(BATCH_SIZES) >= {1, 2, 7, 64}
