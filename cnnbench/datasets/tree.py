"""The files below a folder, and what there is passed over, with the reason."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True)
class File:
    """A file that may be an image, wherever it lies."""

    name: str
    """Below the folder, its parts joined by slashes; bytes that are not UTF-8 are surrogates."""
    opened: Callable[[], BinaryIO]
    """Opens it for reading; raises OSError."""
    stamp: tuple[int, ...] = ()
    """Other where its content is; empty where that cannot be told."""
    sha256: str | None = None
    """Of its content, where it is known without reading it."""

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.name.split("/"))


@dataclass(frozen=True)
class Skipped:
    """What was passed over, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Found:
    """An image before its split is settled."""

    file: File
    class_name: str
    split: str | None = None
    """None where it is to be drawn."""
    group: str | None = None


@dataclass(frozen=True)
class Layout:
    """What a reader of one layout returns."""

    words: str
    """How the images lie."""
    found: tuple[Found, ...]
    skipped: tuple[Skipped, ...] = ()
    unreadable: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class Tree:
    """What lies below a folder or in an archive, in the order in which it is fast to read."""

    files: tuple[File, ...]
    folders: frozenset[str]
    """Names of the folders, without those passed over."""
    skipped: tuple[Skipped, ...] = ()
    unreadable: tuple[Skipped, ...] = ()
    """Folders that cannot be read: what they hold is not known."""

    def below(self, prefix: str) -> tuple[str, ...]:
        """Names of the folders right below the folder `prefix`, which is empty for the top, sorted."""
        depth = len(prefix.split("/")) + 1 if prefix else 1
        return tuple(
            sorted(
                name.rpartition("/")[2]
                for name in self.folders
                if name.count("/") == depth - 1 and (not prefix or name.startswith(f"{prefix}/"))
            )
        )

    def within(self, prefix: str) -> Tree:
        """The files below the folder `prefix`, with names from there; what was passed over elsewhere is told, too."""
        start = f"{prefix}/"

        def cut(items: tuple[Skipped, ...]) -> tuple[Skipped, ...]:
            return tuple(Skipped(item.name.removeprefix(start), item.reason) for item in items)

        return Tree(
            tuple(
                replace(file, name=file.name.removeprefix(start)) for file in self.files if file.name.startswith(start)
            ),
            frozenset(name.removeprefix(start) for name in self.folders if name.startswith(start)),
            cut(self.skipped),
            cut(self.unreadable),
        )


def shown(name: str) -> str:
    """A file's name as text: bytes that are not UTF-8 become escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


ROLES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Split by the name of its folder or in a table, in any case."""


DEEPEST_CLASS = 2
"""Slashes in data/train/<class>."""


def stamp_of(status: os.stat_result) -> tuple[int, ...]:
    """What differs where a file was written again, even one of the same length and time."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return Path(name).suffix.lower() in image_suffixes()


@cache
def image_suffixes() -> frozenset[str]:
    """Endings, in lower case, of the files that Pillow opens."""
    from PIL import Image

    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN)


def walk(folder: Path) -> Tree:
    """Everything below a folder; hidden files, links to folders and what is no file are passed over.

    A link to nowhere is among the files, and fails when it is opened.
    """
    files: list[File] = []
    folders: set[str] = set()
    skipped: list[Skipped] = []
    unreadable: list[Skipped] = []
    for entry, name in _entries(folder, "", unreadable):
        linked = entry.is_symlink()
        if entry.name.startswith("."):
            skipped.append(Skipped(name, "hidden"))
        elif _is_folder(entry):
            if linked and not _may_link(name):
                skipped.append(Skipped(name, "a link to a folder"))
            else:
                folders.add(name)
        else:
            file = _file(Path(entry.path), name)
            if file is None:
                skipped.append(Skipped(name, "not a file"))
            else:
                files.append(file)
    return Tree(tuple(files), frozenset(folders), tuple(skipped), tuple(unreadable))


def file_at(path: Path, name: str) -> File:
    """A file on disk, which need not be there: then opening it fails."""
    return _file(path, name) or File(name, partial(_refused, path))


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def _refused(path: Path) -> BinaryIO:
    raise OSError(None, "not a file", str(path))  # a named pipe may never end


def _file(path: Path, name: str) -> File | None:
    try:
        status = path.stat()
    except OSError:
        return File(name, partial(_open, path))
    return File(name, partial(_open, path), stamp_of(status)) if stat.S_ISREG(status.st_mode) else None


def _entries(folder: Path, prefix: str, unreadable: list[Skipped]) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Every entry below a folder with its name, sorted; folders come before what they hold."""
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        unreadable.append(Skipped(prefix.rstrip("/") or str(folder), error.strerror or "cannot be listed"))
        return
    for entry in entries:
        name = f"{prefix}{entry.name}"
        yield entry, name
        followed = not entry.is_symlink() or _may_link(name)
        if followed and not entry.name.startswith(".") and _is_folder(entry):
            yield from _entries(Path(entry.path), f"{name}/", unreadable)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _may_link(name: str) -> bool:
    """Whether a link to a folder is followed: that of a split or class is; one further down may lead back."""
    parent = name.rpartition("/")[0]
    return not parent or (name.count("/") <= DEEPEST_CLASS and parent.rpartition("/")[2].lower() in ROLES)
