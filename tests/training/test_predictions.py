"""predictions.parquet: the rows are those that were scored, and the logits are the network's."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.datasets.choice import open_recorded
from cnnbench.records.schema import RunRecord
from cnnbench.training import predictions
from cnnbench.training.checkpoints import load_classifier
from cnnbench.types import CnnbenchError, Exit


def test_result_counts_every_test_image_and_matches_the_stored_predictions(run: Path) -> None:
    record = records.read(run / "result.json", RunRecord)
    table = pq.read_table(run / "predictions.parquet").to_pydict()
    test = open_recorded(record.data).test
    assert table["index"] == list(range(500))
    assert table["label"] == test.labels.tolist()
    correct = sum(a == b for a, b in zip(table["label"], table["prediction"], strict=True))
    assert record.test is not None
    assert (record.test.images, record.test.correct, record.test.accuracy) == (500, correct, correct / 500)
    for prediction, probabilities in zip(table["prediction"], table["probabilities"], strict=True):
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert probabilities[prediction] == max(probabilities)


def test_the_logits_that_test_left_are_the_networks_and_give_the_probabilities(run: Path) -> None:
    record = records.read(run / "result.json", RunRecord)
    logits = predictions.tested_logits(run / "best.ckpt", record)
    assert logits is not None
    test = open_recorded(record.data).test
    with torch.inference_mode():
        planes = torch.from_numpy(test.images).permute(0, 3, 1, 2).float() / 255
        expected = load_classifier(run / "best.ckpt")(planes).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)
    table = pq.read_table(run / "predictions.parquet").to_pydict()
    np.testing.assert_allclose(table["probabilities"], torch.from_numpy(expected).softmax(1), rtol=0, atol=1e-6)


def test_there_are_no_tested_logits_of_another_checkpoint_or_precision_or_without_the_file(
    run: Path, tmp_path: Path
) -> None:
    mine = Path(shutil.copytree(run, tmp_path / "run"))
    record = records.read(mine / "result.json", RunRecord)
    assert record.test is not None
    assert predictions.tested_logits(mine / "last.ckpt", record) is None
    assert predictions.tested_logits(mine / "best.ckpt", records.replace(record, test=None)) is None
    lower = records.replace(record, test=records.replace(record.test, logits_sha256=None))
    assert predictions.tested_logits(mine / "best.ckpt", lower) is None
    (mine / "predictions.parquet").unlink()
    assert predictions.tested_logits(mine / "best.ckpt", record) is None


@pytest.mark.parametrize(("precision", "kept"), [("bf16-mixed", True), ("bf16-true", False)])
def test_mixed_precision_is_scored_in_float32_and_weights_in_bfloat16_leave_no_logits(
    run: Path, tmp_path: Path, precision: str, kept: bool
) -> None:
    before = records.read(run / "result.json", RunRecord).test
    assert before is not None
    folder = tmp_path / "runs" / "mnist5k_lenet5" / "seed1"
    shutil.copytree(run, folder)
    arguments = ["--model.arch", "lenet5", "--runs-dir", str(tmp_path / "runs"), "--trainer.precision", precision]
    assert main(["test", *arguments]) == 0
    record = records.read(folder / "result.json", RunRecord)
    assert record.test is not None
    assert record.test.logits_sha256 == (before.logits_sha256 if kept else None)


@pytest.mark.parametrize("damage", ["edited", "truncated", "other columns"])
def test_tested_logits_that_were_not_the_scored_ones_are_refused(damage: str, run: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(run, tmp_path / "run"))
    file = mine / "predictions.parquet"
    table = pq.read_table(file)
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "other columns":
        pq.write_table(table.drop_columns("logits"), file)
    else:
        pq.write_table(table.take([1, 0, *range(2, len(table))]), file)
    with pytest.raises(CnnbenchError, match="run `cnnbench test` again") as caught:
        predictions.tested_logits(mine / "best.ckpt", records.read(mine / "result.json", RunRecord))
    assert caught.value.code == Exit.DATA
    assert "\n" not in str(caught.value)


def test_fit_keeps_what_the_best_checkpoint_answers_for_the_validation_images(run: Path) -> None:
    record = records.read(run / "result.json", RunRecord)
    table = pq.read_table(run / "val_predictions.parquet").to_pydict()
    val = open_recorded(record.data).val
    with torch.inference_mode():
        planes = torch.from_numpy(val.images).permute(0, 3, 1, 2).float() / 255
        expected = load_classifier(run / "best.ckpt")(planes)
    np.testing.assert_allclose(table["logits"], expected.numpy(), rtol=0, atol=1e-5)
    assert table["index"] == list(range(500))
    assert table["label"] == val.labels.tolist()
    right = int((expected.argmax(1).numpy() == val.labels).sum())
    assert record.val is not None
    assert (record.val.images, record.val.correct) == (500, right)
    assert record.fit.val_accuracy == right / 500
    assert record.val.checkpoint_sha256 == records.sha256(run / "best.ckpt")


def test_a_run_without_them_gets_them_when_it_is_tested(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "mnist5k_lenet5" / "seed1"
    shutil.copytree(run, folder)
    (folder / "val_predictions.parquet").unlink()
    before = records.read(folder / "result.json", RunRecord)
    records.write(folder / "result.json", records.replace(before, val=None))
    assert main(["test", "--model.arch", "lenet5", "--runs-dir", str(tmp_path / "runs")]) == 0
    after = records.read(folder / "result.json", RunRecord)
    assert after.test
    assert before.test
    assert after.test.loss == pytest.approx(before.test.loss, rel=1e-6)  # its sum depends on the number of threads
    assert records.replace(after, test=records.replace(after.test, loss=before.test.loss)) == before
    assert pq.read_table(folder / "val_predictions.parquet") == pq.read_table(run / "val_predictions.parquet")


def test_a_part_of_the_validation_images_is_not_kept() -> None:
    arguments = ["--model.arch", "linear", "--data.train_images", "400", "--trainer.max_epochs", "1"]
    assert main(["fit", *arguments, "--trainer.limit_val_batches", "1"]) == 0
    folder = Path("runs/mnist5k_linear/seed1")
    assert records.read(folder / "result.json", RunRecord).val is None  # 250 of 500
    assert not (folder / "val_predictions.parquet").exists()
