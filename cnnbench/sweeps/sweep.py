"""A sweep from its tasks to the outcomes of its runs: which are left, how long they will take, and doing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cnnbench import progress
from cnnbench.sweeps.environ import threads_per_run
from cnnbench.sweeps.estimate import Forecast, forecast
from cnnbench.sweeps.executors import Executor, Option, execute
from cnnbench.sweeps.plan import Planned, State, plan, require_positive, state
from cnnbench.sweeps.run import Outcome, finished
from cnnbench.sweeps.warm import Start
from cnnbench.types import CnnbenchError


@dataclass(frozen=True)
class Entry:
    """A run of a sweep, with what its folder holds of it."""

    run: Planned
    state: State
    reason: str
    """Why it is outdated."""
    forecast: Forecast | None
    """None for a run that is done."""


@dataclass(frozen=True)
class Progress:
    """A run that has just ended."""

    outcome: Outcome
    ended: int
    """Runs of this sweep that have ended, this one included."""
    total: int
    seconds_left: float
    """Estimated for the other runs; 0 for the last."""


def sweep(
    tasks: str | Sequence[str],
    *,
    seeds: int = 3,
    overrides: Sequence[str] = (),
    train_images: Sequence[int] = (),
    runs_dir: str | Path = "runs",
    overwrite: bool = False,
    executor: Executor = "local",
    jobs: int = 1,
    options: Mapping[str, Option] | None = None,
    report: Callable[[Progress], None] = lambda _: None,
) -> list[Outcome]:
    """Train and test every task with every seed, each run in a separate process; the same call later resumes.

    Args:
        tasks: Tasks by name or file, or `<dataset>_<arch>`.
        seeds, overrides, train_images, runs_dir, overwrite: See `plan`.
        executor, jobs, options, report: See `run_sweep`.

    Returns:
        One outcome per run; a failed run is an outcome with its reason.

    Raises:
        CnnbenchError: A name, key or value is unknown, a name is registered in this process alone, or a run is in the
            way (exit 2); data are missing (exit 3); the executor cannot be used (exit 6).
    """
    planned = plan(
        tasks,
        seeds=seeds,
        overrides=overrides,
        train_images=train_images,
        runs_dir=runs_dir,
        overwrite=overwrite,
    )
    return run_sweep(survey(planned, jobs=jobs), executor=executor, jobs=jobs, options=options, report=report)


def survey(planned: Sequence[Planned], *, jobs: int = 1) -> list[Entry]:
    """What is done of each run, and what the others will take with `jobs` of them at a time on this machine."""
    states = [state(run) for run in planned]
    require_positive(jobs=[jobs])
    to_do = [run for run, (now, _) in zip(planned, states, strict=True) if now != "done"]
    if to_do:
        progress.step(f"timing a few training steps, to say how long {len(to_do)} runs take")
    forecasts = forecast(to_do, threads=threads_per_run(jobs))
    return [
        Entry(run, now, reason, forecasts.get(run.folder)) for run, (now, reason) in zip(planned, states, strict=True)
    ]


def run_sweep(
    entries: Sequence[Entry],
    *,
    executor: Executor = "local",
    jobs: int = 1,
    options: Mapping[str, Option] | None = None,
    start: Start | None = None,
    report: Callable[[Progress], None] = lambda _: None,
) -> list[Outcome]:
    """Do the runs that are not done; the same call later resumes. A failed run is an outcome with its reason.

    Args:
        entries: From `survey`.
        executor: Where: on this machine, on a Ray cluster, or under Slurm.
        jobs: Runs at a time on this machine.
        options, start: See `executors.execute`.
        report: Called as each run ends.

    Returns:
        One outcome per entry, in their order.

    Raises:
        CnnbenchError: A run is outdated and may not be overwritten (exit 2); the executor cannot be used (exit 6).
    """
    refuse_outdated(entries)
    to_do = [entry for entry in entries if entry.state != "done"]
    outcomes = {entry.run.folder: finished(entry.run, skipped=True) for entry in entries if entry.state == "done"}
    left = {entry.run.folder: entry.forecast.seconds if entry.forecast else 0.0 for entry in to_do}
    expected = spent = 0.0
    folders = {(entry.run.task, entry.run.seed): entry.run.folder for entry in entries}
    runs = [entry.run for entry in to_do]
    require_positive(jobs=[jobs])
    with closing(execute(runs, executor=executor, jobs=jobs, options=options, start=start)) as ending:
        if runs:
            progress.say(f"{len(runs)} runs to do, about {progress.in_words(sum(left.values()) / jobs)}")
        for ended, outcome in enumerate(ending, start=1):
            folder = folders[outcome.task, outcome.seed]
            outcomes[folder] = outcome
            expected += left.pop(folder)
            spent += outcome.seconds
            pace = spent / expected if expected else 1.0  # of the machine, as the runs so far show it
            report(Progress(outcome, ended, len(to_do), sum(left.values()) * pace / jobs))
    return [outcomes[entry.run.folder] for entry in entries]


def refuse_outdated(entries: Sequence[Entry]) -> None:
    """Raises CnnbenchError: a run of another configuration, data or code is in the way (exit 2)."""
    outdated = [entry for entry in entries if entry.state == "outdated" and not entry.run.overwrite]
    if outdated:
        raise CnnbenchError(
            f"{outdated[0].run.folder} {outdated[0].reason} ({len(outdated)} such): "
            "give --overwrite to train again, or another --runs-dir"
        )
