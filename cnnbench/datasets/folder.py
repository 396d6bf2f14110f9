"""The user's own images: `train/<class>/*`, and `val/<class>/*` and `test/<class>/*` where they exist.

Images are decoded once, brought to one size and mode, and kept in a memory-mapped cache, so that a folder may be
larger than memory. A change of any file's name, size or time makes a new cache.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import platformdirs
from filelock import FileLock
from PIL import Image, ImageOps, UnidentifiedImageError

from cnnbench.datasets import Decoded, Source, dataset, holdout, measured
from cnnbench.records import replacing
from cnnbench.types import Augment, CnnbenchError, Exit, ImageSpec, Split

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
LAYOUT = "train/<class>/<image> with at least two classes, and optionally val/ and test/ laid out alike"


@dataset()
def folder(source: Source) -> Decoded:
    """Your own images, --data.folder DIR with train/<class>/*."""
    if source.folder is None or not (source.folder / "train").is_dir():
        where = f"{source.folder} holds no folder train" if source.folder else "no --data.folder given"
        raise CnnbenchError(f"{where}; expected {LAYOUT}", Exit.DATA)
    if source.channels not in (1, 3) or source.size < 1:
        raise CnnbenchError(f"data.size {source.size}, data.channels {source.channels}: expected a size of at least 1, and 1 or 3 channels")  # fmt: skip
    class_names = tuple(sorted(path.name for path in (source.folder / "train").iterdir() if path.is_dir()))
    if len(class_names) < 2:
        raise CnnbenchError(
            f"{source.folder}/train holds {len(class_names)} class folders; expected {LAYOUT}", Exit.DATA
        )
    train = _read(source.folder / "train", class_names, source)
    val = _read(source.folder / "val", class_names, source) if (source.folder / "val").is_dir() else None
    if (source.folder / "test").is_dir():
        test = _read(source.folder / "test", class_names, source)
    else:
        train, test = holdout(train, fraction=0.1)
    spec = ImageSpec(source.size, source.size, source.channels, len(class_names))
    augment = Augment(pad=max(1, source.size // 8), flip=True)  # a padding of 4 at 32 pixels, as for CIFAR
    return Decoded(measured(spec, train), class_names, train, test, val, augment)


def decode(path: Path, size: int, channels: int) -> np.ndarray:
    """One image file as `(size, size, channels)` uint8: upright, in RGB or gray, resized whole with bilinear filtering.

    Raises:
        CnnbenchError: The file is not an image or is truncated (exit 3).
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB" if channels == 3 else "L")
            if upright.size != (size, size):
                upright = upright.resize((size, size), Image.Resampling.BILINEAR)
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise CnnbenchError(f"cannot read {path} as an image: {error}", Exit.DATA) from None
    return np.asarray(upright).reshape(size, size, channels)


def _read(folder: Path, class_names: tuple[str, ...], source: Source) -> Split:
    """Every image below `folder`, from the cache if nothing changed since it was written."""
    if unknown := {path.name for path in folder.iterdir() if path.is_dir()} - set(class_names):
        raise CnnbenchError(f"{folder} holds classes that train lacks: {', '.join(sorted(unknown))}", Exit.DATA)
    paths, labels = [], []
    for label, name in enumerate(class_names):
        found = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in SUFFIXES)
        if not found and folder.name == "train":
            raise CnnbenchError(
                f"{folder / name} holds no image; expected files ending in {' '.join(SUFFIXES)}", Exit.DATA
            )
        paths += found
        labels += [label] * len(found)
    cache = _cache_file(paths, source)
    with FileLock(cache.with_suffix(".lock")):  # several processes of one run, or several runs, decode once
        if not cache.exists():
            _decode_all(paths, cache, source)
    return Split(np.load(cache, mmap_mode="c"), np.asarray(labels, dtype=np.int64))


def _cache_file(paths: list[Path], source: Source) -> Path:
    digest = hashlib.sha256(f"{source.size} {source.channels}".encode())
    for path in paths:
        stat = path.stat()
        digest.update(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    cache = Path(platformdirs.user_cache_dir("cnnbench")) / "folders" / f"{digest.hexdigest()[:32]}.npy"
    cache.parent.mkdir(parents=True, exist_ok=True)
    return cache


def _decode_all(paths: list[Path], cache: Path, source: Source) -> None:
    shape = (len(paths), source.size, source.size, source.channels)
    with replacing(cache) as partial:
        images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        for index, path in enumerate(paths):
            images[index] = decode(path, source.size, source.channels)
        images.flush()
