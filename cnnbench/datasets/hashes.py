"""SHA-256 of the user's files, computed once: files whose stamp is the one seen are not read again."""

from __future__ import annotations

import hashlib
import io
import time
from pathlib import Path
from typing import BinaryIO

import msgspec

from cnnbench import records
from cnnbench.cache import cache_folder
from cnnbench.datasets.archives import LARGEST
from cnnbench.datasets.tree import File
from cnnbench.types import CnnbenchError

SETTLED_NS = 2_000_000_000
"""A file that was written this shortly before it was read may be written again within one tick of its clock."""

BLOCK = 2**20
"""Bytes that are read at a time."""

Known = dict[bytes, tuple[tuple[int, ...], str]]
"""Stamp and hash by name."""


class Hashes:
    """The hashes of the files below one folder, and where they are kept.

    Args:
        root: The folder, table or archive.
    """

    def __init__(self, root: Path) -> None:
        key = hashlib.sha256(str(root.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self.path = cache_folder("folders") / f"{key}.hashes"
        self._known = self._read()
        self._new: Known = {}
        self._changed = False

    def _read(self) -> Known:
        try:
            return msgspec.msgpack.decode(self.path.read_bytes(), type=Known)
        except (OSError, msgspec.DecodeError):  # none yet, or damaged: all files are read
            return {}

    def of(self, file: File) -> str:
        """The hash of a file's content.

        Raises:
            OSError: It cannot be read, or is too large for an image.
        """
        name = file.name.encode("utf-8", "surrogateescape")
        known = self._known.get(name)
        if known and file.stamp and known[0] == file.stamp:
            self._new[name] = known
            return known[1]
        began = time.time_ns()
        with file.opened() as content:
            if (size := content.seek(0, io.SEEK_END)) > LARGEST:
                raise OSError(f"{size:,} bytes; expected at most {LARGEST:,}")
            content.seek(0)
            digest = sha256(content)
        if file.stamp and max(file.stamp[1:3]) < began - SETTLED_NS:
            self._new[name] = (file.stamp, digest)
            self._changed = True
        return digest

    def keep(self) -> None:
        """Write what was seen; where that fails, files are read again the next time."""
        if not self._changed:
            return
        try:
            with records.replacing(self.path) as partial:
                partial.write_bytes(msgspec.msgpack.encode(self._new))
        except (OSError, CnnbenchError):
            pass


def sha256(content: BinaryIO) -> str:
    """SHA-256 of an open file, in hexadecimal."""
    digest = hashlib.sha256()
    while block := content.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()
