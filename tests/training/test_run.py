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
from cnnbench.types import CnnbenchError, Exit

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


def test_a_configuration_may_name_few_trainer_options(config: RunConfig) -> None:
    sparse = records.replace(config, trainer={"max_epochs": 1, "limit_train_batches": 1})
    record = verbs.fit(sparse)
    assert record is not None
    assert (record.fit.epochs, record.fit.steps) == (1, 1)


def test_an_unknown_trainer_option_is_refused_before_anything_is_written(config: RunConfig) -> None:
    with pytest.raises(CnnbenchError, match="unknown trainer option 'max_epoch'") as error:
        verbs.fit(records.replace(config, trainer={"max_epoch": 1}))
    assert error.value.code == Exit.USAGE
    assert not Path("runs").exists()


def test_fast_dev_run_returns_nothing_and_writes_nothing() -> None:
    assert verbs.fit(parse([*SHORT, "--trainer.fast_dev_run", "true"])) is None
    assert not Path("runs").exists()


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
