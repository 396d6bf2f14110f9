"""The user's own images: `train/<class>/*`, and `val/<class>/*` and `test/<class>/*` where they exist.

Images are decoded once, brought to one size and mode, and kept in a memory-mapped cache, so that a folder may be
larger than memory. A change of any file's name, size or time makes a new cache.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from cnnbench.cache import cache_folder
from cnnbench.datasets import Decoded, Source, dataset
from cnnbench.datasets.splits import held_out, with_pixel_stats
from cnnbench.records import replacing
from cnnbench.types import Augment, CnnbenchError, Exit, ImageSpec, Split

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
DECODER = 1  # counts up when `decode` gives other pixels, so that no cache of the old ones is used
LAYOUT = "train/<class>/<image> with at least two classes, and optionally val/ and test/ laid out alike"


@dataclass(frozen=True)
class Files:
    """Image files and their labels `(N,)`."""

    paths: list[Path]
    labels: np.ndarray


@dataset()
def folder(source: Source) -> Decoded:
    """Your own images, --data.folder DIR with train/<class>/*."""
    if source.folder is None or not (source.folder / "train").is_dir():
        where = (
            f"{source.folder} holds no folder train"
            if source.folder
            else "no folder of images given (--data.folder; for export and verify --folder)"
        )
        raise CnnbenchError(f"{where}; expected {LAYOUT}", Exit.DATA)
    if source.channels not in (1, 3) or source.size < 1:
        raise CnnbenchError(
            f"data.size {source.size}, data.channels {source.channels}: "
            "expected a size of at least 1, and 1 or 3 channels"
        )
    class_names = tuple(sorted(path.name for path in (source.folder / "train").iterdir() if _is_class(path)))
    if len(class_names) < 2:
        raise CnnbenchError(
            f"{source.folder}/train holds {len(class_names)} class folders; expected {LAYOUT}", Exit.DATA
        )
    files = {"train": _listed(source.folder / "train", class_names)}
    for part in ("test", "val"):
        if (source.folder / part).is_dir():
            files[part] = _listed(source.folder / part, class_names)
        else:  # split before anything is decoded: copying images would need them to fit in memory
            files["train"], files[part] = _split_off(files["train"])
    train, val, test = (_decoded(files[part], source) for part in ("train", "val", "test"))
    spec = ImageSpec(source.size, source.size, source.channels, len(class_names))
    augment = Augment(pad=max(1, source.size // 8), flip=True)  # a padding of 4 at 32 pixels, as for CIFAR
    return Decoded(with_pixel_stats(spec, train), class_names, train, test, val, augment)


def decode(path: Path, *, size: int, channels: int) -> np.ndarray:
    """One image file as `(size, size, channels)` uint8, exactly as a bundle's predict.py reads it.

    Raises:
        CnnbenchError: The file is not an image or is truncated (exit 3).
    """
    from cnnbench.runtime.predict import decode as decode_file

    try:
        return decode_file(path, size, size, channels)
    except OSError as error:
        raise CnnbenchError(f"cannot read {path} as an image: {error}", Exit.DATA) from None


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")  # .ipynb_checkpoints and the like


def _listed(folder: Path, class_names: tuple[str, ...]) -> Files:
    """Every image file below `folder` with its label."""
    if unknown := {path.name for path in folder.iterdir() if _is_class(path)} - set(class_names):
        raise CnnbenchError(f"{folder} holds classes that train lacks: {', '.join(sorted(unknown))}", Exit.DATA)
    paths, labels = [], []
    for label, name in enumerate(class_names):
        images = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in SUFFIXES)
        if not images and folder.name == "train":
            raise CnnbenchError(
                f"{folder / name} holds no image; expected files ending in {' '.join(SUFFIXES)}", Exit.DATA
            )
        paths += images
        labels += [label] * len(images)
    if not paths:
        raise CnnbenchError(f"{folder} holds no images: add some to its class folders, or remove it", Exit.DATA)
    return Files(paths, np.asarray(labels, dtype=np.int64))


def _split_off(files: Files) -> tuple[Files, Files]:
    held = held_out(files.labels, fraction=0.1)
    parts = (
        Files([path for path, chosen in zip(files.paths, mask, strict=True) if chosen], files.labels[mask])
        for mask in (~held, held)
    )
    rest, split_off = parts
    return rest, split_off


def _decoded(files: Files, source: Source) -> Split:
    """The images of `files`, from the cache if nothing changed since it was written."""
    cache = _cache_file(files.paths, source)
    with FileLock(cache.with_suffix(".lock")):  # several processes of one run, or several runs, decode once
        if not cache.exists():
            _decode_all(files.paths, cache, source)
    return Split(np.load(cache, mmap_mode="c"), files.labels)


def _cache_file(paths: list[Path], source: Source) -> Path:
    digest = hashlib.sha256(f"{DECODER} {source.size} {source.channels}".encode())
    for path in paths:
        try:
            stat = path.stat()
        except OSError as error:  # a link to nowhere
            raise CnnbenchError(f"cannot read {path}: {error.strerror}", Exit.DATA) from None
        digest.update(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    cache = cache_folder("folders") / f"{digest.hexdigest()[:32]}.npy"
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CnnbenchError(
            f"cannot write {cache}: {error.strerror}; point XDG_CACHE_HOME at a folder you can write to"
        ) from None
    return cache


def _decode_all(paths: list[Path], cache: Path, source: Source) -> None:
    shape = (len(paths), source.size, source.size, source.channels)
    with replacing(cache) as partial:
        images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        for index, path in enumerate(paths):
            images[index] = decode(path, size=source.size, channels=source.channels)
        images.flush()
