"""What is trained: a network with a schedule, a seed, a learning rate and a fold; and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

FOLDS = tuple(f"{fold}/5" for fold in range(1, 6))
"""Folds of the cross-validation that ranks where there are few images."""


@dataclass(frozen=True)
class Trial:
    """One run."""

    arch: str
    epochs: int
    seed: int = 1
    lr_factor: float = 1.0
    """Times the learning rate of the task."""
    fold: str | None = None
    """None for the split that the shipped network is trained with."""


@dataclass(frozen=True)
class Finished:
    """A run that has ended."""

    trial: Trial
    correct: np.ndarray
    """Whether each validation image is classified correctly, `(N,)` bool; the same images for all networks."""
    start_seconds: float
    """Seconds of the process without the epochs."""
    epoch_seconds: float
    folder: Path

    @property
    def seconds(self) -> float:
        return self.start_seconds + self.trial.epochs * self.epoch_seconds

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())


class Trainer(Protocol):
    """Who trains."""

    def forecast(self, trials: Sequence[Trial]) -> float:
        """Seconds until all of them have ended; those that were done before take none."""

    def train(self, trials: Sequence[Trial], *, seconds: float) -> Mapping[Trial, Finished | str]:
        """What came of each run, or why nothing did; after so many seconds those that are left are stopped."""
