"""An .npz of images and labels; each image is a lossless file in memory, read as any other."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cnnbench.datasets.archives import DAMAGE, reason
from cnnbench.datasets.tree import ROLES, File, Found, Layout
from cnnbench.types import CnnbenchError, Exit, listed, one_line

EXPECTED = (
    "images and labels, or train_images and train_labels (x_train and y_train) with those of val and test if there are "
    "any: images (N, H, W) or (N, H, W, C) uint8 with C of 1, 3 or 4, labels (N,); class_names if labels are numbers"
)
SPLITS = ("train", "val", "test")
NAMES = "class_names"
ARRAYS = "arrays"
"""How the images lie, in words."""
Pair = tuple[str, str]
"""Names of an array of images and of that of their labels."""
MOST_PACKED = 1100
"""Times its own size that a packed array unpacks to; deflate's most is 1032."""


def of_arrays(path: Path) -> Layout:
    """The images in an .npz.

    Raises:
        CnnbenchError: The file is damaged, or holds other arrays than those of images, labels and class names (exit 3).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            pairs = _pairs(path, names)
            wanted = [name for pair in pairs.values() for name in pair] + [NAMES] * (NAMES in names)
            for name in wanted:
                _check_size(archive, name)
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in wanted}
    except (*DAMAGE, TypeError, AttributeError) as error:
        raise CnnbenchError(
            one_line(f"{path} cannot be read as arrays: {reason(error)}; expected {EXPECTED}"), Exit.DATA
        ) from None
    found: list[Found] = []
    for split, (of_images, of_labels) in pairs.items():
        images, labels = arrays[of_images], arrays[of_labels]
        _check(path, split, images, labels)
        classes = _classes(path, labels.reshape(-1), arrays.get(NAMES))
        for number, (pixels, label) in enumerate(zip(images, classes, strict=True)):
            file = File(f"{split or 'image'} {number}", partial(_opened, pixels), sha256=_sha256(pixels))
            found.append(Found(file, label, split))
    return Layout(ARRAYS, tuple(found))


def _pairs(path: Path, names: Sequence[str]) -> dict[str | None, Pair]:
    """The arrays of each split, those of no split under None; every array is one of them.

    Raises:
        CnnbenchError: Some array is none of them, or two are of one split (exit 3).
    """
    lower = {name.lower(): name for name in names}
    pairs: dict[str | None, Pair] = {}
    for role, split in ROLES.items():
        for images, labels in ((f"{role}_images", f"{role}_labels"), (f"x_{role}", f"y_{role}")):
            if images in lower and labels in lower:
                if split in pairs:
                    both = f"both {pairs[split][0]} and {lower[images]}"
                    raise CnnbenchError(f"{path} holds {both}: keep one of them", Exit.DATA)
                pairs[split] = lower[images], lower[labels]
    if not pairs and {"images", "labels"} <= lower.keys():
        pairs[None] = lower["images"], lower["labels"]
    used = {name for pair in pairs.values() for name in pair} | {NAMES}
    if not pairs:
        raise CnnbenchError(
            one_line(f"{path} has the arrays {listed(names) or 'none'}; expected {EXPECTED}"), Exit.DATA
        )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise CnnbenchError(one_line(f"{path} holds several arrays named {listed(twice)}"), Exit.DATA)
    if unused := [name for name in names if name not in used]:
        raise CnnbenchError(
            one_line(
                f"{path} holds arrays that are not used beside {', '.join(sorted(used & {*names}))}: "
                f"{listed(unused)}; rename or remove them; expected {EXPECTED}"
            ),
            Exit.DATA,
        )
    return {split: pairs[split] for split in (None, *SPLITS) if split in pairs}


def _check_size(archive: zipfile.ZipFile, name: str) -> None:
    """Refuse an array that claims to be larger than what is stored of it, before there is room made for it.

    Raises:
        ValueError: It does, or holds Python objects.
    """
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
        stored = min(info.file_size, MOST_PACKED * (info.compress_size + 1)) - member.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects")
    if math.prod(shape) * dtype.itemsize > stored:
        raise ValueError(f"{name} is {dtype} {shape}, and {stored:,} bytes of it are there")


def encoded(pixels: np.ndarray) -> bytes:
    """An image file of these pixels, `(H, W[, C])` uint8: PPM or PGM, or TIFF where there is transparency."""
    height, width, channels = (*pixels.shape, 1)[:3]
    if channels == 4:
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "TIFF")
        return file.getvalue()
    return f"P{5 if channels == 1 else 6}\n{width} {height}\n255\n".encode() + np.ascontiguousarray(pixels).tobytes()


def _sha256(pixels: np.ndarray) -> str:
    """Over shape and pixels."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _opened(pixels: np.ndarray) -> BinaryIO:
    return io.BytesIO(encoded(pixels))


def _check(path: Path, split: str | None, images: np.ndarray, labels: np.ndarray) -> None:
    where = f"{path}, {split}" if split else f"{path}"
    channels = images.shape[3] if images.ndim == 4 else 1
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or channels not in (1, 3, 4):
        raise CnnbenchError(f"{where}: images are {images.dtype} {images.shape}; expected {EXPECTED}", Exit.DATA)
    if labels.dtype.kind not in "iuU" or labels.size != len(images) or labels.shape[:1] != (len(images),):
        raise CnnbenchError(
            f"{where}: {len(images):,} images, and labels are {labels.dtype} {labels.shape}; expected {EXPECTED}",
            Exit.DATA,
        )


def _classes(path: Path, labels: np.ndarray, names: np.ndarray | None) -> list[str]:
    """The class of each label, in words."""
    if labels.dtype.kind == "U" or names is None:
        return [str(label) for label in labels.tolist()]
    if names.ndim != 1 or names.dtype.kind != "U":
        raise CnnbenchError(f"{path}: class_names are {names.dtype} {names.shape}; expected texts (K,)", Exit.DATA)
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        raise CnnbenchError(
            f"{path}: labels from {labels.min()} to {labels.max()}; expected 0 to {len(names) - 1}, as class_names has "
            f"{len(names)}",
            Exit.DATA,
        )
    return [str(names[label]) for label in labels.tolist()]
