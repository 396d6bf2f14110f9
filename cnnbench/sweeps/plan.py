"""The runs of a sweep: every task with every seed, and what the folder of each holds already.

A run is recognised by its identity (`training.identity`), so the same sweep started twice resumes where it stopped.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from cnnbench import datasets, records
from cnnbench.architectures import architecture
from cnnbench.datasets.choice import open_choice
from cnnbench.records.schema import RunConfig, RunRecord
from cnnbench.registry import LocalEntry
from cnnbench.training.config import parse, task_name
from cnnbench.training.folder import RunFolder
from cnnbench.training.identity import identity
from cnnbench.training.recorder import fit_state
from cnnbench.training.spelling import task_flags
from cnnbench.training.stored import newest, open_checkpoint
from cnnbench.types import CnnbenchError, Dataset

State = Literal["done", "to test", "to resume", "to do", "outdated"]

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

LOCAL_PATHS = ("data.folder", "data.root")
"""Overrides that are made absolute: another machine, or a worker, starts elsewhere."""


@dataclass(frozen=True)
class Planned:
    """One run of a sweep. It pickles, so that it travels to another machine."""

    task: str
    arch: str
    dataset: str
    seed: int
    folder: str
    """Absolute."""
    flags: tuple[str, ...]
    """The flags of `fit` and `test`."""
    config: RunConfig
    identity: str
    overwrite: bool = False
    """Whether a run of another identity in the folder is replaced."""
    test: bool = True
    """Whether it is tested, too."""

    @property
    def starts_others(self) -> bool:
        """Whether it starts further processes: by Lightning's launcher, or to compile."""
        alone = self.config.trainer.get("devices", "auto") in ("auto", "1", 1)
        return not alone or self.config.trainer_count("num_nodes") > 1 or self.config.model.compile


