"""Checkpoints: written during training, and read back as data, never as code."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from cnnbench.training.classifier import CHECKPOINT_SCHEMA, Classifier
from cnnbench.training.folder import RunFolder
from cnnbench.types import CnnbenchError, Exit


def open_checkpoint(path: Path) -> dict[str, Any]:
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
    return checkpoint


def load_classifier(path: Path) -> Classifier:
    """The trained classifier of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        CnnbenchError: See `open_checkpoint`; or weights and architecture do not fit (exit 3).
    """
    checkpoint = open_checkpoint(path)
    made = checkpoint["cnnbench"]
    classifier = Classifier(made["arch"])
    classifier.on_load_checkpoint(checkpoint)
    try:
        classifier.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[-1].strip()
        raise CnnbenchError(
            f"checkpoint {path} does not hold the weights of {made['arch']}: {reason}", Exit.DATA
        ) from None
    return classifier.eval()


class BestAndLast(ModelCheckpoint):
    """best.ckpt by validation accuracy, and last.ckpt; goes on rightly in a run folder that was moved or renamed."""

    def __init__(self, run: RunFolder) -> None:
        super().__init__(
            run.path, "best", monitor="val/accuracy", mode="max", save_last=True, enable_version_counter=False
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning would forget the best score where the folder's path has changed, and keep a stale best.ckpt."""

        def moved(name: str) -> str:
            return str(Path(str(self.dirpath)) / Path(name).name) if name else name

        names = ("best_model_path", "last_model_path", "kth_best_model_path")
        best = {moved(name): score for name, score in state_dict["best_k_models"].items()}
        here = {name: moved(state_dict[name]) for name in names}
        super().load_state_dict({**state_dict, **here, "best_k_models": best, "dirpath": self.dirpath})
