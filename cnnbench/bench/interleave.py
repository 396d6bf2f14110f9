"""All cells in turn: engines wait side by side, and in every round each cell gets one slice, in a fresh random order.

What else the machine does then strikes all alike, and drifts with it, instead of falling on whoever's turn it was.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from cnnbench.bench.processes import ColdStart, Engine, EngineError, Setup

Say = Callable[[str], None]


@dataclass(frozen=True)
class Cell:
    """One engine at one batch size."""

    setup: Setup
    batch: int

    @property
    def name(self) -> str:
        return f"{self.setup.task}[{self.setup.kind}-batch{self.batch}-threads{self.setup.threads}]"


@dataclass(frozen=True)
class Budget:
    """How long one process measures a cell: until `seconds` are spent in calls or `samples` are taken."""

    seconds: float
    samples: int
    rounds: int
    least_rounds: int = 1
    """Slices that a cell gets in any case, for whoever judges round by round."""

    @property
    def slice_seconds(self) -> float:
        return self.seconds / self.rounds

    @property
    def slice_samples(self) -> int:
        return max(1, self.samples // self.rounds)


@dataclass
class Taken:
    """What one process measured of a cell: seconds of each call, slice by slice, or why it stopped."""

    cold_start: ColdStart | None = None
    slices: list[list[float]] = field(default_factory=list)
    device_slices: list[list[float]] = field(default_factory=list)
    failed: str = ""

    @property
    def seconds(self) -> list[float]:
        return [call for slice in self.slices for call in slice]

    @property
    def device_seconds(self) -> list[float]:
        return [call for slice in self.device_slices for call in slice]

    def wants_more(self, budget: Budget) -> bool:
        spent = sum(self.seconds) >= budget.seconds or len(self.seconds) >= budget.samples
        return not self.failed and (len(self.slices) < budget.least_rounds or not spent)


def measured(
    setups: Sequence[Setup], batches: Iterable[int], budget: Budget, order: random.Random, say: Say
) -> list[dict[int, Taken]]:
    """Start a fresh process for each of the setups, take turns until every cell has its budget, and end them.

    A setup may be given twice: that makes two processes. One that fails is a cell with a reason; the others go on.

    Returns:
        For each setup what was taken at each batch size.
    """
    found = [{batch: Taken() for batch in batches} for _ in setups]
    with ExitStack() as running:
        engines = [_start(setup, taken, running, say) for setup, taken in zip(setups, found, strict=True)]
        places = [
            (engine, batch, one) for engine, taken in zip(engines, found, strict=True) for batch, one in taken.items()
        ]
        number = 0
        while due := [place for place in places if place[2].wants_more(budget)]:
            number += 1
            say(f"round {number}: {len(due)} of {len(places)} cells still measured")
            order.shuffle(due)
            for engine, batch, one in due:
                _take(engine, batch, one, budget)
    return found


def _start(setup: Setup, taken: dict[int, Taken], running: ExitStack, say: Say) -> Engine | None:
    """One after another, so that nobody's cold start is slowed by another's."""
    say(f"starting {setup.task} {setup.name}")
    try:
        engine = running.enter_context(Engine(setup))
    except EngineError as error:
        for one in taken.values():
            one.failed = str(error)
        return None
    for one in taken.values():
        one.cold_start = engine.cold_start
    return engine


def _take(engine: Engine | None, batch: int, one: Taken, budget: Budget) -> None:
    assert engine is not None  # a cell whose engine never started has failed, and wants no more
    try:
        slice = engine.measure(batch, budget.slice_seconds, budget.slice_samples)
    except EngineError as error:
        one.failed = str(error)
        return
    one.slices.append(slice.seconds)
    if slice.device_seconds is not None:
        one.device_slices.append(slice.device_seconds)
