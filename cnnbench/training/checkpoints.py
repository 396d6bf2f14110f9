"""Checkpoints: written during training, and read back as a classifier."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from cnnbench import records
from cnnbench.training.classifier import Classifier
from cnnbench.training.folder import RunFolder
from cnnbench.training.stopping import STEPS_BETWEEN_LOOKS, Stopped, StopSignals, agreed, told
from cnnbench.training.stored import open_checkpoint
from cnnbench.types import CnnbenchError

SAVE = 1
"""What a process wants of all: 0 is nothing, and more than this the number of the signal that stops it, above it."""


def load_classifier(path: Path) -> Classifier:
    """The trained classifier of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        CnnbenchError: See `open_checkpoint`, `Classifier.on_load_checkpoint` and `Classifier.load_state_dict`.
    """
    checkpoint = open_checkpoint(path)
    classifier = Classifier(checkpoint.arch)
    classifier.on_load_checkpoint(checkpoint.content)
    classifier.load_state_dict(checkpoint.content["state_dict"])
    return classifier.eval()


SECONDS_BETWEEN = 600.0
"""At most so much of a long epoch is lost where its process is killed."""


class BestAndLast(Checkpoint):
    """best.ckpt after every validation that is better than all before; last.ckpt after every epoch, within one after
    some minutes, and when a signal asks training to stop.

    The state holds no paths, so a run folder can be moved before it is resumed.

    Args:
        run: The folder to write to.
        stop: Remembers the signal.
    """

    def __init__(self, run: RunFolder, stop: StopSignals) -> None:
        self.run, self.stop = run, stop
        self.best_accuracy: float | None = None
        self.saved = time.monotonic()
        """When last.ckpt was written."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        late = time.monotonic() - self.saved > SECONDS_BETWEEN
        wanted = SAVE + self.stop.received if self.stop.received else SAVE * late
        if (trainer.world_size == 1 and not wanted) or not _can_save(trainer, batch_idx):
            return
        wanted = agreed(trainer, wanted)
        if wanted:
            self._save_last(trainer)
        if wanted > SAVE:
            told(trainer, wanted - SAVE)
            raise Stopped(wanted - SAVE)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        accuracy = float(trainer.callback_metrics["val/accuracy"])
        if self.best_accuracy is None or accuracy > self.best_accuracy:
            self.best_accuracy = accuracy
            trainer.save_checkpoint(self.run.best)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_last(trainer)
        signum = agreed(trainer, self.stop.received)
        assert isinstance(pl_module, Classifier)
        if signum and trainer.global_step < pl_module.total_steps():  # else the result alone is missing
            told(trainer, signum)
            raise Stopped(signum)

    def _save_last(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.run.last)
        self.saved = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """The best validation accuracy so far."""
        return {"best_accuracy": self.best_accuracy}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint: a resumed run replaces best.ckpt only with a better one."""
        self.best_accuracy = state_dict["best_accuracy"]


def _can_save(trainer: Trainer, batch_idx: int) -> bool:
    """Whether a checkpoint after this step resumes with the next one; all processes find the same.

    Not before the validation that follows a step, between steps of the optimizer, nor, for several processes, at a step
    at which they do not look.
    """
    every = trainer.accumulate_grad_batches * (1 if trainer.world_size == 1 else STEPS_BETWEEN_LOOKS)
    validates = getattr(trainer, "val_check_batch", None)
    due = isinstance(validates, int) and (batch_idx + 1) % validates == 0
    return not trainer.is_last_batch and not due and (batch_idx + 1) % every == 0


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary name beside its target, then renames it.

    Lightning's own way writes to TMPDIR and copies where that is another file system: killed during the copy, it would
    leave half a file in the place of the last good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Raises CnnbenchError: the place is full or cannot be written (exit 2)."""
        buffer = io.BytesIO()
        torch.save(
            checkpoint, buffer
        )  # straight to the file, torch would turn a full disk or Ctrl-C into its own error
        try:
            with records.replacing(Path(path)) as partial, partial.open("wb") as file:
                file.write(buffer.getbuffer())
        except OSError as error:
            raise CnnbenchError(f"cannot write {path}: {error.strerror}") from None
