"""What the builder of a dataset must return; each fault is one line (exit 3)."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from cnnbench.cache import cache_folder
from cnnbench.datasets import Decoded, Source
from cnnbench.datasets.splits import evenly_spaced, subset, with_pixel_stats
from cnnbench.extras import told
from cnnbench.types import (
    LONGEST_NAME,
    Augment,
    CnnbenchError,
    Exit,
    ImageSpec,
    SpecError,
    Split,
    Terminated,
    first_line,
    is_control,
)

Builder = Callable[[Source], Any]

MEASURED_IMAGES = 1000
"""On which the statistics that a data set states are looked at."""

MEAN_TOLERANCE, STD_FACTOR = 0.1, 2.0
"""How far those may be from the pixels' own before a line says so; rounding and other crops stay well within."""


def decode(name: str, builder: Builder, *, source: Source) -> Decoded:
    """What a builder returns, checked: class names as a tuple, labels as int64, arrays that torch can read in place.

    Raises:
        CnnbenchError: It raises, or returns something else than images and labels that fit together (exit 3); what it
            imports is not installed (exit 6).
    """
    try:
        with told(f"dataset {name}"):
            decoded = builder(source)
    except SpecError as error:
        raise _fault(name, f"cannot be read: {error}") from None
    except (CnnbenchError, Terminated):
        raise
    except ImportError as error:
        raise CnnbenchError(f"dataset {name} cannot be read: {first_line(error)}", Exit.ENVIRONMENT) from None
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # an exit would end the verb, and might look like success
        raise CnnbenchError(
            f"dataset {name} cannot be read: {type(error).__name__}: {first_line(error)}", Exit.DATA
        ) from None
    if not isinstance(decoded, Decoded):
        raise _fault(name, f"returned a {type(decoded).__name__}: expected a Decoded")
    _check_spec(name, decoded)
    for part in ("train", "val", "test"):
        split = getattr(decoded, part)
        if split is not None or part != "val":
            _check_split(name, part, split, decoded.spec)
    if not isinstance(decoded.class_names, tuple | list):
        raise _fault(name, f"has class names of type {type(decoded.class_names).__name__}: expected a tuple of texts")
    names = tuple(decoded.class_names)
    if len(names) != decoded.spec.num_classes or not all(isinstance(label, str) for label in names):
        raise _fault(
            name,
            f"has {len(names)} class names for {decoded.spec.num_classes} classes: expected one text per class",
        )
    if odd := [label for label in names if not label.strip() or any(map(is_control, label))]:
        raise _fault(name, f"has a class named {odd[0]!r}: expected text without control characters")
    if odd := [label for label in names if len(label) > LONGEST_NAME]:
        raise _fault(name, f"has a class named {odd[0][:40]!r}...: expected at most {LONGEST_NAME} characters")
    return replace(
        decoded,
        class_names=names,
        train=_for_torch(decoded.train),
        val=None if decoded.val is None else _for_torch(decoded.val),
        test=_for_torch(decoded.test),
    )


def _for_torch(split: Split) -> Split:
    """Labels as int64; arrays that torch cannot share memory with, read backwards or read-only, are copied."""
    images, labels = split.images, split.labels.astype(np.int64, copy=False)
    if min(images.strides) < 0 or not images.flags.writeable:
        images = images.copy()
    if min(labels.strides) < 0 or not labels.flags.writeable:
        labels = labels.copy()
    return (
        split if (images is split.images and labels is split.labels) else replace(split, images=images, labels=labels)
    )


def _fault(name: str, what: str) -> CnnbenchError:
    return CnnbenchError(f"dataset {name} {what}", Exit.DATA)


