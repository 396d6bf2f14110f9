"""`sweep`: train and test every task with every seed."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cnnbench import extras, progress
from cnnbench.cli.hints import say_next
from cnnbench.cli.table import Format, render
from cnnbench.sweeps.warm import WarmParent
from cnnbench.tables.columns import Column
from cnnbench.tables.text import percent_digits
from cnnbench.types import CnnbenchError, Exit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnbench.progress import Display
    from cnnbench.sweeps.run import Outcome
    from cnnbench.sweeps.sweep import Entry, Progress

RUNS = [
    Column("task", "task"),
    Column("seed", "seed", right=True),
    Column("state", "state"),
    Column("accuracy", "test accuracy", percent_digits, unit="%", right=True),
    Column("seconds", "s", "{:.0f}".format, right=True),
    Column("reason", "reason"),
]
TASKS = [
    Column("task", "task"),
    Column("arch", "architecture"),
    Column("dataset", "dataset"),
    Column("seeds", "seeds", right=True),
    Column("epochs", "epochs", right=True),
    Column("to_do", "to do", right=True),
    Column("done", "done", right=True),
    Column("outdated", "outdated", right=True),
    Column("minutes", "minutes left", "{:.1f}".format, right=True),
    Column("bytes", "MB to write", lambda value: f"{value / 1e6:.1f}", right=True),
]


def sweep(
    tasks: list[str] = [],  # noqa: B006 - the parser reads it, nobody changes it
    *,
    dataset: list[str] | None = None,
    arch: list[str] | None = None,
    seeds: int = 3,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    folder: str | None = None,
    dry_run: bool = False,
    train_images: list[int] | None = None,
    override: list[str] | None = None,
    runs_dir: str = "runs",
    jobs: int = 1,
    executor: Literal["local", "ray", "slurm"] = "local",
    executor_options: list[str] | None = None,
    format: Format = "table",
    overwrite: bool = False,
) -> int:
    """Train and test every task with every seed. Run it again to resume.

    Failed runs are listed with the reason; the exit code is then 7.

    Args:
        tasks: Architectures, task names or task files.
        dataset: Data sets, each with every architecture, by default mnist5k.
        arch: Architectures, instead of TASKS.
        seeds: Number of seeds: 1, 2, ...
        epochs: Passes over the training images, for every run; by default the task's.
        lr: Peak learning rate, for every run; by default the task's.
        batch_size: Images per training step, for every run; by default the task's.
        folder: Your own images, instead of --dataset.
        train_images: Also vary the number of training images, with the number of optimizer steps held constant.
        override: A flag of `fit` for every run, KEY=VALUE, such as trainer.max_epochs=5. Repeat it for several.
        runs_dir: Folder of the runs; with several machines, a shared one.
        jobs: Parallel runs on this machine; they share its cores.
        executor: This machine, an existing Ray cluster, or Slurm (through submitit).
        executor_options: For ray: address, num_cpus, num_gpus, max_retries; for slurm submitit's, as timeout_min=60.
        format: How to print the table: for people (table, markdown) or for programs (csv, json).
        overwrite: Replace runs of another configuration, data or code; each is kept until its replacement is trained.
        dry_run: Print what there is to do, with an estimate of time and disk space, and stop.

    Examples:
        cnnbench sweep lenet5 mlp
        cnnbench sweep lenet5 mlp --dataset mnist --seeds 5 --dry-run
        cnnbench sweep lenet5 --epochs 3 --lr 0.1
    """
    names = _names(tasks, dataset or [], arch or [], folder)
    settings = {"trainer.max_epochs": epochs, "model.lr": lr, "data.batch_size": batch_size, "data.folder": folder}
    overrides = [f"{key}={value}" for key, value in settings.items() if value is not None]

    extras.require("sweep", "torch")
    with WarmParent() as parent:
        if executor == "local" and not dry_run:
            parent.prepare(jobs)  # it imports torch while this process does, and plans
        from cnnbench.sweeps.executors import parse_options, refuse_options
        from cnnbench.sweeps.plan import plan
        from cnnbench.sweeps.sweep import run_sweep, survey

        options = parse_options(executor_options or [])
        refuse_options(executor, options)
        planned = plan(
            names,
            seeds=seeds,
            overrides=[*overrides, *(override or [])],
            train_images=train_images or [],
            runs_dir=runs_dir,
            overwrite=overwrite,
        )
        with progress.display(None):
            entries = survey(planned, jobs=jobs)
        if dry_run:
            _print_plan(entries, jobs, format)
            if format == "table":
                print("next: the same command without --dry-run", file=sys.stderr)
            return Exit.OK
        to_do = [entry for entry in entries if entry.state != "done"]
        with progress.display(len(to_do)) as shown:
            shown.move(f"run 1 of {len(to_do)}", done=0)
            report = partial(_print_progress, shown)
            outcomes = run_sweep(
                entries, executor=executor, jobs=jobs, options=options, start=parent.start, report=report
            )
    code = _print_outcomes(outcomes, format)
    if code == Exit.OK:
        say_next("compare", runs_dir, format=format)
    return code


def _names(tasks: list[str], datasets: list[str], archs: list[str], folder: str | None) -> list[str]:
    """The tasks by name: every architecture on every data set, or on a folder of images; else as they are named."""
    if tasks and archs:
        raise CnnbenchError(f"sweep: name architectures once: {' '.join(tasks)} and --arch {','.join(archs)} are given")
    if datasets and folder is not None:
        raise CnnbenchError("sweep: --dataset and --folder both name images: give one")
    if not tasks and not archs:
        example = f"`cnnbench sweep lenet5 mlp --dataset {datasets[0] if datasets else 'mnist'}`"
        raise CnnbenchError(f"sweep: name architectures or tasks, such as {example}")
    tasks = [name for task in tasks for name in ([task] if Path(task).is_file() else task.split(","))]
    places = ["folder"] if folder is not None else datasets
    return [f"{place}_{name}" for place in places for name in tasks or archs] or tasks or archs


def _print_plan(entries: Sequence[Entry], jobs: int, format: Format) -> None:
    render(TASKS, _task_rows(entries), title="Sweep", format=format)
    if format != "table":
        return
    forecasts = [entry.forecast for entry in entries if entry.forecast]
    time = progress.in_words(sum(forecast.seconds for forecast in forecasts) / jobs)
    megabytes = sum(forecast.disk_bytes for forecast in forecasts) / 1e6
    print(f"{len(forecasts)} of {len(entries)} runs to do: about {time}, {megabytes:,.0f} MB")
    for entry in entries:
        if entry.state == "outdated" and not entry.run.overwrite:
            print(f"outdated: {entry.run.folder} {entry.reason}; --overwrite would train it again")


def _task_rows(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for entry in entries:
        run = entry.run
        counts = {"seeds": 0, "to_do": 0, "done": 0, "outdated": 0, "minutes": 0.0, "bytes": 0}
        about = {"task": run.task, "arch": run.arch, "dataset": run.dataset}
        row = rows.setdefault(run.task, {**about, "epochs": run.config.trainer["max_epochs"], **counts})
        row["seeds"] += 1
        row[entry.state if entry.state in ("done", "outdated") else "to_do"] += 1
        if entry.forecast:
            row["minutes"] += entry.forecast.seconds / 60
            row["bytes"] += entry.forecast.disk_bytes
    return list(rows.values())


def _print_outcomes(outcomes: Sequence[Outcome], format: Format) -> int:
    render(RUNS, [_row(outcome) for outcome in outcomes], title="Runs", format=format)
    failed = sum(bool(outcome.reason) for outcome in outcomes)
    if failed:
        print(f"cnnbench: {failed} of {len(outcomes)} runs failed; the same command tries them again", file=sys.stderr)
    return Exit.SWEEP if failed else Exit.OK


def _print_progress(shown: Display, now: Progress) -> None:
    """One line per run on stderr, as it ends, and on a terminal the bar."""
    outcome = now.outcome
    shown.move(f"run {min(now.ended + 1, now.total)} of {now.total}", done=now.ended)
    result = f"failed: {outcome.reason}" if outcome.reason else f"test accuracy {outcome.accuracy:.2%}"
    rest = f"; about {progress.in_words(now.seconds_left)} left" if now.ended < now.total else ""
    place = f"[{now.ended}/{now.total}] {outcome.task} seed {outcome.seed}"
    print(f"{place}: {result}, {outcome.seconds:.0f} s{rest}", file=sys.stderr, flush=True)


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        "task": outcome.task,
        "seed": outcome.seed,
        "state": "failed" if outcome.reason else "was done" if outcome.skipped else "done",
        "accuracy": outcome.accuracy,
        "seconds": outcome.seconds,
        "reason": outcome.reason,
    }
