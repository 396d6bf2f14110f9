"""The calibration error with what a calibrated network would show, and an interval. See docs/statistics.md."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnnbench.analysis.confidence import BINS, Reliability, reliability
from cnnbench.types import SEED

REPLICATES = 1000
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class CalibrationError:
    """The expected calibration error of one trained network, in [0, 1]; its interval is for new images."""

    error: float
    low: float
    """End of the 95 % interval: 0 where a calibrated network may show this error."""
    high: float
    null_mean: float
    """Mean error of a calibrated network with these confidences: it is above 0, since bins hold few images."""
    null_high: float
    """What such a network exceeds in 5 %."""
    p: float
    """How often such a network shows at least this error."""


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = BINS) -> CalibrationError:
    """The expected calibration error (Guo et al. 2017) with its null distribution and a bootstrap interval.

    The null distribution draws as many right answers in each bin as its confidence gives (consistency resampling,
    Broecker and Smith 2007, doi:10.1175/WAF993.1). The interval is the hull of the percentile and the basic bootstrap
    over images: the first is too high, since resampling adds to the error what noise adds, the second takes that off
    twice where the error is small. All draws are of counts in bins and start from `types.SEED`.

    Args:
        probabilities: `(N, K)`.
        labels: `(N,)`.
        bins: Bins of equal width.
    """
    found = reliability(probabilities, labels, bins=bins)
    used = found.counts > 0
    found = Reliability(found.confidence[used], found.accuracy[used], found.counts[used])
    images = int(found.counts.sum())
    error = float(np.abs(found.accuracy - found.confidence) @ found.counts) / images
    random = np.random.RandomState(SEED)  # its stream is frozen (NEP 19)
    null = _errors(random, np.broadcast_to(found.counts, (REPLICATES, len(found.counts))), found, found.confidence)
    p = (1 + int((null >= error - 1e-12).sum())) / (1 + REPLICATES)
    drawn = _errors(random, random.multinomial(images, found.counts / images, REPLICATES), found, found.accuracy)
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return CalibrationError(
        error=error,
        low=0.0 if p >= SIGNIFICANCE else max(min(low, 2 * error - high), 0.0),
        high=max(high, 2 * error - low),
        null_mean=float(null.mean()),
        null_high=float(np.quantile(null, 1 - SIGNIFICANCE)),
        p=p,
    )


def _errors(random: np.random.RandomState, counts: np.ndarray, bins: Reliability, share: np.ndarray) -> np.ndarray:
    """`(R,)` errors of replicates with `counts` `(R, B)` images in the bins, of which `share` `(B,)` are right."""
    right = random.binomial(counts, np.clip(share, 0, 1))
    errors: np.ndarray = np.abs(right - counts * bins.confidence).sum(axis=1) / counts.sum(axis=1)
    return errors
