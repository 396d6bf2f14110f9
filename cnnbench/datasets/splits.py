"""Splits of a dataset: drawn class by class by a fixed seed, so that all runs choose and test on the same images."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from cnnbench.types import SEED, CnnbenchError, Exit, ImageSpec, Split


def holdout(split: Split, *, fraction: float, class_names: Sequence[str] = ()) -> tuple[Split, Split]:
    """Split off `fraction` of each class; the rest first. See `held_out`."""
    held = held_out(split.labels, fraction=fraction, class_names=class_names)
    return subset(split, ~held), subset(split, held)


def held_out(labels: np.ndarray, *, fraction: float, class_names: Sequence[str] = ()) -> np.ndarray:
    """A mask `(N,)` over `labels` `(N,)`: `fraction` of each class, at least one image, by a fixed seed.

    Args:
        labels: Of the images.
        fraction: Of each class.
        class_names: By label, for messages.

    Raises:
        CnnbenchError: A class has too few images to leave one behind (exit 3).
    """
    # RandomState's stream is frozen by numpy's policy (NEP 19); a Generator's may change between releases.
    random = np.random.RandomState(SEED)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(1, round(fraction * len(members)))
        if count >= len(members):
            name = class_names[label] if class_names else label
            raise CnnbenchError(
                f"class {name} has too few images: splitting off {count} would leave none to train on; "
                "expected at least 2 per class, or a validation split",
                Exit.DATA,
            )
        held[random.permutation(members)[:count]] = True
    return held


FOLDS = range(2, 101)
"""Into how many parts a cross-validation may divide."""


def parse_fold(text: str) -> tuple[int, int]:
    """The number of a fold, from 1 on, and how many there are, from `2/5`.

    Raises:
        CnnbenchError: It is no fold (exit 2).
    """
    number, slash, count = text.partition("/")
    if slash and number.isdecimal() and count.isdecimal() and int(count) in FOLDS and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise CnnbenchError(f"data.fold is {text!r}: expected a fold such as 2/5, of {FOLDS[0]} to {FOLDS[-1]}")


def folded(train: Split, val: Split, *, fold: str) -> tuple[Split, Split]:
    """Training and validation images of one fold of a cross-validation over both, divided class by class.

    Over all folds each image is validated on once.

    Raises:
        CnnbenchError: It is no fold (exit 2), or a class has fewer images than there are folds (exit 3).
    """
    number, count = parse_fold(fold)
    labels = np.concatenate([train.labels, val.labels])
    random = np.random.RandomState(SEED)
    held = np.zeros(len(labels), dtype=bool)
    first = 0  # where the folds begin to be dealt out, so that they come out equally large over all classes
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        if len(members) < count:
            raise CnnbenchError(
                f"data.fold {fold}: class {label} has {len(members)} images for training and validation; "
                f"expected at least one for each of {count} folds",
                Exit.DATA,
            )
        held[members[(np.arange(len(members)) + first) % count == number - 1]] = True
        first += len(members)
    names = None if train.names is None or val.names is None else np.concatenate([train.names, val.names])
    both = Split(np.concatenate([train.images, val.images]), labels, names)
    return subset(both, ~held), subset(both, held)


def divided(
    labels: Sequence[int], units: Sequence[str], *, fractions: Mapping[str, float], class_names: Sequence[str]
) -> list[str]:
    """The split of each image: "train", or a part that takes its fraction of each class.

    Images of one unit stay together. The draw depends on the keys of the units alone, so that it is the same in
    whatever order images are found, and one more image moves few others.

    Args:
        labels: Class of each image, `(N,)`.
        units: Key of the unit of each image, `(N,)`.
        fractions: Of each part that is split off; what is left is train.
        class_names: By label, for messages.

    Raises:
        CnnbenchError: A class has too few images, or too few units, for one in each part (exit 3).
    """
    sizes: dict[str, Counter[int]] = defaultdict(Counter)
    for label, unit in zip(labels, units, strict=True):
        sizes[unit][label] += 1
    needed = _needed(Counter(labels), fractions)
    left = Counter(label for classes in sizes.values() for label in classes)
    for label, count in left.items():
        if count <= len(fractions) or needed["train"][label] < 1:
            raise CnnbenchError(
                f"class {class_names[label]} has too few images to split off {' and '.join(fractions)}: {count} that "
                f"may be parted, expected at least {len(fractions) + 1}; or give each split a folder",
                Exit.DATA,
            )
    wanted = {part: Counter(counts) for part, counts in needed.items()}
    chosen: dict[str, str] = {}
    has: set[tuple[str, int]] = set()
    for unit in sorted(sizes, key=lambda unit: (-sizes[unit].total(), _draw(unit))):
        parts = list(wanted)
        for label in sizes[unit]:  # a part that has nothing of a class yet comes first where units run out
            empty = [part for part in wanted if (part, label) not in has]
            if left[label] <= len(empty):
                parts = [part for part in parts if part in empty] or parts
        part = _roomiest(parts, wanted, unit=sizes[unit])
        chosen[unit] = part
        wanted[part].subtract(sizes[unit])
        left.subtract(dict.fromkeys(sizes[unit], 1))
        has |= {(part, label) for label in sizes[unit]}
    for label in left:
        if ("train", label) not in has:
            raise CnnbenchError(
                f"class {class_names[label]} would have no training image: its groups are few", Exit.DATA
            )
    return [chosen[unit] for unit in units]


def _needed(counts: Counter[int], fractions: Mapping[str, float]) -> dict[str, Counter[int]]:
    """How many images of each class each part is to have: at least one, and train the rest."""
    needed = {
        part: Counter({label: max(1, round(fraction * count)) for label, count in counts.items()})
        for part, fraction in fractions.items()
    }
    rest = Counter({label: count - sum(part[label] for part in needed.values()) for label, count in counts.items()})
    return {**needed, "train": rest}


def _roomiest(parts: Sequence[str], wanted: Mapping[str, Counter[int]], *, unit: Counter[int]) -> str:
    """The first part that a unit fits into, else the one that wants most of its classes."""
    fitting = (part for part in parts if all(wanted[part][label] >= count for label, count in unit.items()))
    return next(fitting, None) or max(parts, key=lambda part: sum(wanted[part][label] for label in unit))


def _draw(unit: str) -> str:
    return hashlib.sha256(f"{SEED} {unit}".encode()).hexdigest()


def subsample(split: Split, count: int) -> Split:
    """`count` of the images, each class in its proportion, by a fixed seed; a smaller draw is part of a larger one.

    Raises:
        CnnbenchError: There are not so many, or fewer than one per class are wanted (exit 2).
    """
    classes = np.unique(split.labels)
    if not len(classes) <= count <= len(split):
        raise CnnbenchError(
            f"data.train_images is {count}: expected {len(classes)} (one per class) to {len(split)} (all of them)"
        )
    random = np.random.RandomState(SEED)
    place = np.empty(len(split))
    for label in classes:  # where each image stands in its class, from 0 up to 1: so the first images are a fair sample
        members = np.flatnonzero(split.labels == label)
        place[members] = random.permutation(len(members)) / len(members)
    return subset(split, np.sort(place.argsort(kind="stable")[:count]))


def subset(split: Split, chosen: np.ndarray) -> Split:
    """The images, labels and names at `chosen`, places or a mask."""
    names = None if split.names is None else split.names[chosen]
    return Split(split.images[chosen], split.labels[chosen], names)


def with_pixel_stats(spec: ImageSpec, train: Split) -> ImageSpec:
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


def evenly_spaced(count: int, chosen: int) -> np.ndarray:
    """Up to `chosen` of `count` indices, evenly from first to last: a folder's images are sorted by class."""
    return np.unique(np.linspace(0, count - 1, min(count, chosen)).astype(np.int64))


def balanced_weights(labels: np.ndarray, *, classes: int) -> np.ndarray:
    """What an image of each class must count so that all classes count alike: n / (K n_c), `(classes,)` float64.

    K are the classes that have images. The mean over the images is 1; a class without images has 0. King and Zeng
    2001 (doi:10.1093/oxfordjournals.pan.a004868), as scikit-learn's "balanced".

    Args:
        labels: `(n,)`.
        classes: That there are.
    """
    counts = np.bincount(labels, minlength=classes)
    used = int((counts > 0).sum())
    weights: np.ndarray = np.divide(len(labels), used * counts, out=np.zeros(classes), where=counts > 0)
    return weights
