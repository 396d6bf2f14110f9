"""`fit --logger`: a closed list of names, each of which gets what metrics.csv has."""

import os
import sys
from pathlib import Path

import pytest

import cnnbench
from cnnbench.__main__ import main
from cnnbench.training import loggers

COMMAND = ["fit", "linear", "--epochs", "1", "--train-images", "400", "--logger"]
RUN = Path("runs/mnist5k_linear/seed1")


def test_a_name_outside_the_list_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "csv,os.system"]) == 2
    said = capsys.readouterr().err
    assert said.endswith("--logger 'os.system' is unknown: expected one of csv, tensorboard, mlflow, wandb\n")
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_logger_that_is_not_installed_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert main([*COMMAND, name]) == 6
    assert capsys.readouterr().err.endswith(f"cnnbench: --logger {name} needs {name}: pip install 'cnnbench[{name}]'\n")


def test_csv_alone_is_the_table_that_every_run_has() -> None:
    assert main([*COMMAND, "csv"]) == 0
    assert "val/accuracy" in (RUN / "metrics.csv").read_text()
    assert not list(RUN.glob("events.out*"))


@pytest.mark.slow
def test_the_default_is_tensorboard() -> None:
    assert loggers.chosen("tensorboard,tensorboard") == ("tensorboard",)
    cnnbench.fit("mnist5k_linear", epochs=1, train_images=400)
    assert len(list(RUN.glob("events.out*"))) == 1


def recorded() -> float:
    """The validation accuracy in metrics.csv."""
    names, values = (line.split(",") for line in (RUN / "metrics.csv").read_text().splitlines())
    return float(dict(zip(names, values, strict=True))["val/accuracy"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow 3.18 uses what SQLAlchemy 2.1 deprecated
def test_mlflow_has_the_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'cnnbench[mlflow]'")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main([*COMMAND, "csv,mlflow"]) == 0
    client = mlflow.tracking.MlflowClient(f"sqlite:///{tmp_path / 'runs/mlflow.db'}")
    (experiment,) = [found for found in client.search_experiments() if found.name == "mnist5k_linear"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "seed1"
    assert run.data.metrics["val/accuracy"] == pytest.approx(recorded())


@pytest.mark.slow
def test_weights_and_biases_keeps_a_run_that_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed: pip install 'cnnbench[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert main([*COMMAND, "wandb"]) == 0
    assert wandb.run is None  # it has ended
    (folder,) = Path("runs/wandb").glob("offline-run-*")
    (log,) = folder.glob("*.wandb")
    assert b"val/accuracy" in log.read_bytes()
    assert os.environ["WANDB_MODE"] == "offline"
