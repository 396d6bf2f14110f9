"""Where the metrics of a run go besides its metrics.csv. They are chosen by name: a command line names no code."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, cast, get_args

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from cnnbench import extras
from cnnbench.registry import hint
from cnnbench.training.folder import RunFolder
from cnnbench.types import CnnbenchError

LoggerName = Literal["csv", "tensorboard", "mlflow", "wandb"]
NAMES: tuple[LoggerName, ...] = get_args(LoggerName)


def chosen(text: str) -> tuple[LoggerName, ...]:
    """The loggers in names that are separated by commas; csv alone is the metrics.csv that every run has.

    Raises:
        CnnbenchError: A name is unknown (exit 2), or its package is not installed (exit 6).
    """
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in NAMES:
            raise CnnbenchError(f"--logger {name!r} is unknown: {hint(name, list(NAMES))}")
        if name in ("mlflow", "wandb"):
            extras.require(f"--logger {name}", name)
    return cast(tuple[LoggerName, ...], names)


def build(names: Sequence[LoggerName], run: RunFolder) -> list[Logger]:
    """The loggers of a run that its own metrics.csv is not.

    TensorBoard's events lie in the run's folder. MLflow's lie in mlflow.db beside the tasks, or where
    MLFLOW_TRACKING_URI says; Weights and Biases' in wandb beside the tasks, and are sent as its settings say
    (WANDB_MODE=offline: not).
    """
    runs_dir, task, seed = run.path.parent.parent, run.path.parent.name, run.path.name
    built: list[Logger] = []
    if "tensorboard" in names:
        built.append(TensorBoardLogger(run.path.parent, "", version=seed))
    if "mlflow" in names:
        folder = _made(runs_dir).absolute()
        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
        built.append(MLFlowLogger(task, seed, tracking_uri=place, save_dir=str(folder)))
    if "wandb" in names:
        built.append(WandbLogger(f"{task}/{seed}", save_dir=_made(runs_dir), project="cnnbench", group=task))
    return built


def end(loggers: Iterable[Logger]) -> None:
    """End the run of Weights and Biases, which would take in what the next run of this process logs."""
    if any(isinstance(logger, WandbLogger) for logger in loggers):
        import wandb

        wandb.finish()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
