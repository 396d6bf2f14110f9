"""`fit`, `validate`, `test` and `predict` as functions: a configuration in, a value out."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from lightning.pytorch import Trainer

from cnnbench import records
from cnnbench.records.schema import RunConfig, RunRecord
from cnnbench.training import run as verbs
from cnnbench.training.config import parse
from cnnbench.types import Augment, CnnbenchError, Exit

SHORT = ["--model.arch", "linear", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]


@pytest.fixture
def config() -> RunConfig:
    return parse(SHORT)


def test_fit_returns_the_record_it_wrote(config: RunConfig) -> None:
    record = verbs.fit(config, runs_dir="mine")
    assert record == records.read(Path("mine/mnist5k_linear/seed1/result.json"), RunRecord)
    assert record is not None
    assert (record.config, record.fit.steps, record.test) == (config, 2, None)


def test_fit_with_test_then_validate_test_and_predict_agree(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    record = verbs.fit(config, test=True)
    assert record is not None
    assert record.test is not None
    validated = verbs.validate(config)
    assert (validated.accuracy, validated.images) == (pytest.approx(record.fit.val_accuracy), record.fit.val_images)
    assert Path(validated.checkpoint) == Path("runs/mnist5k_linear/seed1/best.ckpt")
    tested = verbs.test(config)
    assert tested is not None
    assert tested.test == record.test
    held, predict = [], Trainer.predict
    monkeypatch.setattr(Trainer, "predict", lambda *arguments, **options: held.append(predict(*arguments, **options)))
    path = verbs.predict(config)
    assert held == [None]  # the recorder gathers the logits; Lightning holds none
    assert path == Path("runs/mnist5k_linear/seed1/predict.parquet")
    table = pq.read_table(path)
    right = sum(a == b for a, b in zip(table["label"].to_pylist(), table["prediction"].to_pylist(), strict=True))
    assert (len(table), right) == (record.test.images, record.test.correct)


@pytest.mark.parametrize(
    ("flags", "augment", "line"),
    [
        ([], Augment(pad=2), "crops of images padded by 2"),
        (["--data.flip", "true"], Augment(pad=2, flip=True), "crops of images padded by 2 and horizontal flips"),
        (["--data.pad", "0"], Augment(), "none"),
        (["--data.pad", "0", "--data.flip", "true"], Augment(flip=True), "horizontal flips"),
    ],
)
def test_augmentation_is_what_the_flags_say_else_the_dataset_and_is_printed(
    flags: list[str], augment: Augment, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = verbs.fit(parse([*SHORT, *flags]))
    assert record is not None
    assert record.data.augment == augment
    assert f"augmentation: {line}\n" in capsys.readouterr().err


@pytest.mark.parametrize("pad", [-1, 15])
def test_a_padding_of_which_no_crop_shows_the_image_is_refused(pad: int) -> None:
    with pytest.raises(CnnbenchError, match=rf"data\.pad is {pad}: expected 0 to 14, half a side") as error:
        verbs.fit(parse([*SHORT, f"--data.pad={pad}"]))
    assert error.value.code == Exit.USAGE


def test_a_configuration_may_name_few_trainer_options(config: RunConfig) -> None:
    sparse = records.replace(config, trainer={"max_epochs": 1, "limit_train_batches": 1})
    record = verbs.fit(sparse)
    assert record is not None
    assert (record.fit.epochs, record.fit.steps) == (1, 1)


def test_an_unknown_trainer_option_is_refused_before_anything_is_written(config: RunConfig) -> None:
    with pytest.raises(CnnbenchError, match="unknown trainer option 'max_epoch'") as error:
        verbs.fit(records.replace(config, trainer={"max_epoch": 1}))
    assert error.value.code == Exit.USAGE


def test_fast_dev_run_returns_nothing_and_writes_nothing() -> None:
    assert verbs.fit(parse([*SHORT, "--trainer.fast_dev_run", "true"])) is None


def test_a_checkpoint_of_another_run_is_not_resumed(config: RunConfig, run: Path) -> None:
    with pytest.raises(CnnbenchError, match="holds lenet5, but the config names linear"):
        verbs.fit(config, resume=run / "last.ckpt")
    lenet = parse(["--model.arch", "lenet5"])
    with pytest.raises(CnnbenchError, match="is not of this run"):
        verbs.fit(lenet, resume=run / "last.ckpt")


def test_the_saved_configuration_is_the_recorded_one(config: RunConfig) -> None:
    record = verbs.fit(config)
    assert record is not None
    folder = Path("runs/mnist5k_linear/seed1")
    assert parse(["--config", str(folder / "config.yaml")]) == record.config
    assert json.loads((folder / "result.json").read_text())["config"]["trainer"]["max_epochs"] == 1
