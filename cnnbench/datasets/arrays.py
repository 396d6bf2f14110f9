"""An .npz of images and labels; each image is a lossless file in memory, read as any other."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cnnbench.datasets.tree import File, Found, Layout
from cnnbench.types import CnnbenchError, Exit

EXPECTED = (
    "images and labels, or train_images and train_labels (x_train and y_train) with those of val and test if there are "
    "any: images (N, H, W) or (N, H, W, C) uint8 with C of 1, 3 or 4, labels (N,); class_names if labels are numbers"
)
SPLITS = ("train", "val", "test")


def of_arrays(path: Path) -> Layout:
    """The images in an .npz.

    Raises:
        CnnbenchError: The file is damaged or holds other arrays (exit 3).
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, TypeError, AttributeError) as error:
        raise CnnbenchError(f"{path} cannot be read as arrays: {error}; expected {EXPECTED}", Exit.DATA) from None
    parts = _parts(arrays)
    if not parts:
        have = ", ".join(arrays) or "none"
        raise CnnbenchError(f"{path} has the arrays {have}; expected {EXPECTED}", Exit.DATA)
    found: list[Found] = []
    for split, (images, labels) in parts.items():
        _check(path, split, images, labels)
        classes = _classes(path, labels.reshape(-1), arrays.get("class_names"))
        for number, (pixels, label) in enumerate(zip(images, classes, strict=True)):
            file = File(f"{split or 'image'} {number}", partial(_opened, pixels), sha256=_sha256(pixels))
            found.append(Found(file, label, split))
    return Layout("arrays", tuple(found))


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


def _parts(arrays: dict[str, np.ndarray]) -> dict[str | None, tuple[np.ndarray, np.ndarray]]:
    """Images and labels by split; those of no split under None."""
    parts: dict[str | None, tuple[np.ndarray, np.ndarray]] = {}
    for split in SPLITS:
        for images, labels in ((f"{split}_images", f"{split}_labels"), (f"x_{split}", f"y_{split}")):
            if images in arrays and labels in arrays:
                parts[split] = arrays[images], arrays[labels]
    if parts or not {"images", "labels"} <= arrays.keys():
        return parts
    return {None: (arrays["images"], arrays["labels"])}


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
