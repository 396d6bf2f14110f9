"""What is known while networks compete: finished runs, accuracies on validation images, differences, and the time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cnnbench import progress
from cnnbench.analysis.crossed import Difference, paired_difference
from cnnbench.analysis.statistics import proportion_interval
from cnnbench.shipping.clock import Clock
from cnnbench.shipping.trial import Finished, Trainer, Trial
from cnnbench.tables.candidates import Score
from cnnbench.tables.text import percent


def on_stderr(line: str) -> None:
    """Print a line."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Networks that compete.

    Args:
        trainer: Trains them.
        clock: The time.
        macs: MACs of each network; of equally accurate ones the cheaper is better.
        reserve: Seconds that all after the race will take, where it ends with this network.
        majority: Share of the largest class among the images that rank: what learning nothing scores.
        folds: Folds of the cross-validation that ranks; by default the usual split does.
        say: Called with a line for each step.
        note: Called after each step, to keep what is known.
    """

    trainer: Trainer
    clock: Clock
    macs: Mapping[str, int]
    reserve: Callable[[str], float]
    majority: float = 0.0
    folds: Sequence[str | None] = (None,)
    say: Callable[[str], None] = on_stderr
    note: Callable[[], None] = lambda: None
    finished: dict[Trial, Finished] = field(default_factory=dict)
    failed: dict[Trial, str] = field(default_factory=dict)

    def trials(
        self, archs: Sequence[str], epochs: int, *, seed: int = 1, lr_factor: float = 1.0, folds: bool = True
    ) -> list[Trial]:
        """The runs that score each network once."""
        wanted = self.folds if folds else (None,)
        return [Trial(arch, epochs, seed, lr_factor, fold) for arch in archs for fold in wanted]

    def reserved(self, archs: Sequence[str]) -> float:
        """Seconds for all after the race, whichever of these wins."""
        return max(map(self.reserve, archs), default=0.0)

    def fits(self, trials: Sequence[Trial], *, archs: Sequence[str]) -> bool:
        """Whether there is time for these runs, and for all after the race, whichever of `archs` wins."""
        return self.clock.fits(self.trainer.forecast(trials), reserved=self.reserved(archs))

    def train(self, trials: Sequence[Trial], *, what: str, archs: Sequence[str]) -> None:
        """Train those that are not finished; a line says what runs. What takes too long is stopped."""
        self.begin(what)
        done = self.trainer.train(trials, seconds=self.clock.left - self.reserved(archs))
        for trial, came in done.items():
            if isinstance(came, Finished):
                self.finished[trial] = came
            else:
                self.failed[trial] = came
        self.note()

    def begin(self, what: str) -> None:
        """Say what is done now, and how much time is left."""
        self.say(f"{what}; {self.time_left}")
        progress.doing("; ".join(filter(None, [self._leading(), what])), left=self.clock.left)

    @property
    def time_left(self) -> str:
        return f"{progress.in_words(self.clock.left)} left"

    def _leading(self) -> str:
        """The best with the longest schedule so far."""
        for epochs in sorted({trial.epochs for trial in self.finished}, reverse=True):
            for arch in self.ranked(list(self.macs), epochs)[:1]:
                return f"{arch} leads with {percent(self.score(arch, epochs).accuracy)}"
        return ""

    def correct(self, arch: str, epochs: int, *, seeds: Sequence[int] = (1,), lr_factor: float = 1.0) -> np.ndarray:
        """Whether each image is classified correctly, `(seeds, images)` bool; of folds, one after another.

        Raises:
            KeyError: One of the runs is not finished.
        """
        rows = [
            np.concatenate([self.finished[Trial(arch, epochs, seed, lr_factor, fold)].correct for fold in self.folds])
            for seed in seeds
        ]
        return np.stack(rows)

    def has(self, arch: str, epochs: int, *, seed: int = 1) -> bool:
        """Whether all runs that score a network are finished."""
        return all(trial in self.finished for trial in self.trials([arch], epochs, seed=seed))

    def seeds(self, arch: str, epochs: int) -> list[int]:
        """Those that are finished, from 1 on."""
        return [seed for seed in range(1, 6) if self.has(arch, epochs, seed=seed)]

    def score(self, arch: str, epochs: int) -> Score:
        """Images that are right, over all finished seeds."""
        correct = self.correct(arch, epochs, seeds=self.seeds(arch, epochs))
        return Score(int(correct.sum()), correct.size)

    def has_begun(self, arch: str, epochs: int) -> bool:
        """Whether a network is shown to be better than always answering the largest class."""
        score = self.score(arch, epochs)
        return proportion_interval(score.accuracy, score.images).low > self.majority

    def ranked(self, archs: Sequence[str], epochs: int) -> list[str]:
        """The networks that are finished, best first: by accuracy over the seeds that all have, then by MACs."""
        there = [arch for arch in archs if self.has(arch, epochs)]
        common = self._common(there, epochs)
        accuracy = {arch: float(self.correct(arch, epochs, seeds=common).mean()) for arch in there}
        return sorted(there, key=lambda arch: (-accuracy[arch], self.macs[arch], arch))

    def difference(self, a: str, b: str, *, epochs: int) -> Difference:
        """By how much a is better than b, over the seeds that both have, on the same images."""
        common = self._common([a, b], epochs)
        return paired_difference(*(self.correct(arch, epochs, seeds=common) for arch in (a, b)))

    def _common(self, archs: Sequence[str], epochs: int) -> list[int]:
        found = [set(self.seeds(arch, epochs)) for arch in archs]
        return sorted(set.intersection(*found)) if found else []
