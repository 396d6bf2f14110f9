"""The calibration error with its null distribution and interval: known cases, and coverage in simulated ones."""

import numpy as np
import pytest
from scipy import stats

from cnnbench.analysis.calibration import CalibrationError, calibration_error
from cnnbench.analysis.confidence import expected_calibration_error, reliability


def draw(random: np.random.Generator, images: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Two classes, logits N(2.5, 1.8) in size; right as often as logits times `temperature` say."""
    logits = np.abs(random.normal(2.5, 1.8, images))
    confidence = 1 / (1 + np.exp(-logits))
    wrong = random.random(images) >= 1 / (1 + np.exp(-temperature * logits))
    return np.stack([confidence, 1 - confidence], axis=1), wrong.astype(int)


def test_the_error_is_the_usual_one_and_the_same_every_time() -> None:
    probabilities, labels = draw(np.random.default_rng(0), 700, 0.5)
    result = calibration_error(probabilities, labels)
    assert result.error == pytest.approx(expected_calibration_error(probabilities, labels))
    assert result == calibration_error(probabilities, labels)
    assert result.low < result.error < result.high


def test_of_one_bin_the_null_distribution_is_binomial() -> None:
    """400 images at 0.8: the error is the distance of Binomial(400, 0.8) / 400 from 0.8."""
    probabilities = np.array([[0.8, 0.2]] * 400)
    labels = np.repeat([0, 1], [300, 100])
    result = calibration_error(probabilities, labels)
    counts = np.arange(401)
    weights = stats.binom.pmf(counts, 400, 0.8)
    distance = np.abs(counts / 400 - 0.8)
    assert result.error == pytest.approx(0.05)
    assert result.null_mean == pytest.approx(weights @ distance, rel=0.1)
    assert result.p == pytest.approx(weights[distance >= 0.05 - 1e-9].sum(), abs=0.01)
    half = stats.norm.ppf(0.975) * (0.75 * 0.25 / 400) ** 0.5  # of the share that is right
    assert (result.low, result.high) == pytest.approx((0.05 - half, 0.05 + half), abs=0.006)


def test_an_error_that_a_calibrated_network_may_show_has_an_interval_from_0() -> None:
    random = np.random.default_rng(1)
    results = [calibration_error(*draw(random, 500, 1.0)) for _ in range(30)]
    calibrated = [result for result in results if result.p >= 0.05]
    assert len(calibrated) >= 25
    assert all(result.low == 0 < result.error < result.high for result in calibrated)


def test_certainty_that_is_always_right_has_no_error_and_none_is_expected() -> None:
    probabilities = np.eye(3)[np.arange(60) % 3]
    result = calibration_error(probabilities, np.arange(60) % 3)
    assert result == CalibrationError(0, 0, 0, 0, 0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
def test_the_interval_covers_and_a_calibrated_network_is_seldom_called_miscalibrated(temperature: float) -> None:
    random = np.random.default_rng(2)
    found = reliability(*draw(random, 2_000_000, temperature))
    truth = np.nansum(np.abs(found.accuracy - found.confidence) * found.counts) / 2_000_000
    results = [calibration_error(*draw(random, 500, temperature)) for _ in range(500)]
    assert np.mean([result.low - 1e-3 <= truth <= result.high for result in results]) >= 0.92
    if temperature == 1:
        assert np.mean([result.p < 0.05 for result in results]) <= 0.05 + 2 * (0.05 * 0.95 / 500) ** 0.5
