"""A checkpoint on disk, read as data, never as code."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from cnnbench.architectures import build
from cnnbench.records.schema import DataRecord, Part
from cnnbench.training.folder import RunFolder
from cnnbench.types import CnnbenchError, Exit, ImageSpec


class NetworkPart(Part, frozen=True, kw_only=True):
    """What rebuilding the network needs, under "cnnbench" in a checkpoint; buffers that it holds are tensors."""

    arch: str
    spec: ImageSpec
    class_names: tuple[str, ...]
    data: DataRecord
    built_from: dict[str, str] = msgspec.field(default_factory=dict)
    weight_of_class: tuple[float, ...] | None = None


ROOM = 2**28
"""Weights of a network that is built whatever a checkpoint holds; torch says then which are missing."""
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
        _check_archive(path)
        with warnings.catch_warnings(action="ignore"):  # of sparse tensors, which are refused below
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
    weights = checkpoint.get("state_dict")
    if not _are_tensors(weights) or any(type(checkpoint.get(key)) is not int for key in ("epoch", "global_step")):
        raise CnnbenchError(f"checkpoint {path} has no weights, or no epoch: it is damaged", Exit.DATA)
    return StoredCheckpoint(path, checkpoint)


def _check_archive(path: Path) -> None:
    """Refuse what torch does not write, by the directory of the archive first: a bomb is not unpacked.

    Raises:
        CnnbenchError: It is damaged or hostile (exit 3).
        OSError, zipfile.BadZipFile, ...: It cannot be read.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise CnnbenchError(f"checkpoint {path} cannot be read: it is not a file", Exit.DATA)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        packed = next((entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED), None)
        claimed, size = sum(entry.file_size for entry in entries), path.stat().st_size
        if packed or claimed > size:
            what = f"{packed.filename} is compressed" if packed else f"it claims {claimed:,} bytes in {size:,}"
            raise CnnbenchError(f"checkpoint {path} was not written by cnnbench: {what}", Exit.DATA)
        damaged = archive.testzip()  # torch.load does not look at the checksums: a flipped byte would pass
    if damaged:
        raise CnnbenchError(f"checkpoint {path} is damaged: {damaged} does not match its checksum", Exit.DATA)
    if len({entry.filename for entry in entries}) < len(entries):  # one reader takes the first, another the last
        raise CnnbenchError(f"checkpoint {path} holds two entries of one name", Exit.DATA)


def newest(run: RunFolder) -> Path:
    """The checkpoint that a run is resumed from: last.ckpt, or best.ckpt where that is damaged.

    Raises:
        CnnbenchError: Neither can be read; the error is that of last.ckpt (exit 3).
    """
    try:
        return open_checkpoint(run.last).path
    except CnnbenchError:
        if not (run.last.is_file() and run.best.is_file()):
            raise
        with suppress(CnnbenchError):
            return open_checkpoint(run.best).path
        raise


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
    if not _are_tensors(ours.get("buffers", {})):
        raise CnnbenchError(f"{what} has buffers that are no tensors", Exit.DATA)
    try:
        network = msgspec.convert(ours, NetworkPart)
    except (msgspec.ValidationError, CnnbenchError, RecursionError) as error:
        raise CnnbenchError(f"{what} does not say which network it is of: {error}", Exit.DATA) from None
    if len(network.class_names) != network.spec.num_classes:
        raise CnnbenchError(
            f"{what} has {len(network.class_names)} names for {network.spec.num_classes} classes", Exit.DATA
        )
    return ours


def _are_tensors(named: object) -> bool:
    """Whether it is tensors by name, each with its values in memory: none is sparse or without a device."""
    return isinstance(named, dict) and all(
        isinstance(each, torch.Tensor) and each.layout == torch.strided and each.device.type != "meta"
        for each in named.values()
    )


def check_room(weights: Mapping[str, torch.Tensor], *, arch: str, spec: ImageSpec) -> None:
    """Refuse to build a network that needs far more memory than the checkpoint holds weights.

    Raises:
        CnnbenchError: The weights are of a smaller network (exit 3).
    """
    with torch.device("meta"):
        needed = sum(parameter.numel() for parameter in build(arch, spec).parameters())
    storages = [each.untyped_storage() for each in weights.values()]
    held = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    if needed > held + ROOM:
        raise CnnbenchError(
            f"the checkpoint does not hold the weights of {arch} for {spec}: {held:,} bytes for {needed:,} weights",
            Exit.DATA,
        )
