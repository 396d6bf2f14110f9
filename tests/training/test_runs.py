import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.datasets import open_recorded
from cnnbench.training import runs
from cnnbench.types import CnnbenchError, Exit, RunRecord


def test_a_run_leaves_config_metrics_logs_checkpoints_result_and_predictions(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "metrics.csv", "best.ckpt", "last.ckpt", "result.json", "predictions.parquet"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert "val/accuracy" in (run / "metrics.csv").read_text().splitlines()[0]


def test_result_says_what_was_done_with_what(run: Path) -> None:
    record = records.read(run / "result.json", RunRecord)
    assert (record.task, record.arch, record.seed) == ("mnist5k_lenet5", "lenet5", 1)
    assert record.fit.epochs == 2
    assert record.fit.steps == 2 * (4000 // 128)
    assert (record.fit.train_images, record.fit.val_images, record.data["test_images"]) == (4000, 500, 500)
    assert 0 < record.fit.validation_seconds < record.fit.train_seconds
    assert record.cost.params == 61_706
    assert record.environment["packages"]["torch"].startswith("2.14")
    assert record.test is not None
    assert record.test.checkpoint_sha256 == records.sha256(run / "best.ckpt")


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
    logits = runs.tested_logits(run / "best.ckpt", record)
    assert logits is not None
    test = open_recorded(record.data).test
    with torch.inference_mode():
        planes = torch.from_numpy(test.images).permute(0, 3, 1, 2).float() / 255
        expected = runs.load_classifier(run / "best.ckpt")(planes).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)
    table = pq.read_table(run / "predictions.parquet").to_pydict()
    np.testing.assert_allclose(table["probabilities"], torch.from_numpy(expected).softmax(1), rtol=0, atol=1e-6)


def test_there_are_no_tested_logits_of_another_checkpoint_or_precision_or_without_the_file(
    run: Path, tmp_path: Path
) -> None:
    mine = Path(shutil.copytree(run, tmp_path / "run"))
    record = records.read(mine / "result.json", RunRecord)
    assert record.test is not None
    assert runs.tested_logits(mine / "last.ckpt", record) is None
    assert runs.tested_logits(mine / "best.ckpt", replace(record, test=None)) is None
    lower = replace(record, test=replace(record.test, logits_sha256=None))
    assert runs.tested_logits(mine / "best.ckpt", lower) is None
    (mine / "predictions.parquet").unlink()
    assert runs.tested_logits(mine / "best.ckpt", record) is None


def test_bfloat16_leaves_no_logits_to_hold_files_against(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "mnist5k_lenet5" / "seed1"
    shutil.copytree(run, folder)
    arguments = ["--model.arch", "lenet5", "--runs_dir", str(tmp_path / "runs"), "--trainer.precision", "bf16-mixed"]
    assert main(["test", *arguments]) == 0
    record = records.read(folder / "result.json", RunRecord)
    assert record.test is not None
    assert record.test.logits_sha256 is None


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
        runs.tested_logits(mine / "best.ckpt", records.read(mine / "result.json", RunRecord))
    assert caught.value.code == Exit.DATA
    assert "\n" not in str(caught.value)


def test_the_loaded_classifier_scores_what_the_run_recorded(run: Path) -> None:
    record = records.read(run / "result.json", RunRecord)
    test = open_recorded(record.data).test
    classifier = runs.load_classifier(run / "best.ckpt")
    with torch.inference_mode():
        logits = classifier(torch.from_numpy(test.images).permute(0, 3, 1, 2).float() / 255)
    assert record.test is not None
    assert int((logits.argmax(1).numpy() == test.labels).sum()) == record.test.correct


def test_find_takes_the_seed_with_the_best_validation_accuracy(run: Path, tmp_path: Path) -> None:
    record = records.read(run / "result.json", RunRecord)
    assert record.test is not None
    for seed, (val, test) in {1: (0.90, 0.99), 2: (0.95, 0.10), 3: (0.93, 0.50)}.items():
        folder = tmp_path / "task" / f"seed{seed}"
        folder.mkdir(parents=True)
        shutil.copyfile(run / "best.ckpt", folder / "best.ckpt")
        scored = replace(record, fit=replace(record.fit, val_accuracy=val), test=replace(record.test, accuracy=test))
        records.write(folder / "result.json", scored)
    assert runs.find(tmp_path / "task") == tmp_path / "task" / "seed2" / "best.ckpt"
    assert runs.find(tmp_path / "task" / "seed1") == tmp_path / "task" / "seed1" / "best.ckpt"


def test_find_says_what_it_expected(tmp_path: Path) -> None:
    with pytest.raises(CnnbenchError, match=r"expected a .ckpt file, or a folder that `fit` wrote") as refused:
        runs.find(tmp_path)
    assert refused.value.code == 3


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_text(path: Path) -> None:
    path.write_text("not a checkpoint")


def write_foreign(path: Path) -> None:
    torch.save({"state_dict": {}}, path)


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, write_text, write_foreign, Path.unlink])
def test_a_damaged_foreign_or_missing_checkpoint_is_refused(run: Path, tmp_path: Path, damage: object) -> None:
    path = tmp_path / "best.ckpt"
    shutil.copyfile(run / "best.ckpt", path)
    damage(path)  # type: ignore[operator]
    with pytest.raises(CnnbenchError) as refused:
        runs.open_checkpoint(path)
    assert refused.value.code == 3
    assert "\n" not in str(refused.value)


def test_a_hostile_checkpoint_is_refused_without_running_it(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Hostile:
        def __reduce__(self) -> object:
            return (Path.touch, (canary,))

    torch.save({"state_dict": Hostile()}, tmp_path / "hostile.ckpt")
    with pytest.raises(CnnbenchError) as refused:
        runs.open_checkpoint(tmp_path / "hostile.ckpt")
    assert refused.value.code == 3
    assert not canary.exists()


def test_weights_of_another_shape_are_refused(run: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(run / "best.ckpt", weights_only=True)
    del checkpoint["state_dict"]["network.1.1.weight"]
    torch.save(checkpoint, tmp_path / "lacking.ckpt")
    with pytest.raises(CnnbenchError, match="does not hold the weights of lenet5"):
        runs.load_classifier(tmp_path / "lacking.ckpt")


def test_records_name_no_place_on_this_machine(run: Path) -> None:
    content = json.loads((run / "result.json").read_text())
    del content["config"]  # says where the user asked it to be written
    assert str(Path.home()) not in json.dumps(content)
