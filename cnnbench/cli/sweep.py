"""`sweep`: every task with every seed, each run in a process of its own; a table at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from cnnbench.cli.table import Format, render
from cnnbench.tables.columns import Column
from cnnbench.types import CnnbenchError, Exit

COLUMNS = [
    Column("task", "task"),
    Column("seed", "seed", right=True),
    Column("state", "state"),
    Column("accuracy", "test accuracy, %", lambda value: f"{100 * value:.2f}", right=True),
    Column("seconds", "s", "{:.0f}".format, right=True),
    Column("reason", "reason"),
]
MATRIX = [
    Column("task", "task"),
    Column("arch", "architecture"),
    Column("dataset", "dataset"),
    Column("seeds", "seeds", right=True),
    Column("epochs", "epochs", right=True),
    Column("to do", "to do", right=True),
    Column("done", "done", right=True),
    Column("stale", "stale", right=True),
    Column("minutes", "min to go", "{:.1f}".format, right=True),
    Column("bytes", "MB to come", lambda value: f"{value / 1e6:.1f}", right=True),
]


def sweep(
    tasks: list[str] = [],  # noqa: B006 - jsonargparse reads it, nobody changes it
    dataset: str | None = None,
    arch: str | None = None,
    seeds: int = 3,
    train_images: str | None = None,
    override: list[str] | None = None,
    runs_dir: str = "runs",
    jobs: int = 1,
    engine: str = "local",
    engine_options: list[str] | None = None,
    format: Format = "table",
    overwrite: bool = False,
    dry_run: bool = False,
) -> int:
    """Train and test every task with every seed; the same command again goes on where it stopped.

    Args:
        tasks: Task names or files; or give --dataset and --arch.
        dataset: Datasets, comma separated; with --arch, every pair is a task.
        arch: Architectures, comma separated.
        seeds: Number of seeds: 1, 2, ...
        train_images: Also vary the number of training images: 100,300,1000; each in as many steps as all images take.
        override: Flags of `fit` for every run, KEY=VALUE: trainer.max_epochs=5 data.folder=pets.
        runs_dir: Folder of the runs; for several machines one that all of them see.
        jobs: Runs at a time on this machine; they share its cores.
        engine: local, ray (an existing cluster) or slurm (through submitit).
        engine_options: KEY=VALUE. ray: address, num_cpus, num_gpus, max_retries; slurm: what submitit takes.
        format: How to print the table: for people (table, markdown) or for programs (csv, json).
        overwrite: Train again where a run of another configuration, data or code lies; it is kept until then.
        dry_run: Print what there is to do with an estimate of time and disk, and stop.
    """
    for name, value in (("seeds", seeds), ("jobs", jobs)):
        if value < 1:
            raise CnnbenchError(f"--{name} {value}: expected at least 1")
    if engine not in ("local", "ray", "slurm"):
        raise CnnbenchError(f"--engine {engine}: expected local, ray or slurm")
    names, counts = _names(tasks, dataset, arch), _counts(train_images)

    from cnnbench.sweeps import estimate
    from cnnbench.sweeps import executors as engines
    from cnnbench.sweeps import run as training

    planned = training.plan(names, seeds, override or [], counts, runs_dir, overwrite)
    states = {run.folder: training.state(run) for run in planned}
    todo = [run for run in planned if states[run.folder][0] != "done"]
    forecast = estimate.forecast(todo, engines.threads_each(jobs))
    if dry_run:
        render(MATRIX, _matrix(planned, states, forecast), title="Sweep", format=format)
        if format == "table":
            print(_total(len(planned), forecast, jobs))
            for run in [run for run in todo if states[run.folder][0] == "stale" and not overwrite]:
                print(f"stale: {run.folder} {states[run.folder][1]}; --overwrite would train it again")
        return Exit.OK
    stale = [run for run in todo if states[run.folder][0] == "stale"]
    if stale and not overwrite:
        raise CnnbenchError(
            f"{stale[0].folder} {states[stale[0].folder][1]} ({len(stale)} such): "
            "give --overwrite to train again, or another --runs-dir"
        )
    options = dict(_pair(option) for option in engine_options or [])
    outcomes = [training.finished(run, skipped=True) for run in planned if run not in todo]
    if todo:
        outcomes += _told(engines.run(todo, engine, jobs, options), todo, forecast, jobs)  # type: ignore[arg-type]
    place = {(run.task, run.seed): number for number, run in enumerate(planned)}
    outcomes.sort(key=lambda outcome: place[outcome.task, outcome.seed])
    render(COLUMNS, [_row(outcome) for outcome in outcomes], title="Runs", format=format)
    failed = sum(bool(outcome.reason) for outcome in outcomes)
    if failed:
        print(f"cnnbench: {failed} of {len(outcomes)} runs failed; the same command tries them again", file=sys.stderr)
    return Exit.SWEEP if failed else Exit.OK


def _names(tasks: list[str], dataset: str | None, arch: str | None) -> list[str]:
    """The tasks that are asked for."""
    if bool(dataset) != bool(arch) or bool(tasks) == bool(dataset):
        raise CnnbenchError(
            "sweep: name tasks, or give --dataset and --arch, such as --dataset mnist --arch mlp,lenet5"
        )
    if tasks:
        return tasks
    assert dataset is not None
    assert arch is not None
    return [f"{data}_{name}" for data in dataset.split(",") for name in arch.split(",")]


def _counts(text: str | None) -> list[int]:
    parts = text.split(",") if text else []
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise CnnbenchError(f"--train_images {text}: expected numbers of images, such as 100,300,1000")
    return [int(part) for part in parts]


def _pair(option: str) -> tuple[str, Any]:
    """A KEY=VALUE, its value a number where it reads as one."""
    import yaml

    key, equals, value = option.partition("=")
    if not equals or not key:
        raise CnnbenchError(f"--engine_options {option}: expected KEY=VALUE, such as num_gpus=1")
    return key, yaml.safe_load(value)


def _matrix(
    planned: list[Any], states: Mapping[str, tuple[str, str]], forecast: dict[str, Any]
) -> list[dict[str, Any]]:
    """One row a task."""
    rows: dict[str, dict[str, Any]] = {}
    for run in planned:
        row = rows.setdefault(
            run.task,
            {
                "task": run.task,
                "arch": run.arch,
                "dataset": run.dataset,
                "seeds": 0,
                "epochs": run.config.trainer["max_epochs"],
                "to do": 0,
                "done": 0,
                "stale": 0,
                "minutes": 0.0,
                "bytes": 0,
            },
        )
        state = states[run.folder][0]
        row["seeds"] += 1
        row[state if state in ("done", "stale") else "to do"] += 1
        if run.folder in forecast:
            row["minutes"] += forecast[run.folder].seconds / 60
            row["bytes"] += forecast[run.folder].disk_bytes
    return list(rows.values())


def _total(count: int, forecast: dict[str, Any], jobs: int) -> str:
    hours = sum(each.seconds for each in forecast.values()) / jobs / 3600
    megabytes = sum(each.disk_bytes for each in forecast.values()) / 1e6
    return f"{len(forecast)} of {count} runs to do: about {hours:.2f} h, {megabytes:,.0f} MB"


def _told(outcomes: Iterator[Any], todo: list[Any], forecast: dict[str, Any], jobs: int) -> list[Any]:
    """The outcomes, each told in one line on stderr as it comes, with the time that is left."""
    left = {(run.task, run.seed): forecast[run.folder].seconds for run in todo}
    expected = spent = 0.0
    done = []
    for outcome in outcomes:
        expected += left.pop((outcome.task, outcome.seed))
        spent += outcome.seconds
        done.append(outcome)
        minutes = sum(left.values()) * (spent / expected if expected else 1) / jobs / 60
        said = (outcome.reason and f"failed: {outcome.reason}") or f"test accuracy {outcome.accuracy:.2%}"
        rest = f"; about {minutes:.1f} min left" if left else ""
        place = f"[{len(done)}/{len(todo)}] {outcome.task} seed {outcome.seed}"
        print(f"{place}: {said}, {outcome.seconds:.0f} s{rest}", file=sys.stderr, flush=True)
    return done


def _row(outcome: Any) -> dict[str, Any]:
    state = "failed" if outcome.reason else "was done" if outcome.skipped else "done"
    return {**asdict(outcome), "state": state}
