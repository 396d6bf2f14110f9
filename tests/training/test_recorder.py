"""result.json: what training did, against what Lightning logged and a clock that the test turns."""

import csv
import hashlib
import json
import signal
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from sklearn.metrics import confusion_matrix

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.analysis.confidence import read_predictions
from cnnbench.records.schema import Epoch, RunRecord
from cnnbench.training import recorder
from cnnbench.training.classifier import Classifier
from cnnbench.training.data import EVAL_BATCH_SIZE
from cnnbench.training.trainer import EpochLines


def test_result_says_what_was_done_with_what(run: Path) -> None:
    record = records.read(run / "result.json", RunRecord)
    assert (record.task, record.arch, record.seed) == ("mnist5k_lenet5", "lenet5", 1)
    assert record.fit.epochs == 2
    assert record.fit.steps == 2 * (4000 // 128)
    assert (record.fit.train_images, record.fit.val_images, record.data.test_images) == (4000, 500, 500)
    assert 0 < record.fit.validation_seconds < record.fit.train_seconds
    assert record.cost.params == 61_706
    assert record.environment.packages["torch"] == metadata.version("torch")
    assert record.test is not None
    assert record.test.checkpoint_sha256 == records.sha256(run / "best.ckpt")
    assert record.class_names == tuple("0123456789")


def test_the_scores_by_class_are_those_of_the_kept_predictions(run: Path) -> None:
    record = records.read(run / "result.json", RunRecord)
    for scored, name in ((record.test, "predictions.parquet"), (record.val, "val_predictions.parquet")):
        assert scored is not None
        assert scored.by_class is not None
        kept = read_predictions(run / name)
        matrix = confusion_matrix(kept.labels, kept.predictions)
        assert scored.by_class.images == tuple(matrix.sum(axis=1))
        assert scored.by_class.correct == tuple(matrix.diagonal())
        assert scored.by_class.predicted == tuple(matrix.sum(axis=0))


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
    first = 28 * 28 * 6 * 25  # which needs no gradient of the image
    assert record.training_macs == 3 * record.cost.macs - first


class Clock:
    """One second a training step, a hundred a validation pass, none for anything else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(recorder, "time", SimpleNamespace(perf_counter=lambda: self.now))
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


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_an_interrupted_and_resumed_run_has_the_whole_curve(
    every: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*LINEAR, "--trainer.max_epochs", "6", "--trainer.check_val_every_n_epoch", str(every)]
    assert main(["fit", *arguments, "--runs-dir", "whole"]) == 0

    def stop(self: EpochLines, trainer: object, pl_module: object) -> None:
        if trainer.current_epoch == 4:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EpochLines, "on_train_epoch_end", stop)
        handler = signal.getsignal(signal.SIGINT)
        assert main(["fit", *arguments, "--runs-dir", "parts"]) == 130
        signal.signal(signal.SIGINT, handler)  # Lightning ignores Ctrl-C while it shuts down
    clock.now += 10_000  # the time in between is nobody's
    assert main(["fit", *arguments, "--runs-dir", "parts", "--ckpt_path", "last"]) == 0
    whole, parts = (records.read(name / PLACE, RunRecord).fit for name in (Path("whole"), Path("parts")))
    assert [epoch.epoch for epoch in whole.curve] == list(range(every, 7, every))
    assert [known(epoch) for epoch in parts.curve] == [known(epoch) for epoch in whole.curve]
    assert [epoch.train_loss for epoch in parts.curve] == [epoch.train_loss for epoch in whole.curve]
    assert (parts.train_seconds, parts.validation_seconds) == (whole.train_seconds, whole.validation_seconds)


def test_a_run_that_two_versions_of_the_code_trained_is_a_run_of_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: EpochLines, trainer: object, pl_module: object) -> None:
        if trainer.current_epoch == 1:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(recorder, "identity", lambda config, data: "first")
        patch.setattr(EpochLines, "on_train_epoch_end", stop)
        assert main(["fit", *LINEAR, "--trainer.max_epochs", "2"]) == 130
    signal.signal(signal.SIGINT, handler)
    monkeypatch.setattr(recorder, "identity", lambda config, data: "second")
    assert main(["fit", *LINEAR, "--trainer.max_epochs", "2", "--ckpt_path", "last"]) == 0
    assert records.read("runs" / PLACE, RunRecord).identity == hashlib.sha256(b"first second").hexdigest()


def known(epoch: Epoch) -> Epoch:
    return records.replace(epoch, train_loss=None)


def test_records_name_no_place_on_this_machine(run: Path) -> None:
    content = json.loads((run / "result.json").read_text())
    del content["config"]  # says where the user asked it to be written
    assert str(Path.home()) not in json.dumps(content)
