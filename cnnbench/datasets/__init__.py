"""ON WHAT: one file a source, each dataset a decorated function that finds, reads and checks its images.

A builder takes a `Source` and returns `Decoded`. `load` checks the hash where we have seen the data, splits
validation off the training images, and hands out a `Dataset`. Arrays are numpy, so nothing here needs torch
unless a reader does.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import platformdirs

from cnnbench.records.schema import DataChoice, DataRecord
from cnnbench.registry import Registry, hint
from cnnbench.types import Augment, CnnbenchError, Dataset, Exit, ImageSpec, Split

dataset = Registry("dataset", package="cnnbench.datasets")
"""Decorator. `size` and `classes`: what every image is and how many classes there are, where that is fixed; `sha256`:
the hash of the decoded arrays, where we have seen the data; `splits`: names of other splits, each with its hash."""

SPLIT_SEED = 20_261_122
"""Seeds every split we make ourselves. No flag changes it, so that all runs choose and test on the same images."""


@dataclass(frozen=True)
class Source:
    """Where a dataset may look. `size` and `channels` speak to `folder` alone, `split` to datasets with several."""

    root: Path
    folder: Path | None = None
    download: bool = False
    size: int = 32
    channels: int = 3
    split: str | None = None


@dataclass(frozen=True)
class Decoded:
    """What a builder returns. `val` is None where it is to be split off `train`."""

    spec: ImageSpec
    class_names: tuple[str, ...]
    train: Split
    test: Split
    val: Split | None = None
    augment: Augment = field(default_factory=Augment)


def data_root(root: str | Path | None = None) -> Path:
    """`root`, else `CNNBENCH_DATA`, else the user's cache folder."""
    chosen = root or os.environ.get("CNNBENCH_DATA") or Path(platformdirs.user_cache_dir("cnnbench")) / "data"
    return Path(chosen).expanduser()


def load(name: str, source: Source, label: str | None = None, train_images: int | None = None) -> Dataset:
    """The dataset `name`, checked, with its validation split; records call it `label` if given.

    Of the training images only `train_images` are handed out, if given; validation and test stay whole.

    Raises:
        CnnbenchError: Unknown name, or more training images asked for than there are (exit 2); missing, truncated or
            altered data, or a label out of range (exit 3).
    """
    builder = dataset[name].load()
    declared = getattr(builder, "declared", {})
    splits = declared.get("splits", {})
    if source.split and source.split not in splits:
        accepted = hint(source.split, list(splits)) if splits else "it has none but its own, which needs no name"
        raise CnnbenchError(f"{name} has no split {source.split!r}: {accepted}")
    decoded: Decoded = builder(source)
    _check_arrays(name, decoded)
    digest = content_hash(decoded)
    expected = splits[source.split] if source.split else declared.get("sha256")
    if expected and digest != expected:
        raise CnnbenchError(
            f"{name} in {source.root} is altered: its images hash to {digest[:12]}, expected {expected[:12]}; "
            "remove the files and fetch them again",
            Exit.DATA,
        )
    train, val = (decoded.train, decoded.val) if decoded.val is not None else holdout(decoded.train, fraction=0.1)
    if train_images not in (None, len(train)):  # all of them need no copy
        train = fewer(train, train_images)
    return Dataset(
        label or labelled(name, source.split),
        decoded.spec,
        decoded.class_names,
        decoded.augment,
        digest,
        train=train,
        val=val,
        test=decoded.test,
    )


def labelled(name: str, split: str | None) -> str:
    """What records call a dataset that was given no name."""
    return f"{name}_{split}" if split else name


def open_choice(choice: DataChoice, download: bool = False) -> Dataset:
    """The dataset that the data options of a config or of a record name.

    Raises:
        CnnbenchError: See `load`.
    """
    folder = choice.folder
    source = Source(
        root=data_root(choice.root),
        folder=Path(folder).expanduser() if folder else None,
        download=download,
        size=choice.size,
        channels=choice.channels,
        split=choice.split,
    )
    return load(choice.dataset, source, label=choice.name, train_images=choice.train_images)


def open_recorded(recorded: DataRecord, root: str | None = None, folder: str | None = None) -> Dataset:
    """The very images that a record speaks of, wherever they lie now.

    Raises:
        CnnbenchError: They are missing, or other images lie there (exit 3).
    """
    data = open_choice(msgspec.structs.replace(recorded, root=root or recorded.root, folder=folder or recorded.folder))
    if data.sha256 != recorded.sha256:
        raise CnnbenchError(
            f"these are not the images of the record: {data.name} hashes to {data.sha256[:12]}, "
            f"the record's to {recorded.sha256[:12]}",
            Exit.DATA,
        )
    return data


