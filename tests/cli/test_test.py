"""What `test` prints: the accuracy, the constant answer to beat, and the classes that are recognised least."""

import builders as made
import numpy as np
from sklearn.metrics import balanced_accuracy_score, f1_score

from cnnbench import records
from cnnbench.analysis.per_class import tally
from cnnbench.cli.test import text


def test_the_text_says_what_an_accuracy_is_worth() -> None:
    labels = np.repeat([0, 1], [90, 10])
    predictions = np.repeat([0, 1, 0], [90, 2, 8])
    scored = records.replace(made.scored(92, "c"), by_class=tally(labels, predictions, classes=2))
    record = made.run_record(test=scored, class_names=("common", "rare\n"))
    first, second, third = text(record).splitlines()
    assert first.startswith("d_a seed 1: test accuracy 92.00% (92 of 100 images; ")
    balanced, f1 = balanced_accuracy_score(labels, predictions), f1_score(labels, predictions, average="macro")
    expected = f"balanced accuracy {100 * balanced:.2f} %; macro F1 {100 * f1:.2f} %"
    assert second == f"always answering common: 90.00 % (this network is not shown to be better); {expected}"
    assert third.startswith("lowest recall: rare\\n: 20.00 % (2 of 10; 5.67 to 50.98 %); common: 100.00 % (90 of 90; ")


def test_a_record_of_an_earlier_version_has_its_accuracy_alone() -> None:
    assert len(text(made.run_record()).splitlines()) == 1
