"""Checkpoints: written during training, and read back as data, never as code."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from cnnbench import records
from cnnbench.training.classifier import CHECKPOINT_SCHEMA, Classifier
from cnnbench.training.folder import RunFolder
from cnnbench.types import CnnbenchError, Exit


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint of ours, read as plain data."""

    path: Path
    content: dict[str, Any]
    """As Lightning lays it out, with our part under "cnnbench"."""

    @property
    def arch(self) -> str:
        name: str = self.content["cnnbench"]["arch"]
        return name

    @property
    def epoch(self) -> int:
        """The epoch it was taken in, from 0 on."""
        epoch: int = self.content["epoch"]
        return epoch

    @property
    def steps(self) -> int:
        """Optimizer steps so far."""
        steps: int = self.content["global_step"]
        return steps

    @property
    def has_finished(self) -> bool:
        """Whether it is of the last step of its run.

        Raises:
            CnnbenchError: It does not say how many steps its run has (exit 3).
        """
        try:
            return bool(self.steps >= self.content["lr_schedulers"][0]["total_steps"])
        except (KeyError, IndexError, TypeError):
            raise CnnbenchError(f"checkpoint {self.path} has no learning-rate schedule", Exit.DATA) from None


def open_checkpoint(path: Path) -> StoredCheckpoint:
    """Load a checkpoint of ours without executing anything from it.

    Raises:
        CnnbenchError: It is missing, damaged (even by one byte) or not written by cnnbench (exit 3).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            damaged = archive.testzip()  # torch.load does not look at the checksums: a flipped byte would pass
        if damaged:
            raise CnnbenchError(f"checkpoint {path} is damaged: {damaged} does not match its checksum", Exit.DATA)
        if len({*names}) < len(names):  # one reader takes the first, another the last
            raise CnnbenchError(f"checkpoint {path} holds two entries of one name", Exit.DATA)
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CnnbenchError(
            f"no checkpoint at {path}: run `fit` with the same config first, or give another --ckpt_path", Exit.DATA
        ) from None
    except CnnbenchError:
        raise
    except Exception as error:  # whatever a damaged or hostile file provokes in zipfile or in the unpickler
        reason = str(error).strip().split("\n")[0]
        raise CnnbenchError(f"checkpoint {path} cannot be read: {reason}", Exit.DATA) from None
    schema = checkpoint.get("cnnbench", {}).get("schema") if isinstance(checkpoint, dict) else None
    if schema != CHECKPOINT_SCHEMA:
        raise CnnbenchError(
            f"checkpoint {path} has schema {schema!r}; this version reads {CHECKPOINT_SCHEMA!r}", Exit.DATA
        )
    return StoredCheckpoint(path, checkpoint)


def load_classifier(path: Path) -> Classifier:
    """The trained classifier of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        CnnbenchError: See `open_checkpoint`; or weights and architecture do not fit (exit 3).
    """
    checkpoint = open_checkpoint(path)
    classifier = Classifier(checkpoint.arch)
    classifier.on_load_checkpoint(checkpoint.content)
    try:
        classifier.load_state_dict(checkpoint.content["state_dict"])
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[-1].strip()
        raise CnnbenchError(
            f"checkpoint {path} does not hold the weights of {checkpoint.arch}: {reason}", Exit.DATA
        ) from None
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
