"""The user's own images: `train/<class>/*`, and `val/<class>/*` and `test/<class>/*` where they exist.

Images are decoded once, brought to one size and mode, and kept in a memory-mapped cache, so that a folder may be
larger than memory. A change of any file's name, size or time makes a new cache.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from filelock import FileLock

from cnnbench.cache import cache_folder
from cnnbench.datasets import Decoded, Source, dataset, decoding
from cnnbench.datasets.decoding import decode
from cnnbench.datasets.splits import held_out, with_pixel_stats
from cnnbench.records import replacing
from cnnbench.types import CnnbenchError, Exit, ImageSpec, Preprocessing, Split

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
DECODER = 2  # counts up when `decode` gives other pixels, so that no cache of the old ones is used
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
    chosen = _chosen(files["train"].paths, source)
    train, val, test = (_decoded(files[part], source, chosen) for part in ("train", "val", "test"))
    spec = ImageSpec(source.size, source.size, source.channels, len(class_names))
    return Decoded(with_pixel_stats(spec, train), class_names, train, test, val, preprocessing=chosen)


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


def _chosen(paths: list[Path], source: Source) -> Preprocessing:
    """How all files are decoded, from the cache if nothing changed since it was chosen."""
    cache = _cache_file(paths, source).with_suffix(".json")
    try:
        return msgspec.json.decode(cache.read_bytes(), type=Preprocessing)
    except (OSError, msgspec.DecodeError):  # none there, or of another version
        chosen = decoding.choose(paths, size=source.size, channels=source.channels)
    with replacing(cache) as partial:
        partial.write_bytes(msgspec.json.encode(chosen))
    return chosen


def _decoded(files: Files, source: Source, chosen: Preprocessing) -> Split:
    """The images of `files`, from the cache if nothing changed since it was written."""
    cache = _cache_file(files.paths, source, chosen)
    with FileLock(cache.with_suffix(".lock")):  # several processes of one run, or several runs, decode once
        if not cache.exists():
            _decode_all(files.paths, cache, source, chosen)
    return Split(np.load(cache, mmap_mode="c"), files.labels)


def _cache_file(paths: list[Path], source: Source, chosen: Preprocessing | None = None) -> Path:
    digest = hashlib.sha256(f"{DECODER} {source.size} {source.channels} {chosen}".encode())
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


def _decode_all(paths: list[Path], cache: Path, source: Source, chosen: Preprocessing) -> None:
    shape = (len(paths), source.size, source.size, source.channels)
    with replacing(cache) as partial:
        images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        for index, path in enumerate(paths):
            images[index] = decode(path, chosen, size=source.size)
        images.flush()
