"""Fetching by torchvision's readers: into a folder of its own, and from there to its place, whole and verified."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from filelock import FileLock

from cnnbench import progress

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


@contextmanager
def shown() -> Iterator[None]:
    """Show what torchvision fetches as everything else is shown; its own bar is drawn in files, too."""
    from torchvision.datasets import utils

    theirs = getattr(utils, "tqdm", None)
    if theirs is None:
        yield
        return
    utils.tqdm = Fetched
    try:
        yield
    finally:
        utils.tqdm = theirs


class Fetched:
    """In the place of tqdm: the bytes of one file.

    Args:
        total: Bytes of the file, where the server says so.
    """

    def __init__(self, total: int | None = None, **_: Any) -> None:
        self.total = total
        self.done = 0
        self.stack = ExitStack()

    def __enter__(self) -> Fetched:
        if not progress.is_open():
            self.stack.enter_context(progress.display(None))
        progress.step(f"fetching {self.total / 1e6:.1f} MB" if self.total else "fetching a file")
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def update(self, count: int) -> None:
        """So many bytes more have come."""
        self.done += count
        if self.total:
            progress.within(self.done / self.total)
