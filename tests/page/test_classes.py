"""Tables by class: their figures are counts of the predictions, and every mistake has its file."""

from pathlib import Path
from typing import Any

import builders as made
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pages import NASTY, Report
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.analysis.confidence import Predictions
from cnnbench.page import classes
from cnnbench.training.predictions import write_predictions
from cnnbench.types import ImageSpec

NAMES = ("common", "rare", "odd")
LABELS = np.repeat([0, 1, 2], [80, 15, 5])
ANSWERS = np.concatenate([np.repeat([0, 2], [78, 2]), np.repeat([0, 1], [9, 6]), np.repeat([0, 2], [1, 4])])
SURE = np.linspace(0.6, 0.9, len(LABELS))


def predicted(files: tuple[str, ...] = ()) -> Predictions:
    probabilities = np.repeat(((1 - SURE) / 2)[:, None], 3, axis=1)
    probabilities[np.arange(len(LABELS)), ANSWERS] = SURE
    return Predictions(np.arange(len(LABELS)), LABELS, ANSWERS, probabilities, files)


def rows(table: Any) -> list[dict[str, Any]]:
    return [{column.key: column.value(row) for column in table.columns} for row in table.rows]


def test_recalls_are_listed_from_the_lowest_under_the_constant_answer() -> None:
    block = classes.recall_block("net", predicted(), classes=NAMES, heading="h")
    balanced = 100 * balanced_accuracy_score(LABELS, ANSWERS)
    f1 = 100 * f1_score(LABELS, ANSWERS, average="macro")
    assert block.notes == [
        "Always answering common would be right on 80.00 % of the test images. The best seed of net alone: "
        f"balanced accuracy {balanced:.2f} %, macro F1 {f1:.2f} %."
    ]
    assert block.table is not None
    first, *others = rows(block.table)
    ends = binomtest(6, 15).proportion_ci(method="wilson")
    interval = f"{100 * ends.low:.2f} to {100 * ends.high:.2f}"
    assert first == {"class": "rare", "images": 15, "correct": 6, "recall": 0.4, "interval": interval, "predicted": 6}
    assert [row["class"] for row in others] == ["odd", "common"]


def test_confusions_are_listed_from_the_largest() -> None:
    matrix = confusion_matrix(LABELS, ANSWERS)
    found = rows(classes.confusion_table("net", predicted(), classes=NAMES))
    assert [(row["true"], row["predicted"], row["count"]) for row in found] == [
        ("rare", "common", matrix[1, 0]),
        ("common", "odd", matrix[0, 2]),
        ("odd", "common", matrix[2, 0]),
    ]
    assert [row["share"] for row in found] == [9 / 15, 2 / 80, 1 / 5]


def test_mistakes_have_their_files_the_most_confident_first() -> None:
    files = tuple(f"test/{NAMES[label]}/{place}.png" for place, label in enumerate(LABELS))
    block = classes.review_block("net", predicted(files), classes=NAMES)
    assert block is not None
    assert block.table is not None
    wrong = np.flatnonzero(LABELS != ANSWERS)[::-1]  # later images are more certain
    found = rows(block.table)
    assert [row["file"] for row in found] == [files[place] for place in wrong]
    expected = {"file": "test/odd/95.png", "true": "odd", "predicted": "common", "probability": SURE[95]}
    assert found[0] == expected
    unnamed = classes.review_block("net", predicted(), classes=NAMES)
    assert unnamed is not None
    assert unnamed.table is not None
    assert rows(unnamed.table)[0]["file"] == "test image 95"


def test_a_network_without_mistakes_has_none_to_review() -> None:
    right = predicted()
    assert (
        classes.review_block("net", Predictions(right.index, ANSWERS, ANSWERS, right.probabilities), classes=NAMES)
        is None
    )


def write_hundred(folder: Path) -> None:
    """Predictions of 100 classes with names, two of which are confused."""
    labels = np.arange(200) % 100
    answers = np.where(labels == 7, 8, labels)
    logits = torch.zeros(200, 100)
    logits[torch.arange(200), torch.from_numpy(answers)] = 5.0
    columns = torch.from_numpy(np.stack([np.arange(200), labels, answers], axis=1)).float()
    path = folder / "predictions.parquet"
    write_predictions(path, torch.cat([columns, logits], dim=1))
    table = pq.read_table(path)
    if "file" not in table.column_names:
        table = table.append_column("file", pa.array([f"test/{NASTY}/{place}" for place in range(200)]))
    pq.write_table(table, path)


def test_a_hundred_classes_have_tables_in_the_place_of_a_matrix() -> None:
    names = tuple(f"kind {place}" for place in range(100))
    test = records.replace(made.scored(99, "c"), images=200, correct=198)
    record = made.run_record(test=test, spec=ImageSpec(8, 8, 1, 100), class_names=names)
    write_hundred(made.write_run(record))
    assert main(["report", "runs"]) == 0
    said = Report(Path("report.html")).said["mistakes"]
    assert "Largest confusions of a" in said
    assert "kind 7" in said
    assert f"test/{NASTY}/107" in said  # as text
    assert "Always answering kind 0 would be right on 1.00 %" in said
