"""Sweeps whose runs are done in this process: Python, torch and Lightning take seconds to start in another."""

import io
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import redirect_stderr, redirect_stdout
from typing import Any
from unittest import mock

import pytest

from cnnbench.__main__ import main
from cnnbench.sweeps import estimate, executors
from cnnbench.sweeps import run as sweep_run
from cnnbench.types import ERROR_FILE


class AtOnce(Executor):
    """Does what it is given when it is given: only the main thread may set signal handlers, as a verb does."""

    def __init__(self, jobs: int) -> None:
        assert jobs == 1

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def in_this_process(patch: pytest.MonkeyPatch) -> list[list[str]]:
    """Until `patch` is undone; returns the commands of the runs, as they are started."""
    started: list[list[str]] = []

    def watched(command: list[str], stream: Any, environ: dict[str, str]) -> int:
        started.append(command)
        said = io.StringIO()
        left = {ERROR_FILE: environ[ERROR_FILE]}
        with redirect_stdout(said), redirect_stderr(said), mock.patch.dict(os.environ, left):
            code = main(command[3:])
        stream.write(said.getvalue().encode())
        return int(code)

    patch.setattr(sweep_run, "_watched", watched)
    patch.setattr(executors, "ThreadPoolExecutor", AtOnce)
    patch.setattr(estimate, "_step_seconds", lambda *_: 0.01)
    return started
