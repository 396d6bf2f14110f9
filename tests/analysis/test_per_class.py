"""Figures by class agree with scikit-learn, and say what a constant answer is worth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score

from cnnbench import records
from cnnbench.analysis.per_class import (
    balanced_accuracy,
    beats_majority,
    class_name,
    macro_f1,
    majority,
    recalls,
    tally,
)
from cnnbench.types import CnnbenchError


def drawn(seed: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which low classes are frequent, and answers that are right half the time."""
    random = np.random.RandomState(seed)
    labels = np.minimum(random.geometric(0.4, count) - 1, classes - 1)
    return labels, np.where(random.uniform(size=count) < 0.5, labels, random.randint(0, classes, count))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.integers(2, 12))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_figures_are_scikit_learn_s(seed: int, count: int, classes: int) -> None:
    labels, predictions = drawn(seed, count, classes)
    found = tally(labels, predictions, classes=classes)
    assert balanced_accuracy(found) == pytest.approx(balanced_accuracy_score(labels, predictions))
    assert macro_f1(found) == pytest.approx(f1_score(labels, predictions, average="macro", zero_division=0))
    present = np.unique(labels)
    expected = recall_score(labels, predictions, labels=present, average=None)
    assert [recall.label for recall in recalls(found)] == present.tolist()
    assert [recall.share for recall in recalls(found)] == pytest.approx(expected.tolist())


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.integers(2, 12))
def test_the_majority_is_the_best_constant_answer(seed: int, count: int, classes: int) -> None:
    labels, _ = drawn(seed, count, classes)
    found = tally(labels, labels, classes=classes)
    constant = DummyClassifier(strategy="most_frequent").fit(labels, labels).predict(labels)
    assert majority(found) == (constant[0], pytest.approx(accuracy_score(labels, constant)))
    assert balanced_accuracy(tally(labels, constant, classes=classes)) == pytest.approx(1 / len(np.unique(labels)))


@pytest.mark.parametrize(("right", "beats"), [(60, False), (68, False), (70, True), (100, True)])
def test_a_network_beats_the_constant_answer_where_its_whole_interval_does(right: int, beats: bool) -> None:
    labels = np.repeat([0, 1], [60, 40])
    predictions = np.where(np.arange(100) < right, labels, 1 - labels)
    assert beats_majority(tally(labels, predictions, classes=2)) is beats
    low = binomtest(right, 100).proportion_ci(method="wilson").low
    assert bool(low > 0.6) is beats


def test_the_interval_of_a_recall_is_wilson_s() -> None:
    (first, second) = recalls(tally(np.repeat([0, 1], [7, 40]), np.repeat([0, 1, 0], [5, 40, 2]), classes=2))
    assert (first.correct, first.images, second.correct, second.images) == (5, 7, 38, 40)
    for recall in (first, second):
        expected = binomtest(recall.correct, recall.images).proportion_ci(method="wilson")
        assert (recall.interval.low, recall.interval.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    "changes",
    [{"images": (3, 1)}, {"correct": (3, 1)}, {"correct": (-1, 1)}, {"predicted": (1, 1)}, {"predicted": (2, 1, 0)}],
)
def test_counts_that_cannot_be_are_refused(changes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(CnnbenchError, match="do not add up"):
        records.replace(tally(np.array([0, 0, 1]), np.array([0, 0, 1]), classes=2), **changes)


def test_a_class_has_its_name_or_its_number() -> None:
    assert (class_name(("cat", "dog"), 1), class_name((), 1)) == ("dog", "class 1")
