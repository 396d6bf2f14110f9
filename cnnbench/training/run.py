"""`fit`, `validate`, `test` and `predict`: functions from the configuration of a run to what came out of it.

Under several processes each calls the same function; what a record or a file needs is written by the first of them.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import torch
import yaml
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from cnnbench import datasets, records
from cnnbench.architectures import architecture
from cnnbench.arguments import checked
from cnnbench.datasets.choice import require_same
from cnnbench.records.schema import DataRecord, NetworkChecks, RunConfig, RunRecord
from cnnbench.training.announce import announce, warn_of_loss
from cnnbench.training.claim import FolderClaim, exclusive, remove_replaced
from cnnbench.training.classifier import Classifier
from cnnbench.training.config import task_name, trainer_options
from cnnbench.training.data import ImageData
from cnnbench.training.folder import RunFolder, find
from cnnbench.training.loggers import LoggerName, chosen, end
from cnnbench.training.precision import resolve_accelerator, resolve_precision
from cnnbench.training.predictions import write_predictions
from cnnbench.training.ranks import naming_lost_process
from cnnbench.training.recorder import Recorder, finish
from cnnbench.training.schedule import require_validation
from cnnbench.training.start import Start, decide, passed_on
from cnnbench.training.stopping import Stopped, StopSignals
from cnnbench.training.stored import newest, open_checkpoint
from cnnbench.training.trainer import build_trainer, quiet
from cnnbench.types import CnnbenchError, Exit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Verb = Literal["fit", "validate", "test", "predict"]


class ValidationResult(msgspec.Struct, frozen=True):
    """What a checkpoint scores on the validation images. The accuracy is a fraction."""

    checkpoint: str
    accuracy: float
    loss: float
    images: int


@dataclass
class _Session:
    """What one verb works with."""

    folder: RunFolder
    checkpoint: Path | None
    """The checkpoint that is read: to resume, to score."""
    trainer: Trainer
    classifier: Classifier
    data: ImageData
    recorder: Recorder

    def run(self, verb: Verb, checkpoint: Path | None) -> None:
        """Call the Trainer's method. Checkpoints are read as plain data."""
        options: dict[str, Any] = {"ckpt_path": checkpoint, "weights_only": True}
        if verb in ("validate", "test"):
            options["verbose"] = False
        if verb == "predict":
            options["return_predictions"] = False  # the recorder gathers them; Lightning would hold them once more
        with naming_lost_process(self.trainer):
            getattr(self.trainer, verb)(self.classifier, datamodule=self.data, **options)

    def train(self, checkpoint: Path | None) -> None:
        """Fit; a signal that waited for the end of a step, or of training, then does what it does elsewhere."""
        try:
            self.run("fit", checkpoint)
        except Stopped as stopped:
            signal.raise_signal(stopped.signum)
            raise KeyboardInterrupt from None  # where nothing handles the signal
        for stop in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(stop, StopSignals) and stop.received:
                signal.raise_signal(stop.received)


@checked
def fit(
    config: RunConfig,
    *,
    data: ImageData | None = None,
    runs_dir: str | Path = "runs",
    overwrite: bool = False,
    resume: str | Path | None = None,
    test: bool = False,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    logger: str = "tensorboard",
    checks: NetworkChecks | None = None,
) -> RunRecord | None:
    """Train a network on the training images, in the folder <runs_dir>/<task>/seed<k>.

    Args:
        config: The configuration; see `training.config.parse`.
        data: The images of the configuration, where they are loaded already.
        runs_dir: Folder of the runs.
        overwrite: Replace an earlier run of the same task and seed.
        resume: A checkpoint of this run to continue from; "last" is the newest.
        test: Afterwards score the best checkpoint on every test image, once.
        callbacks: More callbacks for Lightning's Trainer.
        loggers: More loggers for it.
        logger: Any of csv, tensorboard, mlflow and wandb, separated by commas; metrics.csv is always written.
        checks: What was found when the network was tried, where it is not one of ours; see `training.preflight`.

    Returns:
        The record in result.json; None under `fast_dev_run`, which writes nothing, and in processes but the first.

    Raises:
        CnnbenchError: The configuration, the data or the folder cannot be used; training diverged.
    """
    log_to = chosen(logger)
    folder = _checked_folder(config, runs_dir)
    checkpoint = _to_resume(str(resume), folder) if resume else None
    if checkpoint:
        _check_same_architecture(checkpoint, config)
        if checkpoint.parent.resolve() != folder.path.resolve():
            raise CnnbenchError(
                f"{checkpoint} is not of this run, which lies in {folder.path}: name its --task, --runs-dir and seed"
            )
    session = _open(
        config,
        folder,
        checkpoint,
        fitting=True,
        data=data,
        checks=checks,
        callbacks=callbacks,
        loggers=loggers,
        log_to=log_to,
    )
    if trainer_options(config).get("fast_dev_run"):
        session.run("fit", checkpoint)
        return None
    require_validation(session.trainer, batches=session.data.steps_per_epoch)
    with exclusive(folder), _compiler_errors():
        start = decide(folder, config, data=session.data, checkpoint=checkpoint, overwrite=overwrite)
        with passed_on(start):
            _train(session, config, start, overwrite=overwrite)
            _keep_validation(session, folder)
            remove_replaced(folder)
            if test:
                session.recorder.checkpoint = folder.best
                session.run("test", folder.best)
    return session.recorder.record


