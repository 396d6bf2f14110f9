"""Where the runs of a sweep are done: on this machine, on a Ray cluster, or under Slurm.

Every engine takes the same runs and yields their outcomes as they end. The folder of the runs must be one that all
machines see; a run that another machine finished or is doing is then not done twice.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal

from cnnbench.sweeps.run import STOPPING, Outcome, Planned, stop, supervise
from cnnbench.types import CnnbenchError, Exit

ANSWER_SECONDS = 10.0
"""What a cluster may take to accept a connection."""

Engine = Literal["local", "ray", "slurm"]


def run(planned: list[Planned], engine: Engine, jobs: int, options: dict[str, Any]) -> Iterator[Outcome]:
    """Do all of `planned` and yield each outcome as it comes.

    Args:
        planned: The runs.
        engine: Where.
        jobs: Runs at a time, on this machine.
        options: For ray: address, num_cpus, num_gpus and max_retries of a run; for slurm what submitit's
            AutoExecutor.update_parameters takes, and cluster (slurm, or local to try it).

    Raises:
        CnnbenchError: The engine is not installed or cannot be reached (exit 6), or refuses an option (exit 2).
    """
    engines = {
        "local": lambda: _local(planned, jobs, options),
        "ray": lambda: _ray(planned, options),
        "slurm": lambda: _slurm(planned, options),
    }
    return engines[engine]()


def data_root() -> str | None:
    """CNNBENCH_DATA as every machine finds it."""
    given = os.environ.get("CNNBENCH_DATA")
    return str(Path(given).expanduser().resolve()) if given else None


def threads_each(jobs: int) -> int | None:
    """Threads of each of `jobs` processes; None leaves one alone with what the environment or torch decides."""
    if jobs == 1 or "OMP_NUM_THREADS" in os.environ:
        return None
    return max(1, (os.cpu_count() or 1) // jobs)


def _local(planned: list[Planned], jobs: int, options: dict[str, Any]) -> Iterator[Outcome]:
    if options:
        raise CnnbenchError("--engine_options are for ray and slurm; runs on this machine take --jobs")
    try:
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(supervise, run, threads_each(jobs), data_root()) for run in planned]
            try:
                for future in as_completed(futures):
                    yield future.result()
            finally:  # interrupted, or the caller has had enough
                for future in futures:
                    future.cancel()
                stop()
    finally:
        STOPPING.clear()


def _ray(planned: list[Planned], options: dict[str, Any]) -> Iterator[Outcome]:
    """One Ray task a run. A task whose node is lost is done again elsewhere, and goes on from the last epoch."""
    ray = _imported("ray")
    asked = {"num_cpus": 1, "max_retries": 3, **options}
    address = asked.pop("address", "auto")
    _require_answer(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise CnnbenchError(f"no Ray cluster at {address}: {_first_line(error)}", Exit.ENVIRONMENT) from None
    try:
        threads = max(1, int(asked["num_cpus"]))
        task = ray.remote(supervise).options(**asked)
    except (ValueError, TypeError) as error:
        ray.shutdown()
        raise CnnbenchError(f"--engine_options: {_first_line(error)}") from None
    try:
        waiting = {task.remote(run, threads, data_root()): run for run in planned}
        while waiting:
            (ended, *_), _ = ray.wait(list(waiting), num_returns=1)
            run = waiting.pop(ended)
            try:
                yield ray.get(ended)
            except ray.exceptions.RayError as error:
                yield Outcome(run.task, run.seed, None, 0.0, f"Ray gave it up: {_first_line(error)}")
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


def _slurm(planned: list[Planned], options: dict[str, Any]) -> Iterator[Outcome]:
    """One Slurm job a run, through submitit; its logs lie beside the runs."""
    submitit = _imported("submitit")
    asked = {"timeout_min": 24 * 60, "cpus_per_task": 1, **options}
    cluster = asked.pop("cluster", "slurm")
    folder = Path(planned[0].folder).parents[1] / ".submitit"
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**asked)
    except RuntimeError as error:
        raise CnnbenchError(f"Slurm cannot be used: {_first_line(error)}", Exit.ENVIRONMENT) from None
    except (NameError, TypeError, ValueError) as error:
        raise CnnbenchError(f"--engine_options: {_first_line(error)}") from None
    jobs = {executor.submit(supervise, run, asked["cpus_per_task"], data_root()): run for run in planned}
    try:
        while jobs:
            for job in [job for job in jobs if job.done()]:
                run = jobs.pop(job)
                try:
                    yield job.result()
                except Exception as error:  # whatever submitit makes of a job that died
                    yield Outcome(run.task, run.seed, None, 0.0, f"the job gave no result: {_first_line(error)}")
            time.sleep(1.0)
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


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
