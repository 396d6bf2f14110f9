"""From the data options of a configuration or a record to a `Dataset`, checked and split, and back to a record."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from cnnbench import records
from cnnbench.cache import cache_folder
from cnnbench.datasets import OPTIONS, Decoded, Source, border, contract, dataset
from cnnbench.datasets.splits import folded, holdout, subsample, with_pixel_stats
from cnnbench.records.schema import DataChoice, DataConfig, DataRecord
from cnnbench.registry import hint
from cnnbench.types import Augment, CnnbenchError, Dataset, Exit, Split


def data_root(root: str | Path | None = None) -> Path:
    """`root`, else `CNNBENCH_DATA`, else the user's cache folder."""
    chosen = root or os.environ.get("CNNBENCH_DATA") or cache_folder("data")
    return Path(chosen).expanduser()


def open_choice(choice: DataChoice, *, download: bool = False) -> Dataset:
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
        skip_broken=choice.skip_broken,
    )
    data = load(choice.dataset, source, label=choice.name, train_images=choice.train_images, fold=choice.fold)
    return replace(data, augment=_augment(data, choice)) if isinstance(choice, DataConfig) else data


def _augment(data: Dataset, config: DataConfig) -> Augment:
    """What the flags say, and where they say nothing, the dataset.

    Raises:
        CnnbenchError: A padding that is none, or after which a crop may lack most of the image (exit 2).
    """
    usual = data.augment
    flip = usual.flip if config.flip is None else config.flip
    pad = usual.pad if config.pad is None else config.pad
    most = min(data.spec.height, data.spec.width) // 2
    if config.pad is not None and not 0 <= config.pad <= most:
        raise CnnbenchError(
            f"data.pad is {config.pad}: expected 0 to {most}, half a side of the images of {data.spec.size}"
        )
    return Augment(pad=pad, flip=flip)


def check_options(config: DataConfig) -> None:
    """Refuse an option that the dataset does not use.

    Raises:
        CnnbenchError: One is set, or the dataset is unknown (exit 2).
    """
    entry = dataset[config.dataset]
    if not entry.ours and "uses" not in entry.declared:
        return
    for name in OPTIONS:
        value = getattr(config, name)
        if value == getattr(DataConfig(), name) or name in entry.declared.get("uses", []):
            continue
        users = [other.name for other in dataset.entries.values() if name in other.declared.get("uses", [])]
        raise CnnbenchError(
            f"data.{name} is {value}: the data set {config.dataset} does not use it; those that do are "
            f"{', '.join(sorted(users))} (--data.dataset)"
        )


def open_recorded(recorded: DataRecord, *, root: str | None = None, folder: str | None = None) -> Dataset:
    """The images that a record describes, wherever they lie now.

    Raises:
        CnnbenchError: They are missing, or other images lie there (exit 3).
    """
    place = Path(folder or recorded.folder or ".").expanduser()
    if not place.exists():
        here = "" if place.is_absolute() else f" in {Path.cwd()}; a record may name one relative to where `fit` ran"
        raise CnnbenchError(f"no {place}{here}: say where the images lie, by --folder or --data.folder", Exit.DATA)
    data = open_choice(records.replace(recorded, root=root or recorded.root, folder=folder or recorded.folder))
    require_same(recorded, data)
    return data


def require_same(recorded: DataRecord, data: Dataset) -> None:
    """Refuse images that are not those of a record.

    Raises:
        CnnbenchError: They are others (exit 3, with what changed).
    """
    if data.sha256 == recorded.sha256:
        return
    from cnnbench.datasets.changes import what_changed

    changed = what_changed(recorded.sha256, data.sha256)
    if not changed:
        before = _counts(recorded.train_images, recorded.val_images, recorded.test_images)
        changed = f"here are {_counts(len(data.train), len(data.val), len(data.test))}; the record has {before}"
    raise CnnbenchError(
        f"these are not the images of the record: {data.name} hashes to {data.sha256[:12]}, "
        f"the record's to {recorded.sha256[:12]}; {changed}",
        Exit.DATA,
    )


def _counts(train: int, val: int, test: int) -> str:
    return f"{train:,} training, {val:,} validation and {test:,} test images"


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
        skip_broken=choice.skip_broken,
        fold=choice.fold,
        sha256=data.sha256,
        train_images=len(data.train),
        val_images=len(data.val),
        test_images=len(data.test),
        augment=data.augment,
        preprocessing=data.preprocessing,
        broken=data.broken,
    )


def load(
    name: str,
    source: Source,
    *,
    label: str | None = None,
    train_images: int | None = None,
    fold: str | None = None,
) -> Dataset:
    """The dataset `name`, checked, with its validation split; records call it `label` if given.

    With `train_images` the training split has only so many images; validation and test keep all of theirs. With `fold`,
    such as 2/5, validation is that part of training and validation images.

    Raises:
        CnnbenchError: Unknown name, more training images wanted than there are, or a fold that is none (exit 2);
            missing, truncated or altered data, or a label out of range (exit 3).
    """
    entry = dataset[name]
    builder = entry.load()
    declared = entry.declarations()
    splits = declared.get("splits", {})
    drawn = "split" in declared.get("uses", [])
    if source.split and not drawn and source.split not in splits:
        accepted = hint(source.split, list(splits)) if splits else "it has none but its own, which needs no name"
        raise CnnbenchError(f"{name} has no split {source.split!r}: {accepted}")
    decoded = contract.decode(name, builder, source=source)
    contract.check_declared(name, decoded.spec, declared=declared)
    digest = decoded.sha256 if entry.ours and decoded.sha256 else content_hash(decoded)
    expected = splits.get(source.split) if source.split else declared.get("sha256")
    if expected and digest != expected:
        raise CnnbenchError(
            f"{name} in {source.root} is altered: its images hash to {digest[:12]}, expected {expected[:12]}; "
            "remove the files and fetch them again",
            Exit.DATA,
        )
    contract.check_plausible(name, decoded)
    if not entry.ours:
        contract.check_repeatable(name, builder, source=source, sha256=digest, content_hash=content_hash)
        contract.say_doubtful_statistics(name, decoded)
    train, val = decoded.train, decoded.val
    if val is None:
        train, val = holdout(train, fraction=0.1, class_names=decoded.class_names)
    spec = decoded.spec
    if fold is not None:
        train, val = folded(train, val, fold=fold)
        spec = with_pixel_stats(spec, train)  # what is validated on is not normalised by
    if train_images not in (None, len(train)):  # all of them need no copy
        train = subsample(train, train_images)
    return Dataset(
        label or default_name(name, source.split),
        spec,
        decoded.class_names,
        decoded.augment,
        digest,
        train=train,
        val=val,
        test=decoded.test,
        preprocessing=decoded.preprocessing or border.of_arrays(decoded.train),
        notes=decoded.notes,
        broken=decoded.broken,
    )


def default_name(name: str, split: str | None) -> str:
    """What records call a dataset that was given no name."""
    return f"{name}_{split}" if split else name


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
