"""Files that matter: written whole or not at all, hashed, and refused when their schema is not the one asked for."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cnnbench.types import CnnbenchError, Exit, printable

Record = TypeVar("Record", bound=msgspec.Struct)
LARGEST = 64 * 2**20
"""Bytes of a record; one of a run has some thousands, and a manifest some hundred thousands."""
LITTLE = 2**20
"""Bytes that are free on a disk that is full."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success fsync it and rename it over `path`, else remove it.

    Raises:
        CnnbenchError: The folder cannot be written, or `path` is one (exit 2).
        OSError: There is no room, in this folder or in that of temporary files: its `filename` says which.
    """
    if path.is_dir():
        raise CnnbenchError(f"cannot write {path}: it is a folder; expected the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise CnnbenchError(f"cannot write {path}: {error.strerror}; choose a folder you can write to") from None
    os.close(handle)
    partial = Path(name)
    try:
        with _naming_what_is_full(path):
            yield partial
            with partial.open("rb+") as file:  # Windows flushes only what may be written
                os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)  # mkstemp makes files private
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it takes the place of `path`, else it is removed.

    Raises:
        CnnbenchError: The place cannot be written (exit 2).
        OSError: As `replacing`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        workplace = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise CnnbenchError(f"cannot write {path}: {error.strerror}; choose a folder you can write to") from None
    try:
        partial = workplace / "new"
        with _naming_what_is_full(path):
            partial.mkdir()
            yield partial
        if path.exists():
            path.rename(workplace / "old")
        partial.rename(path)
    finally:
        if (workplace / "old").exists() and not path.exists():  # failed or interrupted between the two renames
            (workplace / "old").rename(path)
        shutil.rmtree(workplace, ignore_errors=True)


@contextmanager
def temporary_folder() -> Iterator[str]:
    """A folder for temporary files, which is removed afterwards.

    Raises:
        OSError: As `replacing`.
    """
    with tempfile.TemporaryDirectory(prefix="cnnbench-") as folder:
        try:
            yield folder
        except OSError as error:
            code = no_room(error)
            if code and shutil.disk_usage(folder).free < LITTLE:  # else it was another disk
                raise OSError(code, os.strerror(code), tempfile.gettempdir()) from error
            raise


@contextmanager
def _naming_what_is_full(path: Path) -> Iterator[None]:
    """Give the error of a full disk the name of `path`, or of the temporary folder where that has less room.

    Raises:
        OSError: The disk is full; without this its `filename` would be None.
    """
    try:
        yield
    except OSError as error:
        code = no_room(error)
        if not code or error.filename == tempfile.gettempdir():
            raise
        folders = {path.parent: str(path), Path(tempfile.gettempdir()): tempfile.gettempdir()}
        fullest = min(folders, key=lambda folder: shutil.disk_usage(folder).free)
        raise OSError(code, os.strerror(code), folders[fullest]) from error


def no_room(error: BaseException) -> int:
    """The number of the system's error where one says that nothing more can be written, else 0."""
    if not isinstance(error, OSError):
        return 0
    if _SHORT_WRITE.search(str(error)):  # numpy's, which has no number
        return errno.ENOSPC
    return error.errno if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT) else 0


def says_no_room(text: str) -> bool:
    """Whether what a process left on stderr says that the disk is full."""
    return os.strerror(errno.ENOSPC) in text or bool(_SHORT_WRITE.search(text))


_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")