def _train(session: _Session, config: RunConfig, start: Start, *, overwrite: bool) -> None:
    """Train, or write the result of a run that was killed just before it did."""
    folder = session.folder
    if start.finishes:
        _finish(session)
        session.trainer.loggers = []  # nothing is trained
        return
    resuming = start.checkpoint is not None
    with FolderClaim(folder, overwrite=overwrite, resuming=resuming, discards=start.discards):
        _save_config(config, folder, resuming=resuming)
        announce(session.data)
        try:
            session.train(Path(start.checkpoint) if start.checkpoint else None)
        finally:
            end(session.trainer.loggers)
    if session.recorder.record:
        warn_of_loss(session.recorder.record)


def _keep_validation(session: _Session, run: RunFolder) -> None:
    """Keep what the best checkpoint of a run answers for the validation images, on which choices are made."""
    recorder, trainer = session.recorder, session.trainer
    recorder.run, recorder.checkpoint, recorder.keeps_validation = run, run.best, True
    loggers, trainer.loggers = trainer.loggers, []  # they have the passes of training alone
    session.run("validate", run.best)
    trainer.loggers, recorder.keeps_validation = loggers, False


@rank_zero_only
def _finish(session: _Session) -> None:
    session.recorder.record = finish(session.folder)
    if session.recorder.record is None:
        raise AssertionError(f"{session.folder.path} has nothing to finish")


def validate(
    config: RunConfig, *, runs_dir: str | Path = "runs", checkpoint: str | Path | None = None
) -> ValidationResult:
    """Score a checkpoint on the validation images.

    Args:
        config: The configuration of its run.
        runs_dir: Folder of the runs.
        checkpoint: A file, a run folder, "best" or "last"; by default the run's best.

    Raises:
        CnnbenchError: The checkpoint is missing or damaged (exit 3), or of another architecture or data (exit 2).
    """
    session = _open_trained(config, runs_dir, checkpoint)
    session.run("validate", session.checkpoint)
    metrics = session.trainer.callback_metrics
    return ValidationResult(
        checkpoint=str(session.checkpoint),
        accuracy=float(metrics["val/accuracy"]),
        loss=float(metrics["val/loss"]),
        images=len(session.data.loaded.val),
    )


def test(config: RunConfig, *, runs_dir: str | Path = "runs", checkpoint: str | Path | None = None) -> RunRecord | None:
    """Score a checkpoint on every test image, once; for a run's best checkpoint the result is recorded.

    Args:
        config: The configuration of its run.
        runs_dir: Folder of the runs.
        checkpoint: A file, a run folder, "best" or "last"; by default the run's best.

    Returns:
        The run's record with the result; None in processes but the first.

    Raises:
        CnnbenchError: The checkpoint is missing or damaged (exit 3), or of another architecture or data (exit 2).
    """
    session = _open_trained(config, runs_dir, checkpoint)
    assert session.checkpoint is not None
    scored = RunFolder(session.checkpoint.parent)
    best = session.checkpoint.name == scored.best.name
    with exclusive(scored) if best else nullcontext():
        _require_result(scored, best=best)
        if best and not scored.val_predictions.is_file():  # killed before it was written, or of an earlier version
            _keep_validation(session, scored)
            session.recorder.checkpoint = session.checkpoint
        session.run("test", session.checkpoint)
    if session.recorder.record and not session.recorder.recorded:
        print(
            "note: the result is not recorded: only the run's best checkpoint on the whole test split is",
            file=sys.stderr,
        )
    return session.recorder.record


@rank_zero_only
def _require_result(run: RunFolder, *, best: bool) -> None:
    """Refuse a run whose training has not ended; write the result of one that was killed just before it did.

    Args:
        run: The run.
        best: Whether its best checkpoint is scored, which is recorded.
    """
    if best:
        records.require_writable(run.predictions)
    if not run.result.is_file() and not finish(run):
        raise CnnbenchError(
            f"{run.path} has no result.json: its training has not ended; `fit --ckpt_path last` resumes it", Exit.DATA
        )


def predict(config: RunConfig, *, runs_dir: str | Path = "runs", checkpoint: str | Path | None = None) -> Path:
    """Write the predictions for every test image to predict.parquet, beside the checkpoint.

    Args:
        config: The configuration of its run.
        runs_dir: Folder of the runs.
        checkpoint: A file, a run folder, "best" or "last"; by default the run's best.

    Returns:
        The file.

    Raises:
        CnnbenchError: The checkpoint is missing or damaged (exit 3), or of another architecture or data (exit 2).
    """
    session = _open_trained(config, runs_dir, checkpoint)
    assert session.checkpoint is not None
    path = session.checkpoint.with_name("predict.parquet")
    records.require_writable(path)
    session.run("predict", session.checkpoint)
    assert session.recorder.predictions is not None
    if session.trainer.is_global_zero:
        write_predictions(path, session.recorder.predictions, names=session.data.loaded.test.names)
    session.trainer.strategy.barrier()  # the file is there when any process returns
    return path


