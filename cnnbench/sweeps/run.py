"""Many runs: which there are to do, what they will take, and one of them done under supervision.

A run is known again by its identity (`training.identity`), so the same sweep started twice goes on where it stopped.
Each run is `cnnbench fit --test` in a process of its own, holding a lock that no other sweep passes.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from cnnbench import datasets, records, tasks
from cnnbench.datasets.choice import open_choice
from cnnbench.records.schema import Failure, RunConfig, RunRecord
from cnnbench.training.checkpoints import open_checkpoint
from cnnbench.training.config import parse, task_name
from cnnbench.training.folder import RunFolder
from cnnbench.training.identity import identity
from cnnbench.types import CnnbenchError, Dataset, Exit

LOOK_SECONDS = 0.5
"""Between two looks at a lock that another process holds."""

State = Literal["done", "to test", "to go on", "to do", "stale"]


DECIDED = {
    "seed_everything": "--seeds",
    "runs-dir": "--runs-dir",
    "runs_dir": "--runs-dir",
    "overwrite": "--overwrite",
    "test": "`cnnbench fit`",
    "ckpt_path": "`cnnbench fit`",
    "format": "--format",
}
"""Flags of `fit` that no override may set, and what to use instead."""


@dataclass(frozen=True)
class Planned:
    """One run of a sweep. JSON values alone, so that it travels to another machine."""

    task: str
    arch: str
    dataset: str
    seed: int
    folder: str
    """Absolute."""
    flags: tuple[str, ...]
    """What `fit` and `test` are called with."""
    config: RunConfig
    identity: str
    overwrite: bool = False

    @property
    def name(self) -> str:
        return f"{self.task} seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """How one run of a sweep ended. `reason` is empty where there is a result."""

    task: str
    seed: int
    accuracy: float | None
    seconds: float
    reason: str = ""
    skipped: bool = False


def plan(
    names: list[str], seeds: int, overrides: list[str], train_images: list[int], runs_dir: str, overwrite: bool
) -> list[Planned]:
    """Every task with every number of training images and every seed from 1 on.

    Args:
        names: Tasks by name or file, or `<dataset>_<architecture>` of registered ones.
        seeds: How many.
        overrides: Flags of `fit` as `key=value`, for all runs.
        train_images: Numbers of training images; empty takes all images.
        runs_dir: Where the runs are kept.
        overwrite: Whether a run that was trained otherwise may be replaced.

    Raises:
        CnnbenchError: A name, key or value is unknown (exit 2), or data are missing (exit 3).
    """
    try:
        Path(runs_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CnnbenchError(f"cannot write to {runs_dir}: {error.strerror}; choose another --runs-dir") from None
    loaded: dict[str, Dataset] = {}
    planned = []
    for name in names:
        for count in train_images or (None,):
            flags = _flags(name, overrides, count, loaded)
            for seed in range(1, seeds + 1):
                mine = (*flags, "--seed_everything", str(seed))
                config = parse(mine, verb="sweep")
                mine = (*mine, "--runs-dir", str(Path(runs_dir).resolve()))
                data = opened(config, loaded)
                task = task_name(config)
                folder = str(Path(runs_dir).resolve() / task / f"seed{seed}")
                made = identity(config, data)
                planned.append(Planned(task, config.model.arch, data.name, seed, folder, mine, config, made, overwrite))
    twice = {run.folder for run in planned if sum(other.folder == run.folder for other in planned) > 1}
    if twice:
        raise CnnbenchError(f"two runs of this sweep would share {sorted(twice)[0]}: name each task once")
    return planned


def _flags(name: str, overrides: list[str], train_images: int | None, loaded: dict[str, Dataset]) -> tuple[str, ...]:
    """The flags of one task, whatever the seed."""
    flags = _task(name)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise CnnbenchError(f"--override {override}: expected KEY=VALUE, such as trainer.max_epochs=5")
        if key in DECIDED:
            raise CnnbenchError(f"--override {override}: the sweep decides that; use {DECIDED[key]}")
        if key in ("data.folder", "data.root"):  # another machine, or a worker, starts elsewhere
            value = str(Path(value).expanduser().resolve())
        flags.append(f"--{key.removeprefix('--')}={value}")
    if train_images is None:
        return tuple(flags)
    config = parse(flags, verb="sweep")
    return (*flags, *_fewer(config, train_images, len(opened(config, loaded).train)))


def _fewer(config: RunConfig, count: int, whole: int) -> list[str]:
    """Flags for `count` training images in as many steps as all of them take, so that no run is merely cut short."""
    batch, epochs = config.data.batch_size, config.trainer_count("max_epochs")
    times = max(1, round(max(1, whole // batch) / max(1, count // min(batch, count))))
    task = f"{task_name(config)}_n{count}"
    return [
        f"--data.train_images={count}",
        f"--task={task}",
        f"--trainer.max_epochs={epochs * times}",
        f"--trainer.check_val_every_n_epoch={times}",
    ]


def _task(name: str) -> list[str]:
    """The flags for a task's name or file, else for `<dataset>_<architecture>`, which needs no file."""
    known = tasks.names()
    for dataset in datasets.dataset.entries:
        arch = name.removeprefix(f"{dataset}_")
        if name not in known and not Path(name).is_file() and arch != name:
            return [f"--data.dataset={dataset}", f"--model.arch={arch}"]
    return [f"--config={tasks.find(name).resolve()}"]