def require_writable(path: Path) -> None:
    """Refuse a place that cannot be written, before what is written there is computed.

    Raises:
        CnnbenchError: See `replacing`.
    """
    if path.is_dir():
        raise CnnbenchError(f"cannot write {path}: it is a folder; expected the name of a file")
    existing = next(folder for folder in (path.parent, *path.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise CnnbenchError(f"cannot write {path}: {error.strerror}; choose a folder you can write to") from None


def sha256(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(path: Path, record: msgspec.Struct, *, indent: int | None = 2) -> None:
    """Write a record as JSON, sealed with the hash of its own content.

    Args:
        path: The file.
        record: Its content.
        indent: Spaces per level; None for one line.

    Raises:
        CnnbenchError: The folder cannot be written (exit 2).
        ValueError: A number is not finite: JSON has none.
    """
    content = _escaped(msgspec.to_builtins(record))
    with replacing(path) as partial:
        partial.write_text(json.dumps({**content, "seal": seal(content)}, indent=indent, allow_nan=False) + "\n")


def read(path: Path, kind: type[Record]) -> Record:
    """Read a record written by `write`, every value validated.

    Raises:
        CnnbenchError: The file is missing, is not JSON, has another schema, or a value is missing or of another type
            (exit 3, with the place of the fault), or its content is not the one that was sealed (exit 4).
    """
    schema = kind.__struct_config__.tag
    content = read_json(path)
    if content.get("schema") != schema:
        raise CnnbenchError(f"{path} has schema {content.get('schema')!r}; this version reads {schema!r}", Exit.DATA)
    try:
        sealed = content.pop("seal", None) == seal(content)
        record = msgspec.convert(content, kind) if sealed else None
    except (msgspec.ValidationError, CnnbenchError, RecursionError) as error:  # the second from what a field refuses
        raise CnnbenchError(f"{path} is not a {schema} record: {error}", Exit.DATA) from None
    if record is None:
        raise CnnbenchError(
            f"{path} was edited after it was written: its content does not match its seal", Exit.VERDICT
        )
    return record


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CnnbenchError: The file is missing, too large, or not a JSON object in UTF-8; a number in it is not finite, an
            object has a key twice, or a text has control characters (exit 3).
    """
    try:
        text = read_bytes(path).decode("utf-8")  # json itself takes UTF-16, and a byte order mark
        content = json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_once)
        controls = not _PLAIN.fullmatch(text) and _escaped(content) != content  # the first takes a thousandth
    except (ValueError, RecursionError) as error:
        raise CnnbenchError(
            f"{path} is not JSON ({error}): it is damaged or was written by something else", Exit.DATA
        ) from None
    if not isinstance(content, dict):
        raise CnnbenchError(f"{path} holds a JSON {type(content).__name__}; expected an object", Exit.DATA)
    if controls:
        raise CnnbenchError(f"{path} holds text with control characters; expected none", Exit.DATA)
    return content


def read_bytes(path: Path, *, most: int = LARGEST) -> bytes:
    """The content of a regular file of at most `most` bytes; a pipe is not waited for.

    Raises:
        CnnbenchError: It cannot be read, is not a file, or is larger (exit 3).
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise CnnbenchError(f"cannot read {path}: it is not a file", Exit.DATA)
            content = file.read(most + 1)
    except OSError as error:
        raise CnnbenchError(f"cannot read {path}: {error.strerror}", Exit.DATA) from None
    if len(content) > most:
        raise CnnbenchError(f"{path} is larger than {most:,} bytes: it is not a record of cnnbench", Exit.DATA)
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different: of two with one name, readers take the first or the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return content


def _finite(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _refuse(text)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a number in JSON")


def _escaped(content: Any) -> Any:
    """JSON content with control characters in its texts escaped. Surrogates stay: they are a path's own bytes."""
    if isinstance(content, str):
        plain = content.isascii() and content.isprintable()
        return content if plain else _SURROGATES.sub(lambda part: printable(part[0]), content)
    if isinstance(content, Mapping):
        return {_escaped(key): _escaped(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_escaped(value) for value in content]
    return content


_PLAIN = re.compile(r'(?:[\x20-\x5b\x5d-\x7e\n\r\t]+|\\["\\/nt])*+')
"""JSON in ASCII whose escapes are of line ends, tabs and what JSON itself has to escape."""
_SURROGATES = re.compile("[^\ud800-\udfff]+")
"""What lies between surrogates."""


def seal(content: Mapping[str, object]) -> str:
    """SHA-256 of a record's content without its `seal`; it shows an edit by accident, not by a forger."""
    return hashlib.sha256(json.dumps(dict(content), sort_keys=True).encode()).hexdigest()
