import csv
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.cli import lightning as cli
from cnnbench.datasets import open_recorded
from cnnbench.records.schema import Epoch, RunRecord
from cnnbench.training import folder as runs
from cnnbench.training.classifier import Classifier
from cnnbench.training.data import EVAL_BATCH_SIZE
from cnnbench.types import CnnbenchError, Exit


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
    assert (record.fit.train_images, record.fit.val_images, record.data.test_images) == (4000, 500, 500)
    assert 0 < record.fit.validation_seconds < record.fit.train_seconds
    assert record.cost.params == 61_706
    assert record.environment["packages"]["torch"].startswith("2.14")
    assert record.test is not None
    assert record.test.checkpoint_sha256 == records.sha256(run / "best.ckpt")


def test_the_curve_has_every_epoch_and_the_best_one_is_the_result_s(run: Path) -> None:
    fit = records.read(run / "result.json", RunRecord).fit
    assert [epoch.epoch for epoch in fit.curve] == [1, 2]
    assert [epoch.steps for epoch in fit.curve] == [31, 62]
    assert [epoch.images for epoch in fit.curve] == [31 * 128, 62 * 128]
    assert 0 < fit.curve[0].train_seconds < fit.curve[1].train_seconds
    assert fit.curve[1].train_seconds + fit.validation_seconds <= fit.train_seconds
    accuracies = [epoch.val_accuracy for epoch in fit.curve]
    assert all(accuracy == round(500 * accuracy) / 500 for accuracy in accuracies)
    assert (fit.val_accuracy, fit.best_epoch) == (max(accuracies), accuracies.index(max(accuracies)))


def test_the_curve_is_what_lightning_logged(run: Path) -> None:
    fit = records.read(run / "result.json", RunRecord).fit
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for key, name in (("train_loss", "train/loss"), ("val_loss", "val/loss"), ("val_accuracy", "val/accuracy")):
        logged = [float(row[name]) for row in rows if row[name]]
        assert [getattr(epoch, key) for epoch in fit.curve] == pytest.approx(logged, rel=1e-6)


def test_the_result_says_what_training_took_and_of_what_it_was_made(run: Path) -> None:
    record = records.read(run / "result.json", RunRecord)
    taken = record.fit.resources
    for value, words in ((taken.memory_bytes, taken.memory_kind), (taken.energy_joules, taken.energy_kind)):
        assert value is None or value >= 0
        assert words
    assert len(bytes.fromhex(record.identity)) == 32
    # the tensors of LeCun et al. 1998, figure 2: 28 x 28 pixels are padded to 32 x 32
    convolutions = 32 * 32 * 6 * 28 * 28 + 6 * 14 * 14 * 16 * 10 * 10
    assert record.fc_weights == convolutions + 400 * 120 + 120 * 84 + 84 * 10


class Clock:
    """One second a training step, a hundred a validation pass, none for anything else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(runs, "time", SimpleNamespace(perf_counter=lambda: self.now))
        for step, seconds in (("training_step", 1.0), ("validation_step", 100.0)):
            self._slow(monkeypatch, step, seconds)

    def _slow(self, monkeypatch: pytest.MonkeyPatch, step: str, seconds: float) -> None:
        real = getattr(Classifier, step)

        def slow(classifier: Classifier, batch: object, batch_idx: int) -> object:
            self.now += seconds
            return real(classifier, batch, batch_idx)

        monkeypatch.setattr(Classifier, step, slow)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


LINEAR = ["--model.arch", "linear", "--data.train_images", "400"]  # three steps of 128 images
PLACE = Path("mnist5k_linear/seed1/result.json")


def test_the_seconds_of_the_curve_leave_validation_out(clock: Clock) -> None:
    assert main(["fit", *LINEAR, "--trainer.max_epochs", "2"]) == 0
    fit = records.read("runs" / PLACE, RunRecord).fit
    assert [epoch.train_seconds for epoch in fit.curve] == [3, 6]
    scored = 100 * -(-fit.val_images // EVAL_BATCH_SIZE)  # seconds of each validation, a hundred a batch
    assert (fit.validation_seconds, fit.train_seconds) == (2 * scored, 2 * scored + 6)


def test_the_curve_has_validated_epochs_alone(clock: Clock) -> None:
    often = ["--trainer.max_epochs", "6", "--trainer.check_val_every_n_epoch", "3"]
    assert main(["fit", *LINEAR, *often]) == 0
    fit = records.read("runs" / PLACE, RunRecord).fit
    assert [(epoch.epoch, epoch.steps, epoch.images) for epoch in fit.curve] == [(3, 9, 9 * 128), (6, 18, 18 * 128)]
    assert [epoch.train_seconds for epoch in fit.curve] == [9, 18]
    assert all(epoch.train_loss is not None for epoch in fit.curve)


@pytest.mark.parametrize("every", [1, 2])
def test_an_interrupted_and_resumed_run_has_the_whole_curve(
    every: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*LINEAR, "--trainer.max_epochs", "6", "--trainer.check_val_every_n_epoch", str(every)]
    assert main(["fit", *arguments, "--runs_dir", "whole"]) == 0

    def stop(self: cli.EpochLines, trainer: object, pl_module: object) -> None:
        if trainer.current_epoch == 4:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cli.EpochLines, "on_train_epoch_end", stop)
        handler = signal.getsignal(signal.SIGINT)
        assert main(["fit", *arguments, "--runs_dir", "parts"]) == 130
        signal.signal(signal.SIGINT, handler)  # Lightning ignores Ctrl-C while it shuts down
    clock.now += 10_000  # the time in between is nobody's
    assert main(["fit", *arguments, "--runs_dir", "parts", "--ckpt_path", "last"]) == 0
    whole, parts = (records.read(name / PLACE, RunRecord).fit for name in (Path("whole"), Path("parts")))
    assert [epoch.epoch for epoch in whole.curve] == list(range(every, 7, every))
    assert [known(epoch) for epoch in parts.curve] == [known(epoch) for epoch in whole.curve]
    losses = [(epoch.epoch, epoch.train_loss) for epoch in parts.curve if epoch.train_loss is not None]
    assert set(losses) <= {(epoch.epoch, epoch.train_loss) for epoch in whole.curve}
    assert len(losses) >= len(whole.curve) - 1  # the last epoch before the interruption may lack its own
    assert (parts.train_seconds, parts.validation_seconds) == (whole.train_seconds, whole.validation_seconds)


def known(epoch: Epoch) -> Epoch:
    return replace(epoch, train_loss=None)


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


@pytest.mark.parametrize(("precision", "kept"), [("bf16-mixed", True), ("bf16-true", False)])
def test_mixed_precision_is_scored_in_float32_and_weights_in_bfloat16_leave_no_logits(
    run: Path, tmp_path: Path, precision: str, kept: bool
) -> None:
    before = records.read(run / "result.json", RunRecord).test
    assert before is not None
    folder = tmp_path / "runs" / "mnist5k_lenet5" / "seed1"
    shutil.copytree(run, folder)
    arguments = ["--model.arch", "lenet5", "--runs_dir", str(tmp_path / "runs"), "--trainer.precision", precision]
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
