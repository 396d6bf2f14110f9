"""Answering only where the network is sure: thresholds chosen on validation images, and what they leave unanswered."""

from __future__ import annotations

import numpy as np

from cnnbench.records.bundle import Answered

STEPS = 10_000
"""Thresholds that are tried: 0, 1 / STEPS, ... 1. predict.py prints as many digits."""
LEAST_ANSWERED = 30
"""Images below which the accuracy of the answered ones says little."""
LEVELS = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""Accuracies that may be asked of the answered images."""


def threshold_for(probabilities: np.ndarray, labels: np.ndarray, *, level: float) -> float | None:
    """The smallest threshold at which the answered images are right as often as asked; None where none answers enough.

    An image is answered where the probability of its likeliest class is at least the threshold (Geifman and El-Yaniv
    2017, arXiv:1705.08500, without their bound).

    Args:
        probabilities: `(N, K)`.
        labels: `(N,)`.
        level: Share of the answered images that must be right.
    """
    sure = probabilities.max(axis=1)
    order = np.argsort(sure, kind="stable")
    right = (probabilities.argmax(axis=1) == labels)[order]
    thresholds = np.arange(STEPS + 1) / STEPS
    unanswered = np.searchsorted(sure[order], thresholds, side="left")
    correct = right.sum() - np.concatenate([[0], right.cumsum()])[unanswered]
    answered = len(labels) - unanswered
    enough = (answered >= LEAST_ANSWERED) & (correct >= level * answered)
    return float(thresholds[enough.argmax()]) if enough.any() else None


def answered(probabilities: np.ndarray, labels: np.ndarray, *, threshold: float) -> Answered:
    """How many images `(N, K)`, `(N,)` are answered at a threshold, and how many of these rightly."""
    sure = probabilities.max(axis=1) >= threshold
    right = probabilities.argmax(axis=1) == labels
    return Answered(int(sure.sum()), int((sure & right).sum()))
