"""Fetching by torchvision's readers: into a folder of its own, and from there to its place, whole and verified."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from filelock import FileLock

Read = TypeVar("Read")

SILENCE_SECONDS = 60.0
"""How long a server may say nothing; torchvision would wait for ever."""


def fetch(make: Callable[[Path, bool], Read], root: Path, *, name: str) -> Read:
    """Read a data set; where files are missing or damaged, fetch all of it anew.

    torchvision downloads to the final name and checks the hash afterwards: killed in between, or beside another
    process, it would leave half a file there.

    Args:
        make: Reads the data set below a folder, and fetches it first where the second argument says so.
        root: Where its files belong.
        name: Of the data set. Of several processes that want it, one fetches and the others wait.

    Raises:
        Exception: What `make` raises.
        OSError: `root` cannot be written, or is full.
    """
    with suppress(Exception):  # missing or damaged
        return make(root, False)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{name}.lock"):
        with suppress(Exception):  # another process has fetched it since
            return make(root, False)
        with TemporaryDirectory(prefix=f".{name}-", dir=root) as partial, _impatient():
            made = make(Path(partial), True)
            _put_in_place(Path(partial), root)
    return made


def _put_in_place(source: Path, target: Path) -> None:
    for file in sorted(source.rglob("*")):
        if file.is_file():
            with file.open("rb+") as written:
                os.fsync(written.fileno())
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)


@contextmanager
def _impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
