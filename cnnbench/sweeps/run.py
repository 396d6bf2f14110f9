"""One run of a sweep: `cnnbench fit`, with `--test` or without, in a separate process, supervised.

The process locks the run's folder, as every `fit` does; a sweep that finds it locked waits.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import TimeoutExpired
from tempfile import NamedTemporaryFile

from cnnbench import records
from cnnbench.records.schema import Failure, RunRecord
from cnnbench.sweeps import warm
from cnnbench.sweeps.environ import environment
from cnnbench.sweeps.plan import Planned, State, state
from cnnbench.sweeps.warm import Process, Start
from cnnbench.training.folder import RunFolder, is_locked
from cnnbench.types import ERROR_FILE, Exit

POLL_SECONDS = 0.5
"""Between two looks at a lock that another process holds."""

LOOK_SECONDS = 1.0
"""Between two looks at a process of this one."""

SILENT_SECONDS = 2 * 3600.0
"""A process that has written nothing for so long hangs. One that trains writes last.ckpt every ten minutes."""

STOP_SECONDS = 60.0
"""How long a process that is stopped may take to end: for the present step, and its last.ckpt."""

STOPPED = (-signal.SIGINT, -signal.SIGTERM, Exit.INTERRUPTED, Exit.TERMINATED)
"""Exit codes of a run that was stopped, which is not a failure."""

RUNNING: set[Process] = set()
"""The processes that `stop` ends."""

STOPPING = threading.Event()
"""While it is set, no run is started."""


@dataclass(frozen=True)
class Outcome:
    """How one run of a sweep ended. `reason` is empty where there is a result."""

    task: str
    seed: int
    accuracy: float | None
    """On the test images; None without a result, and of a run that was not to be tested."""
    seconds: float
    reason: str = ""
    skipped: bool = False
    """Whether it was done before."""


def supervise(
    run: Planned, *, threads: int | None = None, data_root: str | None = None, start: Start = warm.start
) -> Outcome:
    """Do one run in a separate process; a failure leaves failure.json.

    A finished run is left alone, an interrupted one is resumed. While another process does this very run, wait for it.

    Args:
        run: The run.
        threads: OMP_NUM_THREADS of the process; by default that of the environment.
        data_root: CNNBENCH_DATA of the process.
        start: How a process is started, unless the run starts others: that has a new interpreter.
    """
    folder = RunFolder(Path(run.folder))
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    environ = environment(threads, data_root)
    while _wait_for_others(folder):
        before, why = state(run)
        if before == "done":
            return finished(run, skipped=True)
        if before == "outdated" and not run.overwrite:
            return Outcome(run.task, run.seed, None, 0.0, f"{folder.path} {why}")
        started = time.monotonic()
        code, reason, log = _attempt(
            _arguments(run, before), folder, environ, warm.start if run.starts_others else start
        )
        seconds = time.monotonic() - started
        if code == 0:
            return finished(run, seconds=seconds)
        if is_locked(folder) or state(run)[0] == "done":  # another process took the run first
            continue
        failure = Failure(run.task, run.arch, run.dataset, run.seed, run.identity, code, reason, seconds, log)
        if code not in STOPPED:
            records.write(folder.failure, failure)
        return Outcome(run.task, run.seed, None, seconds, failure.explained)
    return Outcome(run.task, run.seed, None, 0.0, "stopped before it started")


def _wait_for_others(folder: RunFolder) -> bool:
    """Wait while another process works in the folder; False once the sweep is stopped."""
    while not STOPPING.is_set():
        if not is_locked(folder):
            return True
        STOPPING.wait(POLL_SECONDS)
    return False


def _arguments(run: Planned, before: State) -> list[str]:
    fit = ["fit", *run.flags, *["--test"] * run.test]
    more = {
        "to test": ["test", *run.flags],
        "to resume": [*fit, "--ckpt_path", "last"],
        "outdated": [*fit, "--overwrite"],
        "to do": [*fit, *["--overwrite"] * run.overwrite],
    }
    return more[before]


def _attempt(arguments: list[str], folder: RunFolder, environ: dict[str, str], start: Start) -> tuple[int, str, str]:
    """Run a command, its output appended to the run's log: its exit code; of a failure the reason and the log."""
    with folder.log.open("ab") as stream, NamedTemporaryFile(prefix=".error-", dir=folder.path.parent) as error:
        child = start(arguments, output=stream, environ={**environ, ERROR_FILE: error.name})
        code, hung = _watched(child, folder)
        message = error.read().decode(errors="replace")
    if hung:
        return code, f"ended: it had written nothing for {SILENT_SECONDS:g} s", str(folder.log)
    return (code, *_reason(code, message, folder.log)) if code else (code, "", "")


def _watched(child: Process, folder: RunFolder) -> tuple[int, bool]:
    """The exit code of a process, and whether it hung; it is stopped where this one is, and killed if it does not end.

    A stopped process (SIGSTOP) does not react to SIGTERM, but SIGKILL ends it.
    """
    RUNNING.add(child)
    hung, asked, written, heard = False, 0.0, 0.0, time.monotonic()
    try:
        while True:
            try:
                code = child.wait(timeout=LOOK_SECONDS)
                return (-signal.SIGTERM if asked and code == -signal.SIGKILL else code), hung
            except TimeoutExpired:
                now, before = time.monotonic(), written
                written = _last_written(folder)
                heard = now if written != before else heard
            if STOPPING.is_set() and not asked:
                child.terminate()
                asked = now
            hung = hung or (not asked and now - heard > SILENT_SECONDS)
            if hung or (asked and now - asked > STOP_SECONDS):
                kill_all(child)
    finally:
        if child.poll() is None:
            kill_all(child)
            child.wait()
        RUNNING.discard(child)


def _last_written(folder: RunFolder) -> float:
    """When the log of a run, or a file in its folder, was written last."""
    times = [0.0]
    for path in (folder.log, *(folder.path.iterdir() if folder.path.is_dir() else ())):
        with suppress(OSError):  # replaced meanwhile
            times.append(path.stat().st_mtime)
    return max(times)


def kill_all(child: Process) -> None:
    """Kill a process with those that it has started, as far as this system tells which (Linux)."""
    for pid in _descendants(child.pid):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    child.kill()


def _descendants(pid: int) -> list[int]:
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:  # it has ended
        return []
    children = [int(number) for text in lists for number in text.split()]
    return [*(below for child in children for below in _descendants(child)), *children]


def stop() -> None:
    """End all runs of this process; they can be resumed from their last epoch."""
    STOPPING.set()
    for child in list(RUNNING):
        child.terminate()


def finished(run: Planned, *, seconds: float = 0.0, skipped: bool = False) -> Outcome:
    """The outcome of a run that has its result."""
    record = records.read(RunFolder(Path(run.folder)).result, RunRecord)
    accuracy = record.test.accuracy if record.test else None
    return Outcome(run.task, run.seed, accuracy, seconds, skipped=skipped)


def _reason(code: int, message: str, log: Path) -> tuple[str, str]:
    """The error that a process has left, else the signal or the exit code with the path of the log."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}", str(log)
    return (message, "") if message else (f"exit {code}", str(log))
