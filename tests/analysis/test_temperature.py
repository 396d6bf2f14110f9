"""Temperature scaling: the temperature that labels were drawn with is found, and is the best one."""

import numpy as np
import pytest
from scipy.special import log_softmax

from cnnbench.analysis.confidence import expected_calibration_error
from cnnbench.analysis.temperature import LARGEST, SMALLEST, fit_temperature, scaled_softmax


def drawn(temperature: float, images: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits `(N, 5)`, and labels that softmax(logits / temperature) gives."""
    random = np.random.default_rng(1)
    logits = random.normal(scale=3, size=(images, 5))
    chances = scaled_softmax(logits, temperature).cumsum(axis=1)
    return logits, (random.random((images, 1)) > chances).sum(axis=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature: float) -> None:
    logits, labels = drawn(temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    assert found == np.float32(found)

    def loss(tried: float) -> float:
        return -float(log_softmax(logits / tried, axis=1)[np.arange(len(labels)), labels].mean())

    assert loss(found) <= min(loss(found * 1.01), loss(found / 1.01))


def test_calibrated_probabilities_are_as_sure_as_they_are_right() -> None:
    logits, labels = drawn(2.5)
    before, after = (
        expected_calibration_error(scaled_softmax(logits, value), labels)
        for value in (1.0, fit_temperature(logits, labels))
    )
    assert after < 0.02 < 0.1 < before


def test_where_all_are_right_or_wrong_it_stays_within_its_bounds() -> None:
    logits = np.array([[9.0, 0.0], [0.0, 9.0]])
    assert fit_temperature(logits, np.array([0, 1])) >= SMALLEST
    assert fit_temperature(logits, np.array([1, 0])) <= LARGEST * (1 + 1e-6)


def test_without_images_there_is_none() -> None:
    with pytest.raises(ValueError, match="no images"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=int))
