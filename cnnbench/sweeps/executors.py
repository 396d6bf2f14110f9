"""Where the runs of a sweep are done: on this machine, on a Ray cluster, or under Slurm.

Every executor takes the same runs and yields their outcomes as they end. The folder of the runs must be one that all
machines see, so that a run that another machine has finished or is doing is not done twice.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal

from cnnbench.arguments import checked
from cnnbench.sweeps.environ import data_root, threads_per_run
from cnnbench.sweeps.plan import Planned
from cnnbench.sweeps.run import STOPPING, Outcome, stop, supervise
from cnnbench.sweeps.warm import Start, WarmParent
from cnnbench.types import CnnbenchError, Exit, first_line

ANSWER_SECONDS = 10.0
"""How long a cluster may take to accept a connection."""

Executor = Literal["local", "ray", "slurm"]
Option = str | int | float | bool | None
Options = Mapping[str, Option]


@checked
def execute(
    planned: Sequence[Planned],
    *,
    executor: Executor = "local",
    jobs: int = 1,
    options: Options | None = None,
    start: Start | None = None,
) -> Generator[Outcome]:
    """Do all of `planned` and yield each outcome as it comes.

    Args:
        planned: The runs.
        executor: Where.
        jobs: Runs at a time, on this machine.
        options: For ray: address, num_cpus, num_gpus and max_retries of a run; for slurm the arguments of submitit's
            AutoExecutor.update_parameters, and cluster (slurm, or local to try it).
        start: How a process is started on this machine; by default as a fork of one that ends with this call.

    Raises:
        CnnbenchError: The executor is not installed or cannot be reached (exit 6); there is none of this name, or it
            refuses an option (exit 2).
    """
    if not planned:
        return _nothing()
    if executor == "ray":
        return _ray(planned, options or {})
    if executor == "slurm":
        return _slurm(planned, options or {})
    refuse_options(executor, options)
    return _local(planned, jobs, start)


def refuse_options(executor: Executor, options: Options | None) -> None:
    """Raises CnnbenchError for options of an executor that takes none (exit 2)."""
    if options and executor == "local":
        raise CnnbenchError("--executor-options are for ray and slurm; runs on this machine take --jobs")


def _nothing() -> Generator[Outcome]:
    yield from ()


def parse_options(options: Sequence[str]) -> dict[str, Option]:
    """KEY=VALUE items as a mapping; a value that reads as a number is one.

    Raises:
        CnnbenchError: An item is not KEY=VALUE (exit 2).
    """
    import yaml

    parsed = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise CnnbenchError(f"--executor-options {option}: expected KEY=VALUE, such as num_gpus=1")
        try:
            parsed[key] = yaml.safe_load(value)
        except (ValueError, RecursionError, yaml.YAMLError):
            raise CnnbenchError(
                f"--executor-options {option}: {value!r} is not a value; quote it if it is text"
            ) from None
    return parsed


def _local(planned: Sequence[Planned], jobs: int, start: Start | None) -> Generator[Outcome]:
    try:
        with WarmParent() as parent, ThreadPoolExecutor(jobs) as pool:
            place = {"threads": threads_per_run(jobs), "data_root": data_root(), "start": start or parent.start}
            futures = [pool.submit(supervise, run, **place) for run in planned]  # type: ignore[arg-type]
            try:
                for future in as_completed(futures):
                    yield future.result()
            finally:  # interrupted, or the caller stops early
                for future in futures:
                    future.cancel()
                stop()
    finally:
        STOPPING.clear()


def _ray(planned: Sequence[Planned], options: Options) -> Generator[Outcome]:
    """One Ray task per run. A task whose node is lost is rescheduled, and resumes from the last epoch."""
    ray = _imported("ray")
    settings: dict[str, Any] = {"num_cpus": 1, "max_retries": 3, **options}
    address = str(settings.pop("address", "auto"))
    _require_answer(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise CnnbenchError(f"no Ray cluster at {address}: {first_line(error)}", Exit.ENVIRONMENT) from None
    try:
        threads = max(1, int(settings["num_cpus"]))
        task = ray.remote(supervise).options(**settings)
    except (ValueError, TypeError) as error:
        ray.shutdown()
        raise CnnbenchError(f"--executor-options: {first_line(error)}") from None
    try:
        waiting = {task.remote(run, threads=threads, data_root=data_root()): run for run in planned}
        while waiting and not STOPPING.is_set():
            for ended in ray.wait(list(waiting), num_returns=1, timeout=1.0)[0]:
                run = waiting.pop(ended)
                try:
                    yield ray.get(ended)
                except ray.exceptions.RayError as error:
                    yield Outcome(run.task, run.seed, None, 0.0, f"Ray failed: {first_line(error)}")
        for left, run in waiting.items():
            ray.cancel(left, force=True)
            yield Outcome(run.task, run.seed, None, 0.0, "stopped")
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Refuse an address at which nothing listens: Ray itself would try for minutes."""
    known = Path(tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or (known.read_text().strip() if known.is_file() else "")
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "//" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise CnnbenchError(f"no Ray cluster at {address}: {error}", Exit.ENVIRONMENT) from None


def _slurm(planned: Sequence[Planned], options: Options) -> Generator[Outcome]:
    """One Slurm job per run, through submitit; its logs lie beside the runs."""
    submitit = _imported("submitit")
    settings: dict[str, Any] = {"timeout_min": 24 * 60, "cpus_per_task": 1, **options}
    cluster = settings.pop("cluster", "slurm")
    folder = Path(planned[0].folder).parents[1] / ".submitit"
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**settings)
    except RuntimeError as error:
        raise CnnbenchError(f"Slurm cannot be used: {first_line(error)}", Exit.ENVIRONMENT) from None
    except (NameError, TypeError, ValueError) as error:
        raise CnnbenchError(f"--executor-options: {first_line(error)}") from None
    place = {"threads": settings["cpus_per_task"], "data_root": data_root()}
    jobs = {executor.submit(supervise, run, **place): run for run in planned}
    try:
        while jobs and not STOPPING.is_set():
            for job in [job for job in jobs if job.done()]:
                run = jobs.pop(job)
                try:
                    yield job.result()
                except Exception as error:  # whatever submitit makes of a job that died
                    yield Outcome(run.task, run.seed, None, 0.0, f"the job gave no result: {first_line(error)}")
            STOPPING.wait(1.0)
        for run in jobs.values():
            yield Outcome(run.task, run.seed, None, 0.0, "stopped")
    finally:
        for job in jobs:
            job.cancel()


def _imported(extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(extra)
    except ImportError:
        name = {"submitit": "slurm"}.get(extra, extra)
        raise CnnbenchError(f"{extra} is not installed: pip install 'cnnbench[{name}]'", Exit.ENVIRONMENT) from None
