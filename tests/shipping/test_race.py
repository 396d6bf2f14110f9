"""The race: rungs of whole schedules, of which at most half go on, within the time that there is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from racing import FakeTrainer, TurnedClock, contest

from cnnbench.shipping.race import Race, run
from cnnbench.shipping.trial import FOLDS, Trial

FAR_APART = {f"net{place}": 0.35 + 0.05 * place for place in range(12)}


def raced(trainer: FakeTrainer, *, budget: float, reserved: float = 0.0, min_accuracy: float | None = None) -> Race:
    race, known = Race(), contest(trainer, budget=budget, reserved=reserved)
    run(race, list(trainer.limit), contest=known, min_accuracy=min_accuracy)
    return race


def test_of_twelve_networks_the_best_is_trained_longest() -> None:
    """With 12 + 18 + 27 seconds for the planned rungs, and too few for twelve networks with 9 epochs."""
    race = raced(FakeTrainer(TurnedClock(), FAR_APART), budget=107)
    assert [(rung.epochs, len(rung.ranked)) for rung in race.rungs] == [(3, 12), (9, 6)]
    assert race.ended == "no time for 27 epochs"
    race = raced(FakeTrainer(TurnedClock(), FAR_APART), budget=12 * 9 + 6 * 27)
    assert [(rung.epochs, len(rung.ranked)) for rung in race.rungs] == [(9, 12), (27, 6)]
    assert race.ended == "the longest schedule was reached"
    assert race.leader == "net11"
    assert {f"net{place}" for place in range(6)} <= set(race.left) <= set(FAR_APART) - {"net11"}


@pytest.mark.parametrize(
    ("networks", "budget", "first"), [(1, 300, 27), (1, 26, 9), (2, 300, 9), (12, 108, 9), (12, 107, 3), (1, 2, 1)]
)
def test_the_first_rung_is_as_long_as_there_is_time_for(networks: int, budget: float, first: int) -> None:
    trainer = FakeTrainer(TurnedClock(), dict(list(FAR_APART.items())[:networks]))
    assert raced(trainer, budget=budget).rungs[0].epochs == first


def test_a_slow_starter_comes_back_with_the_time_that_is_left() -> None:
    """The fourth with 9 epochs, which nothing separates from the third, is the best with 27."""
    trainer = FakeTrainer(TurnedClock(), dict.fromkeys(("a", "b", "c", "slow", "e", "f"), 0.9))
    early = {"a": 0.93, "b": 0.92, "c": 0.91, "slow": 0.90, "e": 0.5, "f": 0.4}
    trainer.accuracy = lambda trial: (  # type: ignore[method-assign]
        early[trial.arch] if trial.epochs == 9 else 0.99 if trial.arch == "slow" else 0.94
    )
    race = raced(trainer, budget=6 * 9 + 3 * 27 + 27)
    assert [(rung.epochs, rung.returned) for rung in race.rungs] == [(9, ()), (27, ()), (27, ("slow",))]
    assert race.rungs[-1].ranked[0] == race.leader == "slow"
    assert "slow" not in race.left
    assert "not separable" not in race.left["e"][1]
    assert raced(FakeTrainer(TurnedClock(), trainer.limit), budget=6 * 9 + 3 * 27 + 26).rungs[-1].returned == ()


def test_one_that_had_not_learnt_anything_comes_back_too() -> None:
    """As LeNet-5 with ReLUs on 4,000 digits, which is at 10 % after three epochs."""
    trainer = FakeTrainer(TurnedClock(), dict.fromkeys(("a", "b", "slow"), 0.9))
    trainer.accuracy = lambda trial: 0.1 if (trial.arch, trial.epochs) == ("slow", 9) else 0.9  # type: ignore[method-assign]
    race, known = Race(), replace(contest(trainer, budget=3 * 9 + 3 * 27), majority=0.1)
    run(race, list(trainer.limit), contest=known)
    assert "slow" in race.rungs[-1].returned


def test_one_that_comes_back_and_stays_behind_is_told_so() -> None:
    trainer = FakeTrainer(TurnedClock(), {"a": 0.9, "b": 0.9})
    trainer.accuracy = lambda trial: 0.91 if trial.arch == "a" else 0.90  # type: ignore[method-assign]
    race = raced(trainer, budget=2 * 9 + 2 * 27)
    when, why = race.left["b"]
    assert when == "second chance with 27 epochs"
    assert "1.00 points behind a, from which it is not separable" in why


def test_one_that_is_too_slow_for_the_next_rung_leaves_its_place_to_the_next() -> None:
    trainer = FakeTrainer(TurnedClock(), {"a": 0.6, "b": 0.8, "slow": 0.9}, epoch_seconds={"slow": 10.0})
    race = raced(trainer, budget=2 * 9 + 90 + 27)
    assert [rung.ranked for rung in race.rungs] == [("slow", "b", "a"), ("b",)]
    assert race.left["slow"] == ("9 epochs", "no time for 27 epochs")


def test_the_slowest_are_tried_after_all_where_the_others_leave_time() -> None:
    trainer = FakeTrainer(TurnedClock(), {"a": 0.6, "b": 0.9, "late": 0.95}, epoch_seconds={"late": 30.0})
    race = raced(trainer, budget=100)
    assert race.left["late"][0] == "before training"
    assert race.undecided == ["late"]
    trainer = FakeTrainer(TurnedClock(), trainer.limit, epoch_seconds={"late": 2.0})
    race = Race(left={"late": ("before training", "")}, undecided=["late"])
    run(race, ["a", "b"], contest=contest(trainer, budget=18 + 27 + 54))
    assert race.rungs[-1].returned == ("late",)
    assert race.leader == "late"


def test_those_that_cannot_be_told_from_the_last_promoted_are_named_so() -> None:
    trainer = FakeTrainer(TurnedClock(), {"a": 0.5, "b": 0.5, "c": 0.8, "d": 0.8, "e": 0.9})
    race = raced(trainer, budget=5 * 3 + 2 * 9)
    third = race.rungs[0].ranked[2]
    when, why = race.left[third]
    assert (third in "cd", when) == (True, "3 epochs")
    assert "not separable" in why
    assert "not separable" not in race.left["a"][1]


def test_equally_accurate_networks_are_ordered_by_macs() -> None:
    trainer = FakeTrainer(TurnedClock(), {"cheap": 0.9, "dear": 0.9})
    trainer.accuracy = lambda trial: 0.9  # type: ignore[method-assign]
    assert raced(trainer, budget=10_000).leader == "cheap"


def test_the_slowest_are_left_out_until_the_first_rung_fits() -> None:
    trainer = FakeTrainer(TurnedClock(), FAR_APART, epoch_seconds={"net11": 100.0})
    race = raced(trainer, budget=300)
    assert race.left["net11"] == ("before training", "no time: an epoch takes about 100 s here")
    assert race.leader == "net10"


def test_a_network_without_a_result_leaves_and_the_others_go_on() -> None:
    race = raced(FakeTrainer(TurnedClock(), FAR_APART, failing=["net11"]), budget=10_000)
    assert race.left["net11"] == ("9 epochs", "no result: it diverged")
    assert race.leader == "net10"


def test_without_any_result_there_is_no_leader() -> None:
    race = raced(FakeTrainer(TurnedClock(), {"a": 0.5}, failing=["a"]), budget=10_000)
    assert race.leader is None
    assert "no network gave a result" in race.ended


def test_a_limit_that_a_separated_leader_keeps_ends_the_race() -> None:
    trainer = FakeTrainer(TurnedClock(), {**FAR_APART, "net11": 0.99})
    race = raced(trainer, budget=10_000, min_accuracy=0.8)
    assert [rung.epochs for rung in race.rungs] == [9]
    assert race.ended.startswith("net11 keeps the limit")


def test_a_limit_that_is_not_kept_ends_nothing() -> None:
    trainer = FakeTrainer(TurnedClock(), {**FAR_APART, "net11": 0.99})
    assert len(raced(trainer, budget=10_000, min_accuracy=0.999).rungs) == 2


def test_two_rungs_without_a_gain_end_the_race() -> None:
    trainer = FakeTrainer(TurnedClock(), {f"net{place}": 0.3 + 0.03 * place for place in range(20)})
    trainer.accuracy = lambda trial: trainer.limit[trial.arch]  # type: ignore[method-assign]
    race = raced(trainer, budget=20 * 9 - 1)
    assert [rung.epochs for rung in race.rungs] == [3, 9, 27]
    assert race.ended == "validation accuracy has not risen over two rungs"


def test_folds_are_trained_and_counted_together() -> None:
    trainer = FakeTrainer(TurnedClock(), {"a": 0.5, "b": 0.9})
    race, known = Race(), contest(trainer, budget=10_000, folds=FOLDS)
    run(race, ["a", "b"], contest=known)
    assert {trial.fold for trial in trainer.trained} == set(FOLDS)
    assert known.score("b", 27).images == 5 * 1000


def test_a_finished_race_is_run_through_again_without_time() -> None:
    trainer = FakeTrainer(TurnedClock(), FAR_APART)
    first = raced(trainer, budget=10_000)
    trained = len(trainer.trained)
    again = raced(trainer, budget=1, reserved=10)
    assert (again.rungs, again.leader) == (first.rungs, first.leader)
    assert len(trainer.trained) == 2 * trained  # each is asked for once more, and takes no time


NETWORKS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.floats(0.2, 0.99), min_size=1, max_size=12)


@given(NETWORKS, st.floats(1, 3000), st.floats(0, 100), st.data())
def test_what_holds_for_every_race(
    limit: dict[str, float], budget: float, reserved: float, data: st.DataObject
) -> None:
    seconds = {arch: data.draw(st.floats(0.1, 30.0)) for arch in limit}
    trainer = FakeTrainer(TurnedClock(), limit, epoch_seconds=seconds)
    known, race = contest(trainer, budget=budget, reserved=reserved), Race()
    run(race, list(limit), contest=known)
    for before, after in zip(race.rungs, race.rungs[1:], strict=False):
        if after.returned:
            assert (after, after.epochs) == (race.rungs[-1], before.epochs)
            assert {*after.ranked} == {*before.ranked, *after.returned}
            continue
        assert len(after.ranked) <= max(1, len(before.ranked) // 2)
        assert after.epochs > before.epochs
        assert (
            before.ranked[0] in after.ranked
            or "no time" in race.left.get(before.ranked[0], ("", ""))[1]
            or (before.ranked[0] in race.rungs[-1].returned)
        )
    for forecast, there_was in trainer.begun[1:]:
        assert forecast <= there_was + 1e-6
    if len(trainer.begun) > 1:
        assert trainer.clock.seconds <= max(budget - reserved, trainer.begun[0][0]) + 1e-6
    assert race.leader is None or race.leader in limit
    assert all(arch != race.leader for arch in race.left)


@settings(max_examples=20)
@given(st.floats(1.0, 4.0))
def test_training_that_is_slower_than_its_forecast_is_stopped_in_time(slower: float) -> None:
    trainer = FakeTrainer(TurnedClock(), FAR_APART, slower=slower)
    raced(trainer, budget=200, reserved=50)
    assert trainer.clock.seconds <= 150 + 1e-6


def test_a_stopped_rung_leaves_the_leader_of_the_one_before() -> None:
    trainer = FakeTrainer(TurnedClock(), {"a": 0.5}, slower=1.0)
    known, race = contest(trainer, budget=1000), Race()
    run(race, ["a"], contest=known)
    assert trainer.trained == [Trial("a", 27)]
    assert race.leader == "a"
