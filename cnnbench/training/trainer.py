"""Lightning's Trainer with our callbacks and loggers."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from cnnbench.progress import Display, display
from cnnbench.training.checkpoints import AtomicCheckpointIO, BestAndLast
from cnnbench.training.folder import RunFolder
from cnnbench.training.loggers import LoggerName, build
from cnnbench.training.metrics import MetricsTable
from cnnbench.training.midway import Midway
from cnnbench.training.ranks import watch_launcher
from cnnbench.training.room import RequireRoom
from cnnbench.training.stopping import StopSignals
from cnnbench.types import CnnbenchError, Exit


class EpochLines(Callback):
    """One line per epoch on stderr."""

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown = "  ".join(
            f"{name} {metrics[name]:.4f}" for name in ("train/loss", "val/loss", "val/accuracy") if name in metrics
        )
        print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}", file=sys.stderr)


class EpochBar(EpochLines):
    """Below these lines a bar: the epoch, the share of all epochs that is done, and the time that is left."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.shown: Display | None = None

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epochs = trainer.max_epochs or 0
        self.shown = self.stack.enter_context(display(epochs if epochs > 0 else None))

    @rank_zero_only
    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.shown:
            done = trainer.current_epoch + (trainer.fit_loop.batch_idx + 1) / trainer.num_training_batches
            self.shown.move(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", done=done)

    @rank_zero_only
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.stack.close()

    @rank_zero_only
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.stack.close()


def build_trainer(
    options: dict[str, Any],
    folder: RunFolder,
    *,
    callbacks: list[Callback],
    fitting: bool,
    loggers: Sequence[Logger] = (),
    log_to: Sequence[LoggerName] = ("tensorboard",),
) -> Trainer:
    """A trainer with our callbacks and loggers, writing into the run folder alone."""
    bar = fitting and options.get("enable_progress_bar") is not False and sys.stderr.isatty()
    ours: list[Logger] = []
    if fitting:
        callbacks.append(EpochBar() if bar else EpochLines())
    if fitting and not options.get("fast_dev_run"):
        stop = StopSignals()
        callbacks += [RequireRoom(folder), MetricsTable(folder), Midway(), stop, BestAndLast(folder, stop)]
        ours = build(log_to, folder)
    try:
        trainer = Trainer(
            **{**options, "enable_progress_bar": False},
            callbacks=callbacks,
            logger=[*ours, *loggers],
            default_root_dir=folder.path,
            plugins=[AtomicCheckpointIO()],
            use_distributed_sampler=False,  # our loaders share the images out themselves
        )
    except MisconfigurationException as error:
        # Lightning's word for a flag that it cannot honour, or for a device that this machine lacks
        absent = options["accelerator"] not in ("auto", "cpu")
        raise _refused(error, Exit.ENVIRONMENT if absent else Exit.USAGE) from None
    except (ValueError, RuntimeError) as error:
        raise _refused(error, Exit.USAGE) from None
    watch_launcher(trainer)
    return trainer


def _refused(error: Exception, code: Exit) -> CnnbenchError:
    return CnnbenchError(f"the trainer refuses its flags: {str(error).strip().splitlines()[0]}", code)


def quiet() -> None:
    """Keep stderr for what concerns the user."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    os.environ.setdefault("GLOO_LOG_LEVEL", "ERROR")
    for message in (
        ".*LeafSpec.*",  # Lightning 2.6.6 uses a name that torch 2.14 renamed; nothing a user can do
        ".*does not have many workers.*",  # our loader has none, on purpose
        ".*callbacks used to create the checkpoint.*",  # `test` needs no ModelCheckpoint
        "Grad strides do not match bucket view strides.*",  # DDP on 1 x 1 convolutions; speed alone
        ".*smaller than the logging interval.*",  # we log by epoch
        ".*Checkpoint directory .* exists and is not empty.*",  # `FolderClaim` has checked it
        ".*Experiment logs directory .* exists and is not empty.*",
    ):
        warnings.filterwarnings("ignore", message)