def opened(config: RunConfig, loaded: dict[str, Dataset]) -> Dataset:
    """The images of a configuration; `loaded` keeps those that were opened before."""
    key = msgspec.json.encode(records.replace(config.data, batch_size=1)).decode()
    if key not in loaded:
        loaded[key] = open_choice(config.data, download=config.data.download)
    return loaded[key]


def state(run: Planned) -> tuple[State, str]:
    """What a run's folder holds of it, and for a stale one why."""
    folder = RunFolder(Path(run.folder))
    try:
        if folder.result.is_file():
            record = records.read(folder.result, RunRecord)
            if record.identity == run.identity:
                return ("done" if record.test else "to test"), ""
            return "stale", "holds a run of another configuration, data or code"
        if folder.last.is_file():
            return ("to go on", "") if _interrupted(folder.last) == run.identity else ("stale", "holds another run")
    except CnnbenchError as error:
        return "stale", str(error)
    return "to do", ""


def _interrupted(checkpoint: Path) -> str:
    """The identity of the run that left this checkpoint."""
    callbacks = open_checkpoint(checkpoint)["callbacks"]
    recorder: dict[str, Any] = next((value for key, value in callbacks.items() if key.startswith("Recorder")), {})
    made: str = recorder.get("identity", "")
    return made


def supervise(run: Planned, threads: int | None = None, data_root: str | None = None) -> Outcome:
    """Do one run, in a process of its own, and say how it ended; a failure leaves failure.json.

    One that is finished is left alone, one that was interrupted goes on. While another process does this very run, it
    is waited for.

    Args:
        run: What to do.
        threads: Of the process; by default as many as the environment or the machine says.
        data_root: CNNBENCH_DATA for the process.
    """
    folder = RunFolder(Path(run.folder))
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.path.with_suffix(".lock")) as lock:
        if lock is None:
            return Outcome(run.task, run.seed, None, 0.0, "stopped before it began")
        since = time.monotonic()
        before, why = state(run)
        if before == "done":
            return finished(run, skipped=True)
        if before == "stale" and not run.overwrite:
            return Outcome(run.task, run.seed, None, 0.0, f"{folder.path} {why}")
        verb = "test" if before == "to test" else "fit"
        more = {"fit": ["--test"], "test": []}[verb]
        more += ["--ckpt_path", "last"] if before == "to go on" else ["--overwrite"] if before == "stale" else []
        environ = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
        environ |= {"CNNBENCH_DATA": data_root} if data_root else {}
        command = [sys.executable, "-m", "cnnbench", verb, *run.flags, *more]
        log = folder.path.with_suffix(".log")
        with log.open("ab") as stream:
            start = stream.tell()
            code = _watched(command, stream, environ, lock)
        seconds = time.monotonic() - since
        if code == 0:
            return finished(run, seconds)
        reason = _reason(log, start, code)
        failure = Failure(run.task, run.arch, run.dataset, run.seed, run.identity, code, reason, seconds)
        if code not in STOPPED:  # a stopped run has not failed
            records.write(folder.failure, failure)
        return Outcome(run.task, run.seed, None, seconds, reason)


def _watched(command: list[str], stream: Any, environ: dict[str, str], lock: int) -> int:
    """Run a command; where this process is stopped, so is that one.

    It inherits the lock: should this process be killed, the run stays locked for as long as it goes on.
    """
    child = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environ, pass_fds=[lock])
    RUNNING.add(child)
    if STOPPING.is_set():  # between the lock and here
        child.terminate()
    try:
        return child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
        RUNNING.discard(child)


STOPPED = (-signal.SIGINT, -signal.SIGTERM, Exit.INTERRUPTED, Exit.TERMINATED)

RUNNING: set[subprocess.Popen[bytes]] = set()
"""The processes that `stop` ends."""

STOPPING = threading.Event()
"""Set: nothing new is begun."""


def stop() -> None:
    """End all runs of this process; what they have trained so far can be gone on with."""
    STOPPING.set()
    for child in list(RUNNING):
        child.terminate()


@contextmanager
def _locked(path: Path) -> Iterator[int | None]:
    """Hold `path` alone, waiting for whoever does; yields the file's descriptor, or None if stopped meanwhile."""
    with path.open("w") as file:
        while not STOPPING.is_set():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                STOPPING.wait(LOOK_SECONDS)
            else:
                yield file.fileno()
                return
        yield None


def finished(run: Planned, seconds: float = 0.0, skipped: bool = False) -> Outcome:
    """The outcome of a run that has its result."""
    record = records.read(RunFolder(Path(run.folder)).result, RunRecord)
    assert record.test is not None
    return Outcome(run.task, run.seed, record.test.accuracy, seconds, skipped=skipped)


def _reason(log: Path, start: int, code: int) -> str:
    """What the run said of itself last, or which signal ended it."""
    with log.open("rb") as stream:
        stream.seek(start)
        lines = [line.strip() for line in stream.read().decode(errors="replace").splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if line.startswith("cnnbench: ")), None)
    if said:
        return said.removeprefix("cnnbench: ")
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}; see {log}"
    return f"exit {code}: {lines[-1] if lines else 'it said nothing'}; see {log}"
