"""Standard streams that end no verb: closed ones, a reader that stops, an encoding that lacks a letter."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


def settle() -> None:
    """Make this process's streams such, where Python's own are still in place."""
    _open_closed()
    if sys.stdout is sys.__stdout__ and sys.stdout:
        sys.stdout = _forgiving(sys.stdout)
    if sys.stderr is sys.__stderr__ and sys.stderr:  # what is trained is worth more than what is said of it
        sys.stderr = _forgiving(sys.stderr)


def _open_closed() -> None:
    """Open to nowhere what the caller has closed: else a file that matters would be stream 1 or 2 of a library."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


class _Pipe(io.FileIO):
    """A standard stream whose reader may stop, as `head` does: what it did not read is dropped.

    The verb goes on: what it does besides printing is done, and its exit code, which may be a verdict, is right.
    """

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return len(data)


def _forgiving(stream: Any) -> io.TextIOWrapper:
    raw = _Pipe(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        raw if stream.write_through else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace" if stream.errors == "strict" else stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
