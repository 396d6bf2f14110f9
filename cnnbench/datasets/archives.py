"""The files in a .zip or .tar, read in place: nothing is unpacked."""

from __future__ import annotations

import io
import lzma
import stat
import tarfile
import weakref
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import BinaryIO

from cnnbench.datasets.tree import File, Skipped, Tree, stamp_of
from cnnbench.types import CnnbenchError, Exit

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
DAMAGE = (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, ValueError, KeyError)
"""What reading a damaged archive raises."""
LARGEST = 2**30
"""Bytes of a file; more is no image, and might not fit into memory."""

ENCRYPTED = 1
"""Flag of a member of a .zip."""


def is_archive(path: Path) -> bool:
    """Whether a file is an archive by its name."""
    return path.name.lower().endswith(SUFFIXES)


def reason(error: BaseException) -> str:
    """Why a file cannot be read, in one line: what the system says where it does."""
    return " ".join((getattr(error, "strerror", None) or str(error)).split()) or type(error).__name__


def open_archive(path: Path) -> Tree:
    """The files in an archive. A folder that holds all of it counts as the archive itself.

    Names that lead out of the archive, links and devices are passed over; of several members of one name, all but the
    last, which is the one that unpacking leaves.

    Raises:
        CnnbenchError: It is damaged, encrypted, or none (exit 3).
    """
    read = _zip_members if path.name.lower().endswith(".zip") else _tar_members
    try:
        members = read(path)
    except DAMAGE as error:
        raise CnnbenchError(f"{path} cannot be read as an archive: {reason(error)}", Exit.DATA) from None
    files: dict[str, File] = {}
    skipped: list[Skipped] = []
    folders: set[str] = set()
    for name, opened, is_folder in members:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        clean = "/".join(parts)
        if PureWindowsPath(name).anchor or ".." in parts or "\\" in name:
            skipped.append(Skipped(name, "a name that leads out of the archive"))
        elif any(part.startswith(".") or part == "__MACOSX" for part in parts):
            skipped.append(Skipped(clean, "hidden"))
        elif is_folder:
            folders |= _folders_of([*parts, ""])
        else:
            if files.pop(clean, None):
                skipped.append(Skipped(clean, "an earlier member of one name"))
            if opened is None:
                skipped.append(Skipped(clean, "a link or no file"))
            else:
                files[clean] = File(clean, opened, stamp_of(path.stat()))
                folders |= _folders_of(parts)
    return Tree(tuple(files.values()), frozenset(folders), tuple(skipped))


Member = tuple[str, Callable[[], BinaryIO] | None, bool]
"""Name, how to open it (None for what is no file), and whether it is a folder."""


def _folders_of(parts: list[str]) -> set[str]:
    return {"/".join(parts[:depth]) for depth in range(1, len(parts))}


class _Archive:
    """An archive that stays open while members of it may be read."""

    def __init__(self, handle: zipfile.ZipFile | tarfile.TarFile) -> None:
        self.handle = handle
        weakref.finalize(self, handle.close)

    def read(self, member: zipfile.ZipInfo | tarfile.TarInfo, size: int) -> BinaryIO:
        """The content of a member, in memory: a compressed one cannot be wound back cheaply.

        Raises:
            OSError: It is damaged, encrypted or too large.
        """
        if size > LARGEST:
            raise OSError(f"{size:,} bytes; expected at most {LARGEST:,}")
        if isinstance(member, zipfile.ZipInfo) and member.flag_bits & ENCRYPTED:
            raise OSError("encrypted")
        try:
            if isinstance(self.handle, zipfile.ZipFile):
                assert isinstance(member, zipfile.ZipInfo)
                return io.BytesIO(self.handle.read(member))
            assert isinstance(member, tarfile.TarInfo)
            opened = self.handle.extractfile(member)
            if opened is None:
                raise OSError("not a file")
            content = opened.read()
        except NotImplementedError:
            raise OSError("packed in a way that Python cannot unpack") from None
        except (RuntimeError, *DAMAGE) as error:
            raise OSError(reason(error)) from None
        if len(content) < size:
            raise OSError("truncated")
        return io.BytesIO(content)


def _zip_members(path: Path) -> list[Member]:
    handle = zipfile.ZipFile(path)
    archive = _Archive(handle)
    files = [info for info in handle.infolist() if not info.is_dir()]
    if files and all(info.flag_bits & ENCRYPTED for info in files):
        raise OSError("it is encrypted; unpack it, and give the folder")
    return [
        (info.filename, partial(archive.read, info, info.file_size) if _is_file(info) else None, info.is_dir())
        for info in handle.infolist()
    ]


def _is_file(info: zipfile.ZipInfo) -> bool:
    """Whether a member is a plain file: Unix keeps its mode in the upper bits, with links among them."""
    return not info.is_dir() and stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)


def _tar_members(path: Path) -> list[Member]:
    handle = tarfile.open(path)  # noqa: SIM115 - open as long as its members are
    archive = _Archive(handle)
    members = handle.getmembers()
    assert handle.fileobj is not None
    handle.fileobj.seek(handle.offset)
    if handle.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # Python passes over a damaged member
        raise OSError("it has no end: it is truncated or damaged")
    return [
        (info.name, partial(archive.read, info, info.size) if info.isfile() else None, info.isdir()) for info in members
    ]
