"""What the per-image predictions of a run say: which classes are confused, and whether confidence can be believed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnbench.types import CnnbenchError, Exit

BINS = 15  # as in Guo et al. 2017


@dataclass(frozen=True)
class Predictions:
    """`predictions.parquet` of a run: N test images in the order of their split, K classes."""

    index: np.ndarray
    """`(N,)`: 0 to N - 1."""
    labels: np.ndarray
    """`(N,)`"""
    predictions: np.ndarray
    """`(N,)`"""
    probabilities: np.ndarray
    """`(N, K)`: softmax of the logits."""

    @property
    def correct(self) -> np.ndarray:
        """`(N,)` bool."""
        found: np.ndarray = self.predictions == self.labels
        return found


def read_predictions(path: Path) -> Predictions:
    """What `cnnbench test` left beside a run's result.

    Raises:
        CnnbenchError: The file is missing, damaged, or holds something else (exit 3).
    """
    import pyarrow.parquet as pq

    if not path.is_file():
        raise CnnbenchError(f"{path} is missing: run `cnnbench test` where the run is", Exit.DATA)
    names = ("index", "label", "prediction", "probabilities")
    try:
        table = pq.read_table(path, columns=list(names))
        index, labels, predictions = (table[name].to_numpy().astype(np.int64, casting="safe") for name in names[:3])
        flat = table["probabilities"].combine_chunks().flatten().to_numpy()
        found = Predictions(index, labels, predictions, flat.reshape(len(index), -1))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # pyarrow's errors derive from these
        reason = " ".join(str(error).strip("'\"").split())
        raise CnnbenchError(f"{path} cannot be read: {reason}; run `cnnbench test` again", Exit.DATA) from None
    wrong = _wrong(found)
    if wrong:
        raise CnnbenchError(f"{path} holds {wrong}; run `cnnbench test` again", Exit.DATA)
    return found


def _wrong(found: Predictions) -> str:
    """What cannot be of a network's predictions; empty where nothing is."""
    count, classes = found.probabilities.shape
    if not count or not np.array_equal(found.index, np.arange(count)):
        return "other images than 0, 1, 2, ... in this order"
    for name, values in (("labels", found.labels), ("predictions", found.predictions)):
        if values.min() < 0 or values.max() >= classes:
            return f"{name} from {values.min()} to {values.max()}, but {classes} probabilities an image"
    if not np.allclose(found.probabilities.sum(axis=1), 1, rtol=0, atol=1e-3) or found.probabilities.min() < 0:
        return "probabilities that are negative, not numbers, or do not add up to 1"
    if not np.array_equal(found.probabilities.max(axis=1), found.probabilities[found.index, found.predictions]):
        return "predictions that are not the class of the highest probability"
    return ""


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """`(classes, classes)` counts: row the true class, column the predicted one. Arguments `(N,)` in [0, classes)."""
    flat = np.bincount(labels * classes + predictions, minlength=classes * classes)
    return flat.reshape(classes, classes)


def per_class_accuracy(counts: np.ndarray) -> np.ndarray:
    """`(classes,)` fractions from a confusion matrix; nan for a class without images."""
    images = counts.sum(axis=1)
    found: np.ndarray = np.divide(counts.diagonal(), images, out=np.full(len(counts), np.nan), where=images > 0)
    return found


@dataclass(frozen=True)
class Reliability:
    """Images by their confidence, the probability of the predicted class. All arrays are `(bins,)`.

    Bin m of M holds confidences in ((m - 1) / M, m / M], as in Guo et al. 2017, so that a confidence on an edge counts
    below it. An empty bin has nan for confidence and accuracy.
    """

    confidence: np.ndarray
    """Mean of the bin's images."""
    accuracy: np.ndarray
    counts: np.ndarray


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Accuracy against confidence: `probabilities` `(N, K)`, `labels` `(N,)`; of equal ones the first class counts.

    Raises:
        ValueError: There are no bins.
    """
    if bins < 1:
        raise ValueError(f"{bins} bins: expected at least 1")
    confidence = probabilities.max(axis=1).astype(np.float64)
    place = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    counts = np.bincount(place, minlength=bins)
    sums = [
        np.bincount(place, weights=values, minlength=bins)
        for values in (confidence, probabilities.argmax(axis=1) == labels)
    ]
    means = [np.divide(total, counts, out=np.full(bins, np.nan), where=counts > 0) for total in sums]
    return Reliability(means[0], means[1], counts)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Mean over images of how far their bin's accuracy is from its confidence, in [0, 1]; empty bins count nothing.

    Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, 2017 (arXiv:1706.04599), equation 3.
    """
    found = reliability(probabilities, labels, bins)
    gaps = np.abs(found.accuracy - found.confidence)
    return float(np.nansum(gaps * found.counts) / found.counts.sum())


def confident_mistakes(probabilities: np.ndarray, labels: np.ndarray, count: int = 10) -> np.ndarray:
    """Places of up to `count` wrongly predicted images, the most confident first; of equal ones the earlier image.

    Shapes: `(N, K)` and `(N,)` -> `(M,)`, M at most `count`.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return wrong[order][:count]
