"""Turns: one slice per round for every case, in random order, until each has its budget."""

import random
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest
from bench_helpers import COLD, case_of, samples, setup_of

from cnnbench.bench import interleave
from cnnbench.bench.backends import BackendError, Slice
from cnnbench.bench.interleave import Budget, CaseSamples, by_case, measure_in_turns
from cnnbench.bench.plan import Setup

BUDGET = Budget(seconds=1.0, samples=1_000, rounds=10)
FAST, SLOW, DYING, ABSENT = (setup_of(Path(name)) for name in ("fast", "slow", "dying", "absent"))


class FakeProcess:
    """Calls take 10 ms, or 400 ms where the setup is slow; one dies in its third slice, one never starts."""

    log: ClassVar[list[tuple[str, int]]] = []
    cold_start = COLD

    def __init__(self, setup: Setup) -> None:
        if setup is ABSENT:
            raise BackendError("cannot start")
        self.setup = setup

    def __enter__(self) -> "FakeProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.log.append((f"{self.setup.bundle} ended", 0))

    def measure(self, batch: int, *, seconds: float, calls: int) -> Slice:
        self.log.append((str(self.setup.bundle), batch))
        if self.setup is DYING and self.log.count(("dying", batch)) == 3:
            raise BackendError("died")
        call = 0.4 if self.setup is SLOW else 0.01
        return Slice([call] * max(1, min(calls, round(seconds / call))))


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    monkeypatch.setattr(interleave, "BackendProcess", FakeProcess)
    monkeypatch.setattr(FakeProcess, "log", [])
    return FakeProcess.log


def take(*setups: Setup, budget: Budget = BUDGET, seed: int = 1) -> list[dict[int, CaseSamples]]:
    """What each of the setups has at each batch size."""
    order = random.Random(seed)
    measured = measure_in_turns(setups, (1, 8), budget=budget, order=order, progress=lambda line: None)
    return [{process.case.batch: process for process in cases} for cases in measured]


def test_each_round_gives_each_case_one_slice(log: list[tuple[str, int]]) -> None:
    take(FAST, setup_of(Path("other")))
    turns = [turn for turn in log if not turn[0].endswith("ended")]
    rounds = [turns[first : first + 4] for first in range(0, len(turns), 4)]
    assert len(rounds) == 10
    assert all(len(set(turns)) == 4 for turns in rounds)
    assert len({tuple(turns) for turns in rounds}) > 3  # 24 orders are possible


def test_the_order_comes_from_the_seed(log: list[tuple[str, int]]) -> None:
    orders = []
    for seed in (1, 1, 2):
        log.clear()
        take(FAST, SLOW, seed=seed)
        orders.append(list(log))
    assert orders[0] == orders[1] != orders[2]


def test_a_case_stops_at_its_seconds_and_the_others_go_on(log: list[tuple[str, int]]) -> None:
    fast, slow = take(FAST, SLOW)
    assert len(fast[1].seconds) == 100
    assert len(slow[1].seconds) == 3  # one in each slice, since none can be shorter, until a second is spent
    assert Counter(log)["slow", 1] == 3


def test_a_case_stops_at_its_samples() -> None:
    (fast,) = take(FAST, budget=Budget(seconds=1.0, samples=20, rounds=10))
    assert [len(slice.seconds) for slice in fast[8].slices] == [2] * 10


def test_a_case_gets_its_rounds_however_long_they_take() -> None:
    (slow,) = take(SLOW, budget=Budget(seconds=1.0, samples=1_000, rounds=10, least_rounds=7))
    assert len(slow[1].slices) == 7


def test_one_that_fails_has_a_reason_and_the_others_go_on(log: list[tuple[str, int]]) -> None:
    fast, dying, absent = take(FAST, DYING, ABSENT)
    assert [len(process.seconds) for process in fast.values()] == [100, 100]
    assert [(process.failure, len(process.slices)) for process in dying.values()] == [("died", 2)] * 2
    assert [(process.failure, process.slices) for process in absent.values()] == [("cannot start", [])] * 2
    assert absent[1].cold_start is None
    assert fast[1].cold_start is COLD
    assert log[-2:] == [("dying ended", 0), ("fast ended", 0)]


def test_processes_of_a_case_are_grouped_in_their_order() -> None:
    first, second = (case_of(batch) for batch in (1, 8))
    processes = [samples(first, 1e-3), samples(second, 2e-3), samples(first, 3e-3)]
    groups = by_case(processes)
    assert list(groups) == [first, second]
    assert groups[first][0] is processes[0]
    assert groups[first][1] is processes[2]
