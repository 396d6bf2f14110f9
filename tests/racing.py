"""A race without training: a clock that is turned, and networks whose accuracies and seconds are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import numpy as np

from cnnbench.shipping.clock import Clock
from cnnbench.shipping.contest import Contest
from cnnbench.shipping.trial import Finished, Trial

IMAGES = 1000


@dataclass
class TurnedClock:
    """Seconds that stand still until they are turned."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class FakeTrainer:
    """Networks with a share of right images that grows with the epochs, and seconds of an epoch.

    Args:
        clock: Which training turns.
        limit: Of each network: the accuracy after many epochs.
        epoch_seconds: Of each network; 1 where it is not said.
        slower: Times the forecast that training takes.
        failing: Networks that give no result.
    """

    clock: TurnedClock
    limit: Mapping[str, float]
    epoch_seconds: Mapping[str, float] = field(default_factory=dict)
    slower: float = 1.0
    failing: Sequence[str] = ()
    trained: list[Trial] = field(default_factory=list)
    begun: list[tuple[float, float]] = field(default_factory=list)
    """Of each call: seconds that were forecast, and that there were."""

    def accuracy(self, trial: Trial) -> float:
        return self.limit[trial.arch] * trial.epochs / (trial.epochs + 0.2)

    def forecast(self, trials: Sequence[Trial]) -> float:
        return sum(
            trial.epochs * self.epoch_seconds.get(trial.arch, 1.0) for trial in trials if trial not in self.trained
        )

    def train(self, trials: Sequence[Trial], *, seconds: float) -> dict[Trial, Finished | str]:
        self.begun.append((self.forecast(trials), seconds))
        found: dict[Trial, Finished | str] = {}
        for trial in trials:
            needed = self.slower * self.forecast([trial])
            if needed > max(0.0, seconds):
                found[trial] = "stopped"
                self.clock.seconds += max(0.0, seconds)
                seconds = 0.0
                continue
            seconds -= needed
            self.clock.seconds += needed
            found[trial] = "it diverged" if trial.arch in self.failing else self._finished(trial)
        return found

    def _finished(self, trial: Trial) -> Finished:
        self.trained.append(trial)
        order = np.random.RandomState(crc32(repr(trial).encode())).permutation(IMAGES)
        return Finished(
            trial, order < self.accuracy(trial) * IMAGES, 0.0, self.epoch_seconds.get(trial.arch, 1.0), Path("runs")
        )


def contest(
    trainer: FakeTrainer, *, budget: float, reserved: float = 0.0, folds: Sequence[str | None] = (None,)
) -> Contest:
    """Of all networks of a trainer; the first ones have the fewest MACs."""
    return Contest(
        trainer=trainer,
        clock=Clock(budget, trainer.clock(), 0.0, trainer.clock),
        macs={arch: place for place, arch in enumerate(trainer.limit)},
        reserve=lambda _: reserved,
        folds=folds,
        say=lambda _: None,
    )
