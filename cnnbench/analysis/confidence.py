"""Figures from the per-image predictions of a run: confused classes, and whether confidence matches accuracy."""

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
    files: tuple[str, ...] = ()
    """Name of each image's file, N of them; empty where the images lie in no files."""

    @property
    def correct(self) -> np.ndarray:
        """`(N,)` bool."""
        correct: np.ndarray = self.predictions == self.labels
        return correct


def read_predictions(path: Path) -> Predictions:
    """The predictions that `cnnbench test` wrote beside a run's result.

    Raises:
        CnnbenchError: The file is missing, no regular file, damaged, or holds something else (exit 3).
    """
    import pyarrow.parquet as pq

    if not path.is_file():
        state = "is not a file" if path.exists() else "is missing"
        raise CnnbenchError(f"{path} {state}: run `cnnbench test` where the run is", Exit.DATA)
    names = ("index", "label", "prediction", "probabilities")
    try:
        named = "file" in pq.read_schema(path).names
        table = pq.read_table(path, columns=[*names, *["file"] * named])
        index, labels, predictions = (table[name].to_numpy().astype(np.int64, casting="safe") for name in names[:3])
        flat = table["probabilities"].combine_chunks().flatten().to_numpy()
        files = tuple(table["file"].to_pylist()) if named else ()
        result = Predictions(index, labels, predictions, flat.reshape(len(index), -1), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # pyarrow's errors derive from these
        reason = " ".join(str(error).strip("'\"").split())
        raise CnnbenchError(f"{path} cannot be read: {reason}; run `cnnbench test` again", Exit.DATA) from None
    fault = _fault(result)
    if fault:
        raise CnnbenchError(f"{path} holds {fault}; run `cnnbench test` again", Exit.DATA)
    return result


def _fault(result: Predictions) -> str:
    """Why these cannot be the predictions of a network over a split; empty if they can."""
    count, classes = result.probabilities.shape
    if not count or not np.array_equal(result.index, np.arange(count)):
        return "other images than 0, 1, 2, ... in this order"
    for name, values in (("labels", result.labels), ("predictions", result.predictions)):
        if values.min() < 0 or values.max() >= classes:
            return f"{name} from {values.min()} to {values.max()}, but {classes} probabilities per image"
    if not np.allclose(result.probabilities.sum(axis=1), 1, rtol=0, atol=1e-3) or result.probabilities.min() < 0:
        return "probabilities that are negative, not numbers, or do not add up to 1"
    if not np.array_equal(result.probabilities.max(axis=1), result.probabilities[result.index, result.predictions]):
        return "predictions that are not the class of the highest probability"
    return ""


def confusion(labels: np.ndarray, predictions: np.ndarray, *, classes: int) -> np.ndarray:
    """`(classes, classes)` counts: row the true class, column the predicted one. Arguments `(N,)` in [0, classes)."""
    flat = np.bincount(labels * classes + predictions, minlength=classes * classes)
    return flat.reshape(classes, classes)


def per_class_accuracy(counts: np.ndarray) -> np.ndarray:
    """`(classes,)` fractions from a confusion matrix; nan for a class without images."""
    images = counts.sum(axis=1)
    accuracies: np.ndarray = np.divide(counts.diagonal(), images, out=np.full(len(counts), np.nan), where=images > 0)
    return accuracies


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


def reliability(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = BINS) -> Reliability:
    """Accuracy against confidence: `probabilities` `(N, K)`, `labels` `(N,)`.

    Among equal probabilities the first class is the prediction.

    Raises:
        ValueError: There are no bins.
    """
    if bins < 1:
        raise ValueError(f"{bins} bins: expected at least 1")
    confidence = probabilities.max(axis=1).astype(np.float64)
    bin_index = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    counts = np.bincount(bin_index, minlength=bins)
    sums = [
        np.bincount(bin_index, weights=values, minlength=bins)
        for values in (confidence, probabilities.argmax(axis=1) == labels)
    ]
    means = [np.divide(total, counts, out=np.full(bins, np.nan), where=counts > 0) for total in sums]
    return Reliability(means[0], means[1], counts)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = BINS) -> float:
    """Mean over images of the distance between their bin's accuracy and confidence, in [0, 1].

    Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, 2017 (arXiv:1706.04599), equation 3.
    """
    result = reliability(probabilities, labels, bins=bins)
    gaps = np.abs(result.accuracy - result.confidence)
    return float(np.nansum(gaps * result.counts) / result.counts.sum())


def confident_mistakes(probabilities: np.ndarray, labels: np.ndarray, *, count: int = 10) -> np.ndarray:
    """Indices of up to `count` wrongly predicted images, the most confident first; ties in the order of the images.

    Shapes: `(N, K)` and `(N,)` -> `(M,)`, M at most `count`.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return wrong[order][:count]
