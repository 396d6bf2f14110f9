"""Turns: one slice a round for every cell, in random order, until each has its budget."""

import random
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest
from bench_helpers import COLD, setup_of

from cnnbench.bench import interleave
from cnnbench.bench.interleave import Budget, Cell, measured
from cnnbench.bench.processes import EngineError, Setup, Slice

BUDGET = Budget(seconds=1.0, samples=1_000, rounds=10)
FAST, SLOW, DYING, ABSENT = (setup_of(Path(name)) for name in ("fast", "slow", "dying", "absent"))


class FakeEngine:
    """Calls take 10 ms, or 400 ms where the engine is slow; one dies in its third slice, one never starts."""

    log: ClassVar[list[tuple[str, int]]] = []
    cold_start = COLD

    def __init__(self, setup: Setup) -> None:
        if setup is ABSENT:
            raise EngineError("cannot start")
        self.setup = setup

    def __enter__(self) -> "FakeEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self.log.append((f"{self.setup.bundle} ended", 0))

    def measure(self, batch: int, seconds: float, calls: int) -> Slice:
        self.log.append((str(self.setup.bundle), batch))
        if self.setup is DYING and self.log.count(("dying", batch)) == 3:
            raise EngineError("died")
        call = 0.4 if self.setup is SLOW else 0.01
        return Slice([call] * max(1, min(calls, round(seconds / call))), None)


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    monkeypatch.setattr(interleave, "Engine", FakeEngine)
    monkeypatch.setattr(FakeEngine, "log", [])
    return FakeEngine.log


def take(*setups: Setup, budget: Budget = BUDGET, seed: int = 1) -> list[dict[int, interleave.Taken]]:
    return measured(setups, (1, 8), budget, random.Random(seed), lambda line: None)


def test_each_round_gives_each_cell_one_slice(log: list[tuple[str, int]]) -> None:
    take(FAST, setup_of(Path("other")))
    turns = [turn for turn in log if not turn[0].endswith("ended")]
    rounds = [turns[first : first + 4] for first in range(0, len(turns), 4)]
    assert len(rounds) == 10
    assert all(len(set(one)) == 4 for one in rounds)
    assert len({tuple(one) for one in rounds}) > 3  # 24 orders are possible


def test_the_order_comes_from_the_seed(log: list[tuple[str, int]]) -> None:
    orders = []
    for seed in (1, 1, 2):
        log.clear()
        take(FAST, SLOW, seed=seed)
        orders.append(list(log))
    assert orders[0] == orders[1] != orders[2]


def test_a_cell_stops_at_its_seconds_and_the_others_go_on(log: list[tuple[str, int]]) -> None:
    fast, slow = take(FAST, SLOW)
    assert len(fast[1].seconds) == 100
    assert len(slow[1].seconds) == 3  # one in each slice, since none can be shorter, until a second is spent
    assert Counter(log)["slow", 1] == 3


def test_a_cell_stops_at_its_samples() -> None:
    (fast,) = take(FAST, budget=Budget(seconds=1.0, samples=20, rounds=10))
    assert [len(slice) for slice in fast[8].slices] == [2] * 10


def test_a_cell_gets_its_rounds_however_long_they_take() -> None:
    (slow,) = take(SLOW, budget=Budget(seconds=1.0, samples=1_000, rounds=10, least_rounds=7))
    assert len(slow[1].slices) == 7


def test_one_that_fails_is_a_cell_with_a_reason_and_the_others_go_on(log: list[tuple[str, int]]) -> None:
    fast, dying, absent = take(FAST, DYING, ABSENT)
    assert [len(one.seconds) for one in fast.values()] == [100, 100]
    assert [(one.failed, len(one.slices)) for one in dying.values()] == [("died", 2)] * 2
    assert [(one.failed, one.slices, one.cold_start) for one in absent.values()] == [("cannot start", [], None)] * 2
    assert fast[1].cold_start is COLD
    assert log[-2:] == [("dying ended", 0), ("fast ended", 0)]


def test_cells_are_named_for_all_that_their_latency_depends_on() -> None:
    assert Cell(setup_of(Path("x")), 8).name == "mnist5k_lenet5[onnxruntime-fp32-batch8-threads1]"
    changed = setup_of(Path("x"), provider="cuda", precision="fp16", threads=2)
    assert Cell(changed, 1).name == "mnist5k_lenet5[onnxruntime-fp16-cuda-batch1-threads2]"
