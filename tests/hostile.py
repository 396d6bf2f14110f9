"""The corpus of hostile files: cases, and what a verb does with one."""

import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cnnbench.__main__ import main
from cnnbench.types import Exit

LONGEST = 60
"""Seconds after which a verb hangs: the tests share their cores."""
CANARY = "canary"
"""A file in the folder above the working folder that nothing may write."""
Make = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A file that somebody damaged or made to harm, and what every verb that reads it says."""

    kind: str
    name: str
    make: Make
    """Writes it below the working folder."""
    commands: Sequence[Sequence[str]]
    code: int
    says: str
    """Part of the line."""

    @property
    def id(self) -> str:
        return f"{self.kind}: {self.name}"


@dataclass(frozen=True)
class Outcome:
    """What a verb said of a case."""

    command: Sequence[str]
    code: int
    lines: Sequence[str]
    """On stderr."""
    printed: str
    """On stdout."""
    seconds: float

    @property
    def line(self) -> str:
        """The last one, which says why."""
        return self.lines[-1] if self.lines else ""


def done_by(command: Sequence[str]) -> Outcome:
    """Run a verb in this process, or the script of a bundle in another."""
    if command[0].endswith(".py"):
        return of_script(command)
    said, printed = io.StringIO(), io.StringIO()
    begun = time.perf_counter()
    with no_longer_than(LONGEST), redirect_stderr(said), redirect_stdout(printed):
        code = main([*command])
    return Outcome(command, code, said.getvalue().splitlines(), printed.getvalue(), time.perf_counter() - begun)


def of_script(command: Sequence[str]) -> Outcome:
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=LONGEST, check=False)
    return Outcome(command, done.returncode, done.stderr.splitlines(), done.stdout, time.perf_counter() - begun)


@contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    """Fail where something hangs."""

    def hangs(*_: object) -> NoReturn:
        raise AssertionError(f"it hangs: more than {seconds} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fault(outcome: Outcome, case: Case, outside: Path, there: Sequence[Path]) -> str:
    """What is wrong with an outcome; empty where it is as it has to be.

    Args:
        outcome: Of one of the case's commands.
        case: The case.
        outside: The folder above the working folder.
        there: What it held before.
    """
    line = outcome.line
    if "internal error" in line or any("Traceback" in each for each in outcome.lines):
        return f"an internal error: {line}"
    if outcome.code != case.code:
        return f"exit {outcome.code}, not {case.code}: {line}"
    if case.says not in "\n".join([*outcome.lines, outcome.printed]):
        return f"it does not say {case.says!r}: {line}"
    errors = outcome.code not in (Exit.OK, Exit.LIMITS)
    if errors and not line.startswith(("cnnbench: ", "cannot read ")):
        return f"no line of an error: {line!r}"
    if len(outcome.lines) > 30 or any(len(each) > 2_000 for each in outcome.lines):
        return "too much is said"
    if sorted(outside.iterdir()) != sorted(there):
        return f"it wrote outside: {sorted(outside.iterdir())}"
    return ""
