"""Processes that train together on one machine: one that dies or does not answer is named, and none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from cnnbench.types import CnnbenchError, Exit

POLL_SECONDS = 0.5
WAIT_SECONDS = 5.0
"""How long the exit code of a process may come after its connections have broken."""
GRACE_SECONDS = 30.0
"""How long the first process may take to end by itself, once another one has died."""
BROKEN = ("connection", "peer", "gloo", "nccl", "timed out", "socket", "store", "rank")
"""Words of torch.distributed for a process that is gone or silent."""


class WatchedLauncher(_SubprocessScriptLauncher):
    """Lightning's, without its observer, which ends the first process by SIGKILL and without a word."""

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
            threading.Thread(target=_watch, args=[self.procs], daemon=True).start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)


def watch_launcher(trainer: Trainer) -> None:
    """Replace Lightning's launcher with a `WatchedLauncher`."""
    launcher = trainer.strategy.launcher
    if type(launcher) is _SubprocessScriptLauncher:
        trainer.strategy._launcher = WatchedLauncher(
            launcher.cluster_environment, launcher.num_processes, launcher.num_nodes
        )


@contextmanager
def naming_lost_process(trainer: Trainer) -> Iterator[None]:
    """Turn a broken exchange between processes into one line that names the process that has ended.

    Raises:
        CnnbenchError: Another process has ended, or does not answer (exit 6, or the code that it ended with).
    """
    try:
        yield
    except RuntimeError as error:
        if trainer.world_size == 1 or not any(word in str(error).lower() for word in BROKEN):
            raise
        processes = getattr(trainer.strategy.launcher, "procs", [])
        until = time.monotonic() + WAIT_SECONDS
        while not _ended(processes) and time.monotonic() < until and processes:
            time.sleep(POLL_SECONDS / 5)
        found = _ended(processes)
        for process in processes:
            with suppress(OSError):
                process.kill()  # one that was stopped (SIGSTOP) would stay
        if found:
            raise CnnbenchError(_explained(*found, len(processes) + 1), Exit(_code(found[1]))) from None
        why = "does not answer" if "timed out" in str(error).lower() else "has ended"
        raise CnnbenchError(
            f"another process than {trainer.global_rank} of {trainer.world_size} {why}; "
            "`fit --ckpt_path last` resumes the run",
            Exit.ENVIRONMENT,
        ) from None


def _watch(processes: list[subprocess.Popen[bytes]]) -> None:
    """End this process where another one has died and it waits for nothing that would tell it."""
    while not (found := _ended(processes)):
        if all(process.poll() == 0 for process in processes):
            return
        time.sleep(POLL_SECONDS)
    time.sleep(GRACE_SECONDS)
    os.write(2, f"cnnbench: {_explained(*found, len(processes) + 1)}\n".encode())
    for process in processes:
        process.kill()
    os._exit(_code(found[1]))


def _ended(processes: list[subprocess.Popen[bytes]]) -> tuple[int, int] | None:
    """Number and exit code of a process that has failed; those that a signal has ended come first."""
    codes = [(rank, process.poll()) for rank, process in enumerate(processes, start=1)]
    return min(((rank, code) for rank, code in codes if code), key=lambda pair: pair[1] > 0, default=None)


def _explained(rank: int, code: int, count: int) -> str:
    if code > 0:
        return f"process {rank} of 0 to {count - 1} ended with exit code {code}"
    name = signal.Signals(-code).name
    return (
        f"process {rank} of 0 to {count - 1} was ended by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}; "
        "`fit --ckpt_path last` resumes the run"
    )


def _code(code: int) -> int:
    """What the first process ends with: one of our codes as it is."""
    return code if code in set(Exit) else Exit.ENVIRONMENT
