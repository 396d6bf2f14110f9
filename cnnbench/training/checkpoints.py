"""Checkpoints: written during training, and read back as a classifier."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from cnnbench import records
from cnnbench.training.classifier import Classifier
from cnnbench.training.folder import RunFolder
from cnnbench.training.stored import open_checkpoint
from cnnbench.types import CnnbenchError


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


class BestAndLast(Checkpoint):
    """best.ckpt after every validation that is better than all before; last.ckpt after every epoch.

    The state holds no paths, so a run folder can be moved before it is resumed.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.best_accuracy: float | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        accuracy = float(trainer.callback_metrics["val/accuracy"])
        if self.best_accuracy is None or accuracy > self.best_accuracy:
            self.best_accuracy = accuracy
            trainer.save_checkpoint(self.run.best)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.run.last)

    def state_dict(self) -> dict[str, Any]:
        """The best validation accuracy so far."""
        return {"best_accuracy": self.best_accuracy}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint: a resumed run replaces best.ckpt only with a better one."""
        self.best_accuracy = state_dict["best_accuracy"]


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
