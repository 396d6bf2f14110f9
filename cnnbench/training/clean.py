"""What can go from the disk: caches, runs that were replaced, and what processes that were killed have left."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from cnnbench.cache import cache_folder
from cnnbench.training.folder import RunFolder, is_locked
from cnnbench.types import CnnbenchError

Kind = Literal["images", "downloads", "checks", "runs", "leftovers"]
KINDS: dict[Kind, str] = {
    "images": "decoded images of your own folders, and hashes of their files: recreated when needed",
    "downloads": "downloaded data sets: downloaded again when needed",
    "checks": "results of checking networks and data sets of other packages: checked again when needed",
    "runs": "runs that `fit --overwrite` has replaced",
    "leftovers": "leftovers of killed processes, more than a day old",
}
"""What each kind is, in words."""
CACHES: dict[Kind, Literal["folders", "data", "checks"]] = {
    "images": "folders",
    "downloads": "data",
    "checks": "checks",
}
PARTIAL = re.compile(r"\..+-[a-z0-9_]{8}(\.[^.]+)?")
"""The name of a file or folder that was being written; see `records.io`."""
OLD_SECONDS = 24 * 3600
"""Younger ones may be in use."""


@dataclass(frozen=True)
class Clutter:
    """A file or folder that can go."""

    kind: Kind
    path: Path
    bytes: int


def find_clutter(folders: Iterable[str | Path] = ("runs", "exports")) -> list[Clutter]:
    """What can go, by kind.

    Args:
        folders: Folders of runs and bundles. Those that do not exist hold nothing.
    """
    places = [Path(folder) for folder in folders]
    found: list[tuple[Kind, Path]] = [
        (kind, cache_folder(cache)) for kind, cache in CACHES.items() if cache_folder(cache).is_dir()
    ]
    found += [("runs", path) for place in places for path in sorted(place.rglob("*.replaced")) if _is_replaced(path)]
    old = time.time() - OLD_SECONDS
    found += [("leftovers", path) for path in _leftovers(places) if _newest(path) < old]
    return [Clutter(kind, path, _bytes(path)) for kind, path in found]


def remove_clutter(kinds: Iterable[Kind], *, folders: Iterable[str | Path] = ("runs", "exports")) -> list[Clutter]:
    """Remove all of some kinds; returns what is gone.

    Raises:
        CnnbenchError: A kind is none, or something cannot be removed (exit 2).
    """
    wanted = [*kinds]
    for kind in wanted:
        if kind not in KINDS:
            raise CnnbenchError(f"{kind!r} cannot be removed; expected {', '.join(get_args(Kind))}")
    gone = [clutter for clutter in find_clutter(folders) if clutter.kind in wanted]
    for clutter in gone:
        try:
            if clutter.path.is_dir() and not clutter.path.is_symlink():
                shutil.rmtree(clutter.path)
            else:
                clutter.path.unlink()
        except OSError as error:
            raise CnnbenchError(f"cannot remove {error.filename or clutter.path}: {error.strerror}") from None
    return gone


def _is_replaced(path: Path) -> bool:
    """Whether an earlier run has been replaced by one with a result, and no process works on either."""
    run = RunFolder(path.with_suffix(""))
    return path.is_dir() and run.result.is_file() and not is_locked(run)


def _leftovers(places: Iterable[Path]) -> Iterator[Path]:
    for place in (*places, *(cache_folder(cache) for cache in CACHES.values())):
        for folder, names, files in os.walk(place):
            for name in sorted([*names, *files]):
                if PARTIAL.fullmatch(name):
                    yield Path(folder) / name
            names[:] = [name for name in names if not PARTIAL.fullmatch(name)]
    yield from sorted(Path(tempfile.gettempdir()).glob("cnnbench-????????"))


def _newest(path: Path) -> float:
    """When something in it was written last, as seconds since 1970."""
    return max(_statuses(path, lambda status: status.st_mtime), default=time.time())


def _bytes(path: Path) -> int:
    return int(sum(_statuses(path, lambda status: status.st_size)))


def _statuses(path: Path, value: Callable[[os.stat_result], float]) -> Iterator[float]:
    """A value of the status of a file, or of a folder and everything in it; what vanishes meanwhile has none."""
    for place in (path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())):
        try:
            yield value(place.lstat())
        except OSError:
            continue