def describe(data: Dataset, choice: DataChoice) -> DataRecord:
    """What a record says of the data: the options that `open_recorded` needs, its hash and its sizes."""
    return DataRecord(
        dataset=choice.dataset,
        root=choice.root,
        folder=choice.folder,
        name=data.name,
        split=choice.split,
        size=choice.size,
        channels=choice.channels,
        sha256=data.sha256,
        train_images=len(data.train),
        val_images=len(data.val),
        test_images=len(data.test),
        augment=data.augment,
    )


def holdout(split: Split, fraction: float) -> tuple[Split, Split]:
    """Split off `fraction` of each class; the rest first. See `held_out`."""
    held = held_out(split.labels, fraction)
    return take(split, ~held), take(split, held)


def held_out(labels: np.ndarray, fraction: float) -> np.ndarray:
    """A mask `(N,)` over `labels` `(N,)`: `fraction` of each class, at least one image, by a fixed seed.

    Raises:
        CnnbenchError: A class has too few images to leave one behind (exit 3).
    """
    # RandomState's stream is frozen by numpy's policy (NEP 19); a Generator's may change between releases.
    random = np.random.RandomState(SPLIT_SEED)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(1, round(fraction * len(members)))
        if count >= len(members):
            raise CnnbenchError(
                f"class {label} has too few images: splitting off {count} would leave none to train on; "
                "expected at least 3 a class, or folders val and test",
                Exit.DATA,
            )
        held[random.permutation(members)[:count]] = True
    return held


def fewer(split: Split, count: int) -> Split:
    """`count` of the images, each class in its proportion, by a fixed seed; a smaller draw is part of a larger one.

    Raises:
        CnnbenchError: There are not so many, or fewer than one a class are asked for (exit 2).
    """
    classes = np.unique(split.labels)
    if not len(classes) <= count <= len(split):
        raise CnnbenchError(
            f"data.train_images is {count}: expected {len(classes)} (one a class) to {len(split)} (all of them)"
        )
    random = np.random.RandomState(SPLIT_SEED)
    place = np.empty(len(split))
    for label in classes:  # where each image stands in its class, from 0 up to 1: so the first images are a fair sample
        members = np.flatnonzero(split.labels == label)
        place[members] = random.permutation(len(members)) / len(members)
    return take(split, np.sort(place.argsort(kind="stable")[:count]))


def take(split: Split, chosen: np.ndarray) -> Split:
    """The images and labels at `chosen`, places or a mask."""
    return Split(split.images[chosen], split.labels[chosen])


def measured(spec: ImageSpec, train: Split) -> ImageSpec:
    """`spec` with the mean and standard deviation of the training pixels, exactly, from their histogram."""
    counts = np.zeros((spec.channels, 256), dtype=np.int64)
    for start in range(0, len(train), 4096):  # a folder may be larger than memory
        part = train.images[start : start + 4096]
        for channel in range(spec.channels):
            counts[channel] += np.bincount(part[..., channel].ravel(), minlength=256)
    levels = np.arange(256) / 255
    weights = counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ levels
    std = np.sqrt(np.maximum((weights * (levels - mean[:, None]) ** 2).sum(axis=1), 1e-6))  # a constant channel
    return replace(spec, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def content_hash(decoded: Decoded) -> str:
    """SHA-256 over shape, pixels and labels of train, val (if given) and test."""
    digest = hashlib.sha256()
    for split in _splits(decoded):
        digest.update(repr(split.images.shape).encode())
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(split.labels.astype("<i8").data)
    return digest.hexdigest()


def _splits(decoded: Decoded) -> list[Split]:
    return [split for split in (decoded.train, decoded.val, decoded.test) if split is not None]


def _check_arrays(name: str, decoded: Decoded) -> None:
    spec = decoded.spec
    for split in _splits(decoded):
        if not len(split) or split.images.shape != (len(split), spec.height, spec.width, spec.channels):
            raise CnnbenchError(
                f"{name} has images of shape {split.images.shape} and {len(split)} labels; "
                f"expected (N, {spec.height}, {spec.width}, {spec.channels}) with N labels",
                Exit.DATA,
            )
        if split.labels.min() < 0 or split.labels.max() >= spec.num_classes:
            raise CnnbenchError(
                f"{name} has labels from {split.labels.min()} to {split.labels.max()}; "
                f"expected 0 to {spec.num_classes - 1}",
                Exit.DATA,
            )
