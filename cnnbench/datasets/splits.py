"""Splits of a dataset: drawn class by class by a fixed seed, so that all runs choose and test on the same images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cnnbench.types import SEED, CnnbenchError, Exit, ImageSpec, Split


def holdout(split: Split, *, fraction: float) -> tuple[Split, Split]:
    """Split off `fraction` of each class; the rest first. See `held_out`."""
    held = held_out(split.labels, fraction=fraction)
    return subset(split, ~held), subset(split, held)


def held_out(labels: np.ndarray, *, fraction: float) -> np.ndarray:
    """A mask `(N,)` over `labels` `(N,)`: `fraction` of each class, at least one image, by a fixed seed.

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
            raise CnnbenchError(
                f"class {label} has too few images: splitting off {count} would leave none to train on; "
                "expected at least 3 per class, or folders val and test",
                Exit.DATA,
            )
        held[random.permutation(members)[:count]] = True
    return held


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
    """The images and labels at `chosen`, places or a mask."""
    return Split(split.images[chosen], split.labels[chosen])


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
