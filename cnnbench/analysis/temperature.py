"""Temperature scaling: one number, fitted on validation logits, that makes probabilities as sure as they are right."""

from __future__ import annotations

import numpy as np

SMALLEST, LARGEST = 1 / 16, 16.0
"""Temperatures that are tried. Where every validation image is right, the likelihood asks for 0."""


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T of which softmax(logits / T) gives the labels the highest likelihood, a float32 number.

    Guo, Pleiss, Sun, Weinberger 2017 (arXiv:1706.04599), section 4.2. The likelihood is convex in 1 / T.

    Args:
        logits: `(N, K)` of validation images.
        labels: `(N,)`.

    Raises:
        ValueError: There are no images.
    """
    if not len(logits):
        raise ValueError("no images: expected logits (N, K) with N of at least 1")
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    wide, rows = logits.astype(np.float64), np.arange(len(labels))

    def loss(scale: float) -> float:
        return -float(log_softmax(wide * scale, axis=1)[rows, labels].mean())

    found = minimize_scalar(loss, bounds=(1 / LARGEST, 1 / SMALLEST), method="bounded", options={"xatol": 1e-8})
    return float(np.float32(1 / found.x))


def scaled_softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """softmax(logits / T) of each row: `(N, K)` -> `(N, K)` float64."""
    from scipy.special import softmax

    probabilities: np.ndarray = softmax(logits.astype(np.float64) / temperature, axis=1)
    return probabilities
