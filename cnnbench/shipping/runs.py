"""Trials as ordinary runs: planned, forecast, and trained by the executors of sweeps, without reading a test image."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median_low

import torch

from cnnbench import records
from cnnbench.analysis.confidence import read_predictions
from cnnbench.analysis.macs import forward_share
from cnnbench.records.schema import RunRecord
from cnnbench.shipping.trial import Finished, Trial
from cnnbench.sweeps import estimate
from cnnbench.sweeps.environ import threads_per_run
from cnnbench.sweeps.executors import Executor, Option, execute
from cnnbench.sweeps.plan import Planned, open_data, plan_run, state
from cnnbench.sweeps.run import STOPPING, Outcome, stop
from cnnbench.sweeps.warm import Start
from cnnbench.tables.gather import Run
from cnnbench.training.config import parse
from cnnbench.training.folder import RunFolder
from cnnbench.training.spelling import task_flags
from cnnbench.types import Dataset

START_SECONDS = 3.0
"""Time of a forked run without its epochs, before one was timed."""
LONGEST_START = 6.0
"""Longest time of it, whatever was timed."""
MARGIN, MARGIN_OF_STEPS = 1.15, 2.0
"""Forecasts are this much longer than the runs, or the few fast steps, that they rest on: other programs use the
machine, too."""
USUAL_START = 2.5
"""Seconds of a start on a machine that is not busy."""


@dataclass(kw_only=True)
class Runs:
    """Trials of one data set.

    Args:
        name: Name of the data, with which names of tasks begin.
        dataset: Registered name.
        flags: Flags of `fit`, for all runs: which images.
        recipe: Flags of the recipe, for networks that have no task of this data set.
        folder: Folder of the runs, absolute.
        executor, options: Where runs are done; see `executors.execute`.
        jobs: Runs at a time on this machine.
        start: How a process is started.
    """

    name: str
    dataset: str
    flags: Sequence[str]
    recipe: Sequence[str]
    folder: Path
    executor: Executor = "local"
    options: Mapping[str, Option] | None = None
    jobs: int = 1
    first_seed: int = 1
    """Seed 1 of a trial's runs; the others follow it."""
    start: Start | None = None
    loaded: dict[str, Dataset] = field(default_factory=dict)
    _planned: dict[Trial, Planned] = field(default_factory=dict)
    _known: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By network: seconds of a run without its epochs, and of an epoch: the median of its runs."""
    _shares: dict[str, float] = field(default_factory=dict)
    """By network: of a training step, what a forward pass costs."""
    _epochs: dict[str, list[float]] = field(default_factory=dict)
    """By network: seconds of an epoch in each run that has ended."""

    def planned(self, trial: Trial) -> Planned:
        """The run of a trial. A run of another configuration, data or code in its folder is replaced."""
        if trial not in self._planned:
            flags = [*self._flags(trial.arch), f"--trainer.max_epochs={trial.epochs}"]
            task = f"{self.name}_{trial.arch}_e{trial.epochs}".replace("/", "-")
            if trial.lr_factor != 1:
                lr = parse(flags, verb="ship").model.lr * trial.lr_factor
                flags, task = [*flags, f"--model.lr={lr:g}"], f"{task}_lr{lr:g}"
            if trial.fold:
                flags, task = [*flags, f"--data.fold={trial.fold}"], f"{task}_fold{trial.fold.partition('/')[0]}"
            flags += [f"--task={task}", f"--seed_everything={self.first_seed + trial.seed - 1}"]
            run = plan_run(flags, runs_dir=self.folder, loaded=self.loaded, overwrite=True, test=False)
            self._planned[trial] = run
        return self._planned[trial]

    def _flags(self, arch: str) -> list[str]:
        named = task_flags(f"{self.dataset}_{arch}") if self.dataset != "folder" else []
        from_file = any(flag.startswith("--config") for flag in named)
        return [*(named or [f"--model.arch={arch}"]), *self.flags, *([] if from_file else self.recipe)]

    def forecast(self, trials: Sequence[Trial]) -> float:
        """Seconds until all have ended, the longest first on the machine's free places; see `trial.Trainer`."""
        places = [0.0] * (1 if self.executor != "local" else self.jobs)
        for seconds in sorted(map(self._seconds, trials), reverse=True):
            places[places.index(min(places))] += seconds
        return max(places)

    def _seconds(self, trial: Trial) -> float:
        run = self.planned(trial)
        if state(run)[0] == "done":
            return 0.0
        if trial.arch not in self._known:
            data = open_data(run.config, self.loaded)
            threads = threads_per_run(self.jobs) or torch.get_num_threads()
            whole = estimate.seconds(run, data, threads=threads) - estimate.START_SECONDS
            self._known[trial.arch] = (START_SECONDS, whole / trial.epochs)
        start, epoch = self._known[trial.arch]
        margin = MARGIN if trial.arch in self._epochs else MARGIN_OF_STEPS
        return margin * (start + trial.epochs * epoch)

    def train(self, trials: Sequence[Trial], *, seconds: float) -> dict[Trial, Finished | str]:
        """See `trial.Trainer`."""
        done = [trial for trial in trials if state(self.planned(trial))[0] == "done"]
        found: dict[Trial, Finished | str] = {trial: self._finished(trial, None) for trial in done}
        trials = [trial for trial in trials if trial not in found]
        by_folder = {self.planned(trial).folder: trial for trial in trials}
        folders = {(run.task, run.seed): run.folder for run in map(self.planned, trials)}
        timer = threading.Timer(max(0.0, seconds), stop)
        timer.daemon = True
        ending = execute(
            [self.planned(trial) for trial in trials],
            executor=self.executor,
            jobs=max(1, min(self.jobs, len(trials))),
            options=self.options,
            start=self.start,
        )
        timer.start()
        try:
            with closing(ending):
                for outcome in ending:
                    trial = by_folder[folders[outcome.task, outcome.seed]]
                    found[trial] = outcome.reason or self._finished(trial, outcome)
        finally:
            timer.cancel()
            timer.join()
            STOPPING.clear()  # it may have been set after the last run had ended
        return found

    def _finished(self, trial: Trial, outcome: Outcome | None) -> Finished:
        """A run that has ended now, or that was done before, whose start was not timed."""
        record, folder = self.record(trial), Path(self.planned(trial).folder)
        epoch = record.fit.train_seconds / record.fit.epochs
        start = START_SECONDS
        if outcome and not outcome.skipped:  # the first ones wait for the process that is forked
            start = min(max(0.0, outcome.seconds - record.fit.train_seconds), LONGEST_START)
        self._shares[trial.arch] = forward_share(record.cost.macs, record.training_macs)
        timed = self._epochs.setdefault(trial.arch, [])
        timed.append(epoch)
        self._known[trial.arch] = (start, median_low(timed))  # one may have waited for another program
        correct = read_predictions(RunFolder(folder).val_predictions).correct
        return Finished(trial, correct, start, epoch, folder)

    def seconds_per_image(self, arch: str, *, train_images: int) -> float:
        """Seconds per image of a forward pass here, by its share of a training step; 0 before anything is known."""
        share = self._shares.get(arch, forward_share(0, None))
        return self._known[arch][1] / train_images * share if arch in self._known else 0.0

    def slowness(self, arch: str) -> float:
        """How many times as long as usual the start of a run takes, 1 to 2: so busy is the machine."""
        start = self._known.get(arch, (USUAL_START, 0.0))[0]
        return min(2.0, max(1.0, start / USUAL_START))

    def record(self, trial: Trial) -> RunRecord:
        """Record of a finished run."""
        return records.read(RunFolder(Path(self.planned(trial).folder)).result, RunRecord)

    def run(self, trial: Trial) -> Run:
        """A finished run, as tables read it."""
        return Run(self.record(trial), Path(self.planned(trial).folder))

    def tested(self, trial: Trial) -> Planned:
        """The run, to be tested."""
        return replace(self.planned(trial), test=True)
