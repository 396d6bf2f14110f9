"""Decoded images of the user, kept in a memory-mapped file, so that they may be larger than memory."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
from filelock import FileLock

from cnnbench import records
from cnnbench.cache import cache_folder
from cnnbench.types import CnnbenchError


@dataclass(frozen=True)
class Images:
    """Decoded images `(N, H, W, C)` uint8, without those that cannot be read."""

    pixels: np.ndarray
    broken: dict[int, str]
    """Why, by place among the files that were asked for."""
    written: int = 0
    """Bytes that were written to the cache for them just now."""


@dataclass(frozen=True)
class Files:
    """Files to decode, each once."""

    key: str
    """Hexadecimal; other where a file, their order or the decoding is another."""
    count: int
    shape: tuple[int, int, int]
    """Height, width and channels."""
    order: Sequence[int]
    """In which they are fast to read."""
    decode: Callable[[int], np.ndarray]
    """The image at a place, of this shape; raises OSError where it cannot be read."""


def decoded(files: Files) -> Images:
    """The images, decoded or from the cache; a process that wants the same ones waits for this one.

    Raises:
        CnnbenchError: The cache cannot be written, or has no room (exit 2).
    """
    cache = cache_folder("folders") / f"{files.key}.npy"
    kept = _kept(cache, files)
    if kept is not None:
        return kept
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(cache.with_suffix(".lock")):
            kept = _kept(cache, files)
            if kept is None:
                _require_room(cache, files)
                _write(cache, files)
                kept = _kept(cache, files)
                assert kept is not None
                kept = replace(kept, written=cache.stat().st_size)
    except OSError as error:
        raise CnnbenchError(
            f"cannot write {cache}: {error.strerror}; `cnnbench clean` shows what the cache holds, and "
            "XDG_CACHE_HOME names another folder for it"
        ) from None
    return kept


def _kept(cache: Path, files: Files) -> Images | None:
    """What the cache holds of these files; None where it is nothing, or damaged."""
    try:
        text = cache.with_suffix(".broken").read_text(encoding="utf-8")
        broken = {int(place): str(reason) for place, reason in json.loads(text).items()}
        pixels = np.load(cache, mmap_mode="c")
    except (OSError, ValueError, AttributeError):
        return None
    expected = (files.count - len(broken), *files.shape)
    return Images(pixels, broken) if pixels.shape == expected and pixels.dtype == np.uint8 else None


def _require_room(cache: Path, files: Files) -> None:
    needed = files.count * int(np.prod(files.shape))
    free = shutil.disk_usage(cache.parent).free
    if needed > free:
        raise CnnbenchError(
            f"{files.count:,} decoded images need {shown_bytes(needed)} in {cache.parent}, where {shown_bytes(free)} "
            "are free: make room (`cnnbench clean` shows what can go), take a smaller --data.size, or name another "
            "folder by XDG_CACHE_HOME"
        )


def shown_bytes(count: int) -> str:
    """Bytes as they are shown."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def _write(cache: Path, files: Files) -> None:
    """Decode all files; the file of images comes last, and says that what is broken is known."""
    broken: dict[int, str] = {}
    with records.replacing(cache) as partial:
        with partial.open("r+b") as file:  # plain writes: a full disk under a mapped file would end the process
            start = _begin(file, (files.count, *files.shape))
            row = int(np.prod(files.shape))
            for place in files.order:
                try:
                    pixels = files.decode(place)
                except OSError as error:
                    broken[place] = str(error)
                    continue
                file.seek(start + place * row)
                file.write(np.ascontiguousarray(pixels, dtype=np.uint8).data)
            _close_gaps(file, [place for place in range(files.count) if place not in broken], start=start, row=row)
            if _begin(file, (files.count - len(broken), *files.shape)) != start:
                raise AssertionError("numpy's header has another length for fewer images")
        with records.replacing(cache.with_suffix(".broken")) as told:
            told.write_text(json.dumps(broken), encoding="utf-8")


def _begin(file: IO[bytes], shape: tuple[int, ...]) -> int:
    """Write numpy's header; returns where the images begin."""
    file.seek(0)
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def _close_gaps(file: IO[bytes], places: Sequence[int], *, start: int, row: int) -> None:
    """Move the images at `places` to the front, in their order."""
    for target, place in enumerate(places):
        if target != place:
            file.seek(start + place * row)
            pixels = file.read(row)
            file.seek(start + target * row)
            file.write(pixels)
    file.truncate(start + len(places) * row)
    file.flush()
    os.fsync(file.fileno())
