"""Sweeps whose runs are done in this process: Python, torch and Lightning take seconds to start in another."""

import io
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import IO, Any
from unittest import mock

import pytest

from cnnbench.__main__ import main
from cnnbench.sweeps import estimate, executors, warm
from cnnbench.types import ERROR_FILE


class AtOnce(Executor):
    """Does what it is given when it is given: only the main thread may set signal handlers, as a verb does."""

    def __init__(self, jobs: int) -> None:
        assert jobs == 1

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    code: int

    pid: int = 0

    def wait(self, timeout: float | None = None) -> int:
        return self.code

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        pass

    def kill(self) -> None:
        pass


def in_this_process(patch: pytest.MonkeyPatch) -> list[list[str]]:
    """Until `patch` is undone; returns the commands of the runs, as they are started."""
    started: list[list[str]] = []

    def attempt(arguments: list[str], *, output: IO[bytes], environ: Mapping[str, str]) -> Ended:
        started.append(arguments)
        said = io.StringIO()
        left = {ERROR_FILE: environ[ERROR_FILE]}
        with redirect_stdout(said), redirect_stderr(said), mock.patch.dict(os.environ, left):
            code = main(arguments)
        output.write(said.getvalue().encode())
        return Ended(code)

    patch.setattr(warm.WarmParent, "start", lambda _, *arguments, **options: attempt(*arguments, **options))
    patch.setattr(warm.WarmParent, "prepare", lambda *_: None)
    patch.setattr(executors, "ThreadPoolExecutor", AtOnce)
    patch.setattr(estimate, "_step_seconds", lambda *_: 0.01)
    return started