def _require(name: str, what: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise _fault(name, f"has a {what} of type {type(value).__name__}: expected {kind.__name__}")


def _check_spec(name: str, decoded: Decoded) -> None:
    _require(name, "spec", decoded.spec, ImageSpec)
    _require(name, "augment", decoded.augment, Augment)
    spec = decoded.spec
    for channel, std in enumerate(spec.std):
        if not (np.isfinite(std) and std > 0):
            raise _fault(name, f"states a standard deviation of {std:g} for channel {channel}: expected more than 0")
    for channel, (mean, std) in enumerate(zip(spec.mean, spec.std, strict=False)):
        if not (0 <= mean <= 1 and std <= 1):
            raise _fault(
                name,
                f"states a mean of {mean:g} and a standard deviation of {std:g} for channel {channel}: "
                "expected those of pixels in [0, 1]",
            )
    if bool(spec.mean) != bool(spec.std):
        raise _fault(name, "states one of mean and standard deviation: expected both, or neither")


def _check_split(name: str, part: str, split: object, spec: ImageSpec) -> None:
    _require(name, part, split, Split)
    assert isinstance(split, Split)
    for what, array in (("images", split.images), ("labels", split.labels)):
        if not isinstance(array, np.ndarray):
            raise _fault(name, f"has {part} {what} of type {type(array).__name__}: expected a numpy array")
    images, labels = split.images, split.labels
    if images.dtype != np.uint8:
        raise _fault(name, f"has {part} images of {images.dtype}: expected uint8, from 0 to 255")
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise _fault(name, f"has {part} labels of {labels.dtype} {labels.shape}: expected whole numbers (N,)")
    if not len(labels) or images.shape != (len(labels), spec.height, spec.width, spec.channels):
        raise _fault(
            name,
            f"has {part} images of shape {images.shape} and {len(labels)} labels; "
            f"expected (N, {spec.height}, {spec.width}, {spec.channels}) with N labels",
        )
    if labels.min() < 0 or labels.max() >= spec.num_classes:
        raise _fault(
            name, f"has {part} labels from {labels.min()} to {labels.max()}; expected 0 to {spec.num_classes - 1}"
        )


def check_declared(name: str, spec: ImageSpec, *, declared: Mapping[str, Any]) -> None:
    """Images of the size, and as many classes, as the data set declares, where it does.

    Raises:
        CnnbenchError: They are others (exit 3).
    """
    stated = ImageSpec.of(declared.get("size", spec.size), declared.get("classes", spec.num_classes))
    if (stated.size, stated.num_classes) != (spec.size, spec.num_classes):
        raise _fault(name, f"declares {stated}, and returns {spec}")


def check_plausible(name: str, decoded: Decoded) -> None:
    """Images and classes that could be meant.

    Raises:
        CnnbenchError: Two classes have one name, a class has no training image, all images are the same, or no pixel
            is more than 1 (exit 3).
    """
    names, count = tuple(decoded.class_names), decoded.spec.num_classes
    if len({*names}) < count:
        twice = next(label for label in names if names.count(label) > 1)
        raise _fault(name, f"has two classes named {twice!r}")
    missing = np.setdiff1d(np.arange(count), decoded.train.labels)
    if len(missing):
        raise _fault(name, f"has no training image of class {missing[0]} ({names[missing[0]]})")
    first = decoded.train.images[:1]
    if len(decoded.train) > 1 and all(
        np.array_equal(part, np.broadcast_to(first, part.shape))
        for part in np.array_split(decoded.train.images, max(1, len(decoded.train) // 4096))
    ):
        raise _fault(name, "has the same image everywhere in train")
    if decoded.train.images.max() <= 1:  # divided by 255 and rounded, or a mask
        raise _fault(name, "has train images from 0 to 1: expected 0 to 255, as a decoder gives them")


def check_repeatable(
    name: str, builder: Builder, *, source: Source, sha256: str, content_hash: Callable[[Decoded], str]
) -> None:
    """Call a builder of others again, once per content: the same images must come.

    Raises:
        CnnbenchError: Others came (exit 3).
    """
    key = hashlib.sha256(f"{name} {sha256}".encode()).hexdigest()
    known = cache_folder("checks") / f"{key}.data"
    if known.exists():
        return
    again = content_hash(decode(name, builder, source=source))
    if again != sha256:
        raise _fault(
            name, f"gives other images at a second call ({sha256[:12]}, then {again[:12]}): draw them by a fixed seed"
        )
    try:
        known.parent.mkdir(parents=True, exist_ok=True)
        known.touch()
    except OSError:  # it is read twice the next time, too
        pass


def say_doubtful_statistics(name: str, decoded: Decoded) -> None:
    """Say where pixels are not normalised, or by other figures than their own, as those of ImageNet would be.

    Both train, so neither is refused. The pixels' own are measured on some of the images.
    """
    spec, train = decoded.spec, decoded.train
    if not spec.mean:
        say(name, "states no mean and standard deviation: pixels are not normalised")
        return
    some = with_pixel_stats(spec, subset(train, evenly_spaced(len(train), MEASURED_IMAGES)))
    for channel, (mean, std, own_mean, own_std) in enumerate(
        zip(spec.mean, spec.std, some.mean, some.std, strict=True)
    ):
        if abs(mean - own_mean) > MEAN_TOLERANCE or not 1 / STD_FACTOR <= std / own_std <= STD_FACTOR:
            stated = f"states a mean of {mean:.2g} and a standard deviation of {std:.2g} for channel {channel}"
            say(name, f"{stated}; its training pixels have about {own_mean:.2g} and {own_std:.2g}")
            return


@cache
def say(name: str, what: str) -> None:
    """Say, once per process, what is no fault but may not be meant."""
    print(f"note: dataset {name} {what}", file=sys.stderr)
