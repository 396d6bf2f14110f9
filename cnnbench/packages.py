"""Code of other installed packages: it runs in this process, ends no verb without a word, and prints no result."""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from cnnbench.types import CnnbenchError, Exit

SLOW_SECONDS = 10.0
"""After which a line says what is waited for."""

_exit = os._exit
_guarded: dict[str, str] = {}
"""Top-level modules of packages, and what errors call them."""


@contextmanager
def guarded(module: str, what: str) -> Iterator[None]:
    """Around what imports or calls code of a package.

    What it prints goes to stderr, as results alone go to stdout. Where it takes long, a line says so. From then on, its
    `os._exit` raises: it would end the verb without a word, and might look like success.

    Args:
        module: Where the code is.
        what: What lines call it.
    """
    _guarded[module.partition(".")[0]] = what
    os._exit = _refusing
    timer = threading.Timer(SLOW_SECONDS, _say_slow, [what])
    timer.daemon = True
    timer.start()
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        timer.cancel()


def guarded_call(builder: Callable[..., Any], module: str, *, what: str) -> Callable[..., Any]:
    """A function of a package that is guarded whenever it is called."""

    @functools.wraps(builder)
    def call(*arguments: Any, **options: Any) -> Any:
        with guarded(module, what):
            return builder(*arguments, **options)

    return call


def _refusing(status: int) -> Any:
    caller = str(sys._getframe(1).f_globals.get("__name__", "")).partition(".")[0]
    if caller in _guarded:
        raise CnnbenchError(f"{_guarded[caller]} ends the process (os._exit({status}))", Exit.ENVIRONMENT)
    _exit(status)


def _say_slow(what: str) -> None:
    print(f"note: {what} has been running for {SLOW_SECONDS:g} s; Ctrl-C ends it", file=sys.stderr, flush=True)
