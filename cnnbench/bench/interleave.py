"""All cases in turns: processes wait side by side, and in every round each case gets one slice, in random order.

What else the machine does then affects all cases alike instead of the one whose turn it was.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from cnnbench.bench.backends import BackendError, BackendProcess, ColdStart, Slice
from cnnbench.bench.plan import Case, Setup

Progress = Callable[[str], None]
"""Receives a line whenever something begins."""


def silent(line: str) -> None:
    """Progress that goes nowhere."""


@dataclass(frozen=True)
class Budget:
    """How long one process measures a case: until `seconds` are spent in calls or there are `samples`."""

    seconds: float
    samples: int
    rounds: int
    least_rounds: int = 1
    """Slices that a case gets in any case, for statistics over rounds."""

    @property
    def slice_seconds(self) -> float:
        return self.seconds / self.rounds

    @property
    def slice_samples(self) -> int:
        return max(1, self.samples // self.rounds)


@dataclass
class CaseSamples:
    """What one process measured of a case: a slice per round, or why it stopped."""

    case: Case
    cold_start: ColdStart | None = None
    slices: list[Slice] = field(default_factory=list)
    failure: str = ""

    @property
    def seconds(self) -> list[float]:
        return [call for slice in self.slices for call in slice.seconds]

    @property
    def device_seconds(self) -> list[float]:
        return [call for slice in self.slices for call in slice.device_seconds or ()]

    def wants_more(self, budget: Budget) -> bool:
        spent = sum(self.seconds) >= budget.seconds or len(self.seconds) >= budget.samples
        return not self.failure and (len(self.slices) < budget.least_rounds or not spent)


def by_case(samples: Iterable[CaseSamples]) -> dict[Case, list[CaseSamples]]:
    """The processes of each case, in their order."""
    groups: dict[Case, list[CaseSamples]] = defaultdict(list)
    for process in samples:
        groups[process.case].append(process)
    return dict(groups)


def measure_in_turns(
    setups: Sequence[Setup], batches: Sequence[int], *, budget: Budget, order: random.Random, progress: Progress
) -> list[list[CaseSamples]]:
    """Start a fresh process per setup, take turns until every case has its budget, and end them.

    A setup may be given twice: that makes two processes. Where one fails, its cases have a reason; the others go on.

    Returns:
        Per setup, in the given order: the samples of each batch size.
    """
    measured = [[CaseSamples(Case(setup, batch)) for batch in batches] for setup in setups]
    with ExitStack() as running:
        turns = []
        for cases in measured:
            process = _start(cases, running, progress)
            turns += [(process, samples) for samples in cases]
        number = 0
        while due := [turn for turn in turns if turn[1].wants_more(budget)]:
            number += 1
            progress(f"round {number}: {len(due)} of {len(turns)} cases to measure")
            order.shuffle(due)
            for process, samples in due:
                _take_slice(process, samples, budget)
    return measured


def _start(cases: Sequence[CaseSamples], running: ExitStack, progress: Progress) -> BackendProcess | None:
    """Start the process of these cases, alone, so that no other start slows its cold start."""
    setup = cases[0].case.setup
    progress(f"starting {setup.task} {setup.name}")
    try:
        process = running.enter_context(BackendProcess(setup))
    except BackendError as error:
        for samples in cases:
            samples.failure = str(error)
        return None
    for samples in cases:
        samples.cold_start = process.cold_start
    return process


def _take_slice(process: BackendProcess | None, samples: CaseSamples, budget: Budget) -> None:
    assert process is not None  # a case whose process never started has failed and wants no more
    try:
        slice = process.measure(samples.case.batch, seconds=budget.slice_seconds, calls=budget.slice_samples)
    except BackendError as error:
        samples.failure = str(error)
        return
    samples.slices.append(slice)
