"""Lightning's Trainer with our callbacks and loggers."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from cnnbench.training.checkpoints import AtomicCheckpointIO, BestAndLast
from cnnbench.training.folder import RunFolder
from cnnbench.training.metrics import MetricsTable
from cnnbench.training.midway import Midway
from cnnbench.training.room import RequireRoom
from cnnbench.training.stopping import StopSignals
from cnnbench.types import CnnbenchError, Exit


class EpochLines(Callback):
    """One line per epoch on stderr, where a progress bar cannot be drawn."""

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown = "  ".join(
            f"{name} {metrics[name]:.4f}" for name in ("train/loss", "val/loss", "val/accuracy") if name in metrics
        )
        print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}", file=sys.stderr)


def build_trainer(
    options: dict[str, Any],
    folder: RunFolder,
    callbacks: list[Callback],
    *,
    fitting: bool,
    loggers: Sequence[Logger] = (),
) -> Trainer:
    """A trainer with our callbacks and loggers, writing into the run folder alone."""
    bar = fitting and options.get("enable_progress_bar") is not False and sys.stderr.isatty()
    ours: list[Logger] = []
    if fitting:
        callbacks.append(RichProgressBar(console_kwargs={"stderr": True}) if bar else EpochLines())
    if fitting and not options.get("fast_dev_run"):
        stop = StopSignals()
        callbacks += [RequireRoom(folder), MetricsTable(folder), Midway(), stop, BestAndLast(folder, stop)]
        ours = [TensorBoardLogger(folder.path.parent, "", version=folder.path.name)]
    try:
        return Trainer(
            **{**options, "enable_progress_bar": bar},
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