def _checked_folder(config: RunConfig, runs_dir: str | Path) -> RunFolder:
    """The folder of a run, once its names are known ones and its devices exist."""
    options = trainer_options(config)
    devices, cores = str(options.get("devices", "auto")), os.cpu_count() or 1
    if options["accelerator"] != "gpu" and devices.isdigit() and int(devices) > max(cores, torch.cuda.device_count()):
        raise CnnbenchError(f"trainer.devices is {devices}: this machine has {cores} CPU cores")
    architecture[config.model.arch]
    datasets.dataset[config.data.dataset]
    return RunFolder(Path(runs_dir) / task_name(config) / f"seed{config.seed_everything}")


def _checkpoint(name: str, folder: RunFolder) -> Path:
    """The file that a name means; "best" and "last" are this run's, a folder stands for its best checkpoint."""
    known = {"best": folder.best, "last": folder.last}
    return known[name] if name in known else find(name) if Path(name).is_dir() else Path(name)


def _to_resume(name: str, folder: RunFolder) -> Path:
    """The checkpoint to resume from; where last.ckpt is damaged the best one, which is said."""
    if name != "last":
        return _checkpoint(name, folder)
    checkpoint = newest(folder)
    if checkpoint != folder.last:
        epoch = open_checkpoint(checkpoint).epoch + 1
        rank_zero_only(print)(
            f"warning: {folder.last} is damaged: resuming from best.ckpt, of epoch {epoch}", file=sys.stderr
        )
    return checkpoint


def _check_same_architecture(checkpoint: Path, config: RunConfig) -> None:
    arch = open_checkpoint(checkpoint).arch
    if arch != config.model.arch:
        raise CnnbenchError(
            f"checkpoint {checkpoint} holds {arch}, but the config names {config.model.arch}: use the same --model.arch"
        )


def _open_trained(config: RunConfig, runs_dir: str | Path, checkpoint: str | Path | None) -> _Session:
    folder = _checked_folder(config, runs_dir)
    path = _checkpoint(str(checkpoint or "best"), folder)
    _check_same_architecture(path, config)
    session = _open(config, folder, path, fitting=False)
    _check_same_images(path, session.data)
    return session


def _check_same_images(checkpoint: Path, data: ImageData) -> None:
    """Refuse other images of the data set that a checkpoint was trained on; what other data sets lack is told later."""
    recorded = msgspec.convert(open_checkpoint(checkpoint).content["cnnbench"]["data"], DataRecord)
    data.prepare_data()
    if recorded.dataset == data.config.dataset:
        require_same(recorded, data.loaded)


def _open(
    config: RunConfig,
    folder: RunFolder,
    checkpoint: Path | None,
    *,
    fitting: bool,
    data: ImageData | None = None,
    checks: NetworkChecks | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    log_to: Sequence[LoggerName] = (),
) -> _Session:
    """Build trainer, classifier, data and recorder, seeded."""
    quiet()
    seed_everything(config.seed_everything, workers=True)
    classifier, data = Classifier(**msgspec.to_builtins(config.model)), data or ImageData(config.data)
    options = trainer_options(config)
    options["accelerator"] = resolve_accelerator(str(options["accelerator"]))
    precision = resolve_precision(str(options["precision"]), str(options["accelerator"]))
    recorder = Recorder(
        folder,
        task=task_name(config),
        seed=config.seed_everything,
        config=config,
        precision_reason=precision.reason,
        checkpoint=checkpoint,
        checks=checks,
    )
    trainer = build_trainer(
        {**options, "precision": precision.name},
        folder,
        callbacks=[recorder, *callbacks],
        fitting=fitting,
        loggers=loggers,
        log_to=log_to,
    )
    return _Session(folder, checkpoint, trainer, classifier, data, recorder)


@rank_zero_only
def _save_config(config: RunConfig, folder: RunFolder, *, resuming: bool) -> None:
    """Write config.yaml. A resumed run keeps the one it has; a run that was killed early leaves one of its own."""
    if not (resuming and folder.config.exists()):
        with records.replacing(folder.config) as partial:
            partial.write_text(yaml.safe_dump(msgspec.to_builtins(config), sort_keys=False))


@contextmanager
def _compiler_errors() -> Iterator[None]:
    """Turn what torch.compile raises, where it cannot work, into one line (exit 6)."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            reason = str(error).strip().splitlines()[0]
            raise CnnbenchError(f"model.compile: torch.compile cannot work here: {reason}", Exit.ENVIRONMENT) from None
        raise
