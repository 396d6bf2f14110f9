"""Per-image predictions: damaged files are refused, figures agree with torchmetrics and hand counts."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_confusion_matrix

from cnnbench import records
from cnnbench.analysis.confidence import (
    confident_mistakes,
    confusion,
    expected_calibration_error,
    per_class_accuracy,
    read_predictions,
    reliability,
)
from cnnbench.datasets.choice import open_recorded
from cnnbench.records.schema import RunRecord
from cnnbench.training.predictions import write_predictions
from cnnbench.types import CnnbenchError, Exit


def random_predictions(seed: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    logits = 3 * random.normal(size=(count, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), random.randint(0, classes, count)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(2, 10), st.integers(1, 20))
def test_calibration_error_is_torchmetrics(seed: int, count: int, classes: int, bins: int) -> None:
    probabilities, labels = random_predictions(seed, count, classes)
    expected = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), classes, n_bins=bins, norm="l1"
    )
    assert expected_calibration_error(probabilities, labels, bins=bins) == pytest.approx(float(expected), abs=1e-5)


def test_calibration_error_by_hand() -> None:
    """Four images at 0.9 of which three are right, six at 0.6 of which three are."""
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 6)
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 0, 0, 0])
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.4 * 0.15 + 0.6 * 0.1)


def test_certainty_that_is_always_right_is_calibrated_and_always_wrong_is_not() -> None:
    probabilities = np.eye(3)[[0, 1, 2, 1]]
    assert expected_calibration_error(probabilities, np.array([0, 1, 2, 1])) == 0
    assert expected_calibration_error(probabilities, np.array([1, 2, 0, 0])) == 1


def test_a_confidence_on_an_edge_counts_below_it_and_an_empty_bin_is_not_a_number() -> None:
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25], [0.8, 0.2], [1.0, 0.0]])
    result = reliability(probabilities, np.array([0, 0, 1, 0]), bins=4)
    assert result.counts.tolist() == [0, 1, 1, 2]
    np.testing.assert_allclose(result.confidence, [np.nan, 0.5, 0.75, 0.9])
    np.testing.assert_allclose(result.accuracy, [np.nan, 1, 1, 0.5])


def test_of_equal_probabilities_the_first_class_is_the_prediction() -> None:
    probabilities = np.array([[0.5, 0.5]])
    assert reliability(probabilities, np.array([0]), bins=1).accuracy[0] == 1
    assert reliability(probabilities, np.array([1]), bins=1).accuracy[0] == 0


def test_there_must_be_a_bin() -> None:
    with pytest.raises(ValueError, match="0 bins: expected at least 1"):
        reliability(np.ones((1, 1)), np.zeros(1, dtype=int), bins=0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.integers(1, 12))
def test_confusion_is_torchmetrics_and_its_rows_are_the_true_classes(seed: int, count: int, classes: int) -> None:
    random = np.random.RandomState(seed)
    labels, predictions = random.randint(0, classes, count), random.randint(0, classes, count)
    result = confusion(labels, predictions, classes=classes)
    if classes > 1:
        expected = multiclass_confusion_matrix(torch.from_numpy(predictions), torch.from_numpy(labels), classes)
        np.testing.assert_array_equal(result, expected.numpy())
    assert result.shape == (classes, classes)
    np.testing.assert_array_equal(result.sum(axis=1), np.bincount(labels, minlength=classes))


def test_per_class_accuracy_by_hand() -> None:
    counts = confusion(np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 2, 1]), classes=3)
    assert counts.tolist() == [[3, 1, 0], [0, 1, 1], [0, 0, 0]]
    np.testing.assert_array_equal(per_class_accuracy(counts), [0.75, 0.5, np.nan])


def test_the_most_confident_mistakes_come_first_and_of_equal_ones_the_earlier() -> None:
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.1, 0.9], [0.99, 0.01], [0.3, 0.7]])
    labels = np.array([1, 1, 0, 0, 0, 1])  # the last two are right
    assert confident_mistakes(probabilities, labels).tolist() == [1, 3, 2, 0]
    assert confident_mistakes(probabilities, labels, count=2).tolist() == [1, 3]
    assert confident_mistakes(probabilities, probabilities.argmax(axis=1)).tolist() == []


def test_written_predictions_are_read_back(tmp_path: Path) -> None:
    logits = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    rows = torch.cat([torch.stack([torch.arange(7), labels, logits.argmax(1)], dim=1).float(), logits], dim=1)
    write_predictions(tmp_path / "predictions.parquet", rows)
    result = read_predictions(tmp_path / "predictions.parquet")
    assert result.index.tolist() == list(range(7))
    assert result.labels.tolist() == labels.tolist()
    assert result.predictions.tolist() == logits.argmax(1).tolist()
    np.testing.assert_allclose(result.probabilities, logits.softmax(1).numpy(), rtol=1e-6)
    assert result.correct.tolist() == (labels == logits.argmax(1)).tolist()


def test_a_real_run_s_predictions_agree_with_its_result(run: Path) -> None:
    record = records.read(run / "result.json", RunRecord)
    result = read_predictions(run / "predictions.parquet")
    assert record.test is not None
    assert result.correct.sum() == record.test.correct
    np.testing.assert_array_equal(result.labels, open_recorded(record.data).test.labels)
    np.testing.assert_array_equal(result.probabilities.argmax(axis=1), result.predictions)


def columns(count: int = 3, classes: int = 2) -> dict[str, pa.Array]:
    """What `read_predictions` takes."""
    probabilities = np.tile(np.float32([0.75, 0.25]), count)
    return {
        "index": pa.array(np.arange(count, dtype=np.int32)),
        "label": pa.array(np.ones(count, dtype=np.int32)),
        "prediction": pa.array(np.zeros(count, dtype=np.int32)),
        "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(probabilities), classes),
    }


def lists(*rows: list[float]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.float32(rows).ravel()), len(rows[0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": pa.array([0, 2, 1])}, "other images"),
        ({"label": pa.array([0, 1, 2])}, "labels from 0 to 2, but 2 probabilities"),
        ({"prediction": pa.array([0, -1, 0])}, "predictions from -1 to 0"),
        ({"prediction": pa.array([0, 1, 0])}, "not the class of the highest probability"),
        ({"probabilities": lists([0.8, 0.3], [0.8, 0.3], [0.8, 0.3])}, "do not add up to 1"),
        ({"probabilities": lists([1.5, -0.5], [0.8, 0.2], [0.8, 0.2])}, "negative"),
        ({"probabilities": lists([np.nan, np.nan], [0.8, 0.2], [0.8, 0.2])}, "not numbers"),
        ({"probabilities": pa.array(["a", "b", "c"])}, "cannot be read"),
        ({"label": pa.array(["a", "b", "c"])}, "cannot be read"),
        ({"label": pa.array([0, None, 1])}, "cannot be read"),
        ({"label": None}, "cannot be read"),
    ],
)
def test_impossible_predictions_are_refused(change: dict[str, pa.Array], message: str, tmp_path: Path) -> None:
    content = {name: values for name, values in {**columns(), **change}.items() if values is not None}
    pq.write_table(pa.table(content), tmp_path / "predictions.parquet")
    assert message in refused(tmp_path / "predictions.parquet")


def test_the_columns_that_these_cases_change_are_valid(tmp_path: Path) -> None:
    pq.write_table(pa.table(columns()), tmp_path / "predictions.parquet")
    assert read_predictions(tmp_path / "predictions.parquet").labels.tolist() == [1, 1, 1]


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table(columns(count=0)), tmp_path / "predictions.parquet")
    assert "predictions.parquet" in refused(tmp_path / "predictions.parquet")


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "text"])
def test_a_damaged_file_is_reported_in_one_line(damage: str, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    content = bytearray((run / "predictions.parquet").read_bytes())
    if damage == "truncated":
        path.write_bytes(content[:-100])
    elif damage == "flipped":
        content[-8:-4] = b"\xff" * 4  # the length of the footer
        path.write_bytes(content)
    elif damage == "text":
        path.write_text("index,label\n")
    assert ("is missing" if damage == "missing" else "cannot be read") in refused(path)


def refused(path: Path) -> str:
    with pytest.raises(CnnbenchError, match="run `cnnbench test` ") as caught:
        read_predictions(path)
    assert caught.value.code == Exit.DATA
    assert "\n" not in str(caught.value)
    return str(caught.value)