def plan(
    names: str | Sequence[str],
    *,
    seeds: int = 3,
    overrides: Sequence[str] = (),
    train_images: Sequence[int] = (),
    runs_dir: str | Path = "runs",
    overwrite: bool = False,
) -> list[Planned]:
    """Every task with every number of training images and every seed from 1 on.

    Args:
        names: Tasks by name or file, or `<dataset>_<architecture>` of registered ones.
        seeds: Number of seeds.
        overrides: Flags of `fit` as `key=value`, for all runs.
        train_images: Numbers of training images; empty takes all images.
        runs_dir: Folder of the runs.
        overwrite: Whether a run of another configuration, data or code may be replaced.

    Raises:
        CnnbenchError: A name, key or value is unknown, or the folder of the runs cannot be written (exit 2); or data
            are missing (exit 3).
    """
    require_positive(seeds=[seeds], train_images=train_images)
    root = Path(runs_dir).resolve()
    existing = next(path for path in (root, *root.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        why = "cannot be written" if existing.is_dir() else "is a file"
        raise CnnbenchError(f"cannot write to {runs_dir}: {existing} {why}; choose another --runs-dir")
    loaded: dict[str, Dataset] = {}
    common = _override_flags(overrides)
    planned = []
    for name in [names] if isinstance(names, str) else names:
        for count in train_images or (None,):
            flags = [*task_flags(name), *common]
            flags += _equal_step_flags(flags, count, loaded) if count is not None else []
            for seed in range(1, seeds + 1):
                seeded = [*flags, "--seed_everything", str(seed)]
                planned.append(plan_run(seeded, runs_dir=root, overwrite=overwrite, loaded=loaded))
    folders = [run.folder for run in planned]
    shared = sorted({folder for folder in folders if folders.count(folder) > 1})
    if shared:
        raise CnnbenchError(f"two runs of this sweep would share {shared[0]}: name each task once")
    return planned


def require_positive(**values: Sequence[int]) -> None:
    """Raises CnnbenchError for the first number that is less than 1 (exit 2)."""
    for name, numbers in values.items():
        for number in numbers:
            if number < 1:
                raise CnnbenchError(f"--{name.replace('_', '-')} {number}: expected at least 1")


def plan_run(
    flags: Sequence[str],
    *,
    runs_dir: Path,
    loaded: dict[str, Dataset],
    overwrite: bool = False,
    test: bool = True,
) -> Planned:
    """One run.

    Args:
        flags: Flags of `fit`.
        runs_dir: Folder of the runs, absolute.
        loaded: Data sets that are open, a cache that the caller owns.
        overwrite: Whether a run of another configuration, data or code may be replaced.
        test: Whether it is tested, too.

    Raises:
        CnnbenchError: As `plan`.
    """
    config = parse(flags, verb="sweep")
    for entry in (architecture[config.model.arch], datasets.dataset[config.data.dataset]):
        if isinstance(entry, LocalEntry):
            raise CnnbenchError(
                f"{entry.name} is registered in this process alone, and each run of a sweep has its own: put it into a "
                "package (docs/bring-your-own.md), or call `fit` for each seed"
            )
    data = open_data(config, loaded)
    task, seed = task_name(config), config.seed_everything
    return Planned(
        task=task,
        arch=config.model.arch,
        dataset=data.name,
        seed=seed,
        folder=str(runs_dir / task / f"seed{seed}"),
        flags=(*flags, "--runs-dir", str(runs_dir)),
        config=config,
        identity=identity(config, data),
        overwrite=overwrite,
        test=test,
    )


def _override_flags(overrides: Sequence[str]) -> list[str]:
    """`key=value` as flags of `fit`."""
    flags = []
    for override in overrides:
        key, equals, value = override.removeprefix("--").partition("=")
        if not equals or not key:
            raise CnnbenchError(f"--override {override}: expected KEY=VALUE, such as trainer.max_epochs=5")
        if key in DECIDED:
            raise CnnbenchError(f"--override {override}: the sweep decides that; use {DECIDED[key]}")
        if key in LOCAL_PATHS:
            value = str(Path(value).expanduser().resolve())
        flags.append(f"--{key}={value}")
    return flags


def _equal_step_flags(flags: list[str], count: int, loaded: dict[str, Dataset]) -> list[str]:
    """Flags to train on `count` images in as many optimizer steps as all images take.

    With equal epochs a smaller training set would also be trained for fewer steps.
    """
    config = parse(flags, verb="sweep")
    images = len(open_data(config, loaded).train)
    batch, epochs = config.data.batch_size, config.trainer_count("max_epochs")
    factor = max(1, round(max(1, images // batch) / max(1, count // min(batch, count))))
    return [
        f"--data.train_images={count}",
        f"--task={task_name(config)}_n{count}",
        f"--trainer.max_epochs={epochs * factor}",
        f"--trainer.check_val_every_n_epoch={factor}",
    ]


def open_data(config: RunConfig, loaded: dict[str, Dataset]) -> Dataset:
    """The images of a configuration. `loaded` is a cache, which the caller owns."""
    key = msgspec.json.encode(records.replace(config.data, batch_size=1)).decode()
    if key not in loaded:
        loaded[key] = open_choice(config.data, download=config.data.download)
    return loaded[key]


def state(run: Planned) -> tuple[State, str]:
    """What a run's folder holds of it, and the reason for "outdated"."""
    folder = RunFolder(Path(run.folder))
    try:
        if folder.result.is_file():
            record = records.read(folder.result, RunRecord)
            if record.identity == run.identity:
                return ("done" if record.test or not run.test else "to test"), ""
            return "outdated", "holds a run of another configuration, data or code"
        resumes = folder.last.is_file()
        if resumes or folder.best.is_file():
            checkpoint = newest(folder) if resumes else folder.best
            if fit_state(open_checkpoint(checkpoint)).identity != run.identity:
                return "outdated", "holds another run"
            return ("to resume" if resumes else "to do"), ""  # the second: killed in its first epoch
    except CnnbenchError as error:
        return "outdated", str(error)
    return "to do", ""
