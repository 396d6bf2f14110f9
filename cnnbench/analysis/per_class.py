"""Figures of a split by class: whether a network is better than one that looks at no image, and at which classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from cnnbench.analysis.statistics import Interval, proportion_interval
from cnnbench.records.schema import ClassTally


def tally(labels: np.ndarray, predictions: np.ndarray, *, classes: int) -> ClassTally:
    """Images by class. Arguments are `(N,)` in [0, classes)."""
    right = labels == predictions
    counted = (np.bincount(values, minlength=classes) for values in (labels, labels[right], predictions))
    images, correct, predicted = (tuple(counts.tolist()) for counts in counted)
    return ClassTally(images=images, correct=correct, predicted=predicted)


@dataclass(frozen=True)
class Recall:
    """The share of a class that is classified correctly, with its 95 % interval for new images of the class."""

    label: int
    correct: int
    images: int
    share: float
    interval: Interval


def recalls(counts: ClassTally) -> list[Recall]:
    """Recalls of every class with images, in the order of the labels."""
    return [
        Recall(label, correct, images, correct / images, proportion_interval(correct / images, images))
        for label, (correct, images) in enumerate(zip(counts.correct, counts.images, strict=True))
        if images
    ]


def majority(counts: ClassTally) -> tuple[int, float]:
    """The largest class, the first of equals, and its share: the accuracy of always answering it.

    No other constant answer is right more often on these images.
    """
    most = max(counts.images)
    return counts.images.index(most), most / sum(counts.images)


def beats_majority(counts: ClassTally) -> bool:
    """Whether the 95 % interval of the accuracy lies above what always answering the largest class scores."""
    images = sum(counts.images)
    return proportion_interval(sum(counts.correct) / images, images).low > majority(counts)[1]


def balanced_accuracy(counts: ClassTally) -> float:
    """Mean recall of the classes with images (Brodersen et al. 2010, doi:10.1109/ICPR.2010.764).

    Always answering one of K classes gives 1 / K, whatever their sizes.
    """
    return fmean(recall.share for recall in recalls(counts))


def macro_f1(counts: ClassTally) -> float:
    """Mean over classes of the harmonic mean of precision and recall; without images and answers a class is left out.

    With c right answers, n images and p answers of a class it is 2c / (n + p).
    """
    classes = zip(counts.correct, counts.images, counts.predicted, strict=True)
    return fmean(2 * correct / (images + answers) for correct, images, answers in classes if images + answers)


def class_name(names: Sequence[str], label: int) -> str:
    """The name of a class; its number where the names are not known."""
    return names[label] if label < len(names) else f"class {label}"
