"""More seeds for the last networks, and other learning rates for the leader."""

from __future__ import annotations

from racing import FakeTrainer, TurnedClock, contest

from cnnbench.shipping.contest import Contest
from cnnbench.shipping.seeds import LR_FACTORS, settle, tune
from cnnbench.shipping.trial import Trial


def begun(limit: dict[str, float], *, budget: float = 10_000) -> tuple[FakeTrainer, Contest]:
    trainer = FakeTrainer(TurnedClock(), limit)
    known = contest(trainer, budget=budget)
    known.train(known.trials(list(limit), 9), what="9 epochs", archs=list(limit))
    return trainer, known


def test_networks_that_are_alike_get_five_seeds() -> None:
    _, known = begun({"a": 0.9, "b": 0.9})
    left: dict[str, tuple[str, str]] = {}
    assert set(settle(["a", "b"], 9, contest=known, left=left)) == {"a", "b"}
    assert known.seeds("a", 9) == known.seeds("b", 9) == [1, 2, 3, 4, 5]
    assert left == {}


def test_one_that_is_separated_gets_no_more_seeds() -> None:
    _, known = begun({"a": 0.9, "b": 0.9, "worse": 0.5})
    left: dict[str, tuple[str, str]] = {}
    assert settle(["a", "b", "worse"], 9, contest=known, left=left)[-1] == "worse"
    assert known.seeds("worse", 9) == [1]
    when, why = left["worse"]
    assert when == "seeds with 9 epochs"
    assert "points behind" in why


def test_seeds_that_there_is_no_time_for_are_not_begun() -> None:
    _, known = begun({"a": 0.9, "b": 0.9}, budget=18 + 18 + 17)
    settle(["a", "b"], 9, contest=known, left={})
    assert known.seeds("a", 9) == [1, 2]


def test_the_leader_gets_other_learning_rates_where_there_is_time() -> None:
    trainer, known = begun({"a": 0.9}, budget=30)
    tune("a", 9, contest=known)
    assert {trial.lr_factor for trial in trainer.trained} == {1.0, *LR_FACTORS}
    trainer, known = begun({"a": 0.9}, budget=26)
    tune("a", 9, contest=known)
    assert trainer.trained == [Trial("a", 9)]
