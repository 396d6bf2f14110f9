"""A checkpoint on disk, read as data, never as code."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cnnbench.types import CnnbenchError, Exit

CHECKPOINT_SCHEMA = "cnnbench.checkpoint/1"


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
    our_part(checkpoint, what=f"checkpoint {path}")
    return StoredCheckpoint(path, checkpoint)


def our_part(checkpoint: object, *, what: str = "the checkpoint") -> dict[str, Any]:
    """What a checkpoint holds under "cnnbench".

    Args:
        checkpoint: Its content.
        what: What errors call it.

    Raises:
        CnnbenchError: It was not written by cnnbench, or by another version (exit 3).
    """
    ours = checkpoint.get("cnnbench") if isinstance(checkpoint, dict) else None
    if not isinstance(ours, dict):
        raise CnnbenchError(f"{what} was not written by cnnbench", Exit.DATA)
    if ours.get("schema") != CHECKPOINT_SCHEMA:
        raise CnnbenchError(
            f"{what} has schema {ours.get('schema')!r}; this version reads {CHECKPOINT_SCHEMA!r}", Exit.DATA
        )
    return ours
