"""Thresholds for unknown images are the smallest that reach the accuracy, on any probabilities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.analysis.selective import LEAST_ANSWERED, STEPS, answered, threshold_for


def drawn(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of three classes with repeated values, the more certain ones more often right."""
    random = np.random.RandomState(seed)
    probabilities = random.dirichlet([0.4] * 3, count).round(2)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    right = random.uniform(size=count) < probabilities.max(axis=1)
    return probabilities, np.where(right, probabilities.argmax(axis=1), random.randint(0, 3, count))


@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.sampled_from([0.5, 0.8, 0.9, 0.99]))
def test_it_is_the_first_of_all_that_are_tried(seed: int, count: int, level: float) -> None:
    probabilities, labels = drawn(seed, count)
    expected = None
    for threshold in np.arange(STEPS + 1)[:: STEPS // 200] / STEPS:  # one by one, coarsely
        kept = probabilities.max(axis=1) >= threshold
        right = (probabilities.argmax(axis=1) == labels)[kept]
        if kept.sum() >= LEAST_ANSWERED and right.sum() >= level * kept.sum():
            expected = float(threshold)
            break
    found = threshold_for(probabilities, labels, level=level)
    assert found is not None or expected is None
    if expected is not None:
        assert found is not None
        assert found <= expected
    if found is not None:
        here = answered(probabilities, labels, threshold=found)
        assert here.images >= LEAST_ANSWERED
        assert here.correct >= level * here.images
        if found > 0:  # a step less answers more, and too many of these wrongly
            below = answered(probabilities, labels, threshold=(round(found * STEPS) - 1) / STEPS)
            assert below.correct < level * below.images


def test_answered_images_are_those_of_predict_py() -> None:
    """predict.py says unknown below the threshold, so that an image at the threshold is answered."""
    probabilities = np.array([[0.75, 0.25], [0.5, 0.5], [0.1, 0.9]])
    found = answered(probabilities, np.array([1, 0, 1]), threshold=0.75)
    assert (found.images, found.correct) == (2, 1)


def test_a_network_that_is_never_right_has_none() -> None:
    probabilities = np.repeat([[0.9, 0.1]], 50, axis=0)
    assert threshold_for(probabilities, np.ones(50, int), level=0.9) is None
    assert threshold_for(probabilities, np.zeros(50, int), level=0.9) == pytest.approx(0)
    assert threshold_for(probabilities[:29], np.zeros(29, int), level=0.9) is None
