"""The race: rungs of whole schedules, of which at most half go on, within the time that there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from racing import FakeTrainer, TurnedClock, contest

from cnnbench.shipping.race import EPOCHS, Race, run
from cnnbench.shipping.seeds import FINALISTS
from cnnbench.shipping.trial import FOLDS, Trial

FAR_APART = {f"net{place}": 0.35 + 0.05 * place for place in range(12)}


def raced(trainer: FakeTrainer, *, budget: float, reserved: float = 0.0, min_accuracy: float | None = None) -> Race:
    race, known = Race(), contest(trainer, budget=budget, reserved=reserved)
    run(race, list(trainer.limit), contest=known, min_accuracy=min_accuracy)
    return race


def test_of_twelve_networks_the_best_is_trained_longest() -> None:
    trainer = FakeTrainer(TurnedClock(), FAR_APART)
    race = raced(trainer, budget=10_000)
    assert [len(rung.ranked) for rung in race.rungs] == [12, 6, 3, 1]
    assert [rung.epochs for rung in race.rungs] == [1, 3, 9, 27]
    assert race.leader == "net11"
    assert race.ended == "the longest schedule was reached"
    assert set(race.left) == set(FAR_APART) - {"net11"}


@pytest.mark.parametrize(
    ("networks", "rungs"), [(1, [27]), (2, [9, 27]), (3, [9, 27]), (4, [3, 9, 27]), (8, [*EPOCHS])]
)
def test_few_networks_begin_with_longer_schedules(networks: int, rungs: list[int]) -> None:
    trainer = FakeTrainer(TurnedClock(), dict(list(FAR_APART.items())[:networks]))
    assert [rung.epochs for rung in raced(trainer, budget=10_000).rungs] == rungs


def test_those_that_cannot_be_told_from_the_last_promoted_are_named_so() -> None:
    trainer = FakeTrainer(TurnedClock(), {"a": 0.5, "b": 0.5, "c": 0.8, "d": 0.8, "e": 0.9})
    race = raced(trainer, budget=10_000)
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
    assert race.left["net11"] == ("1 epoch", "no result: it diverged")
    assert race.leader == "net10"


def test_without_any_result_there_is_no_leader() -> None:
    race = raced(FakeTrainer(TurnedClock(), {"a": 0.5}, failing=["a"]), budget=10_000)
    assert race.leader is None
    assert "no network gave a result" in race.ended


def test_a_limit_that_a_separated_leader_keeps_ends_the_race() -> None:
    trainer = FakeTrainer(TurnedClock(), {**FAR_APART, "net11": 0.99})
    race = raced(trainer, budget=10_000, min_accuracy=0.8)
    assert [rung.epochs for rung in race.rungs] == [1]
    assert race.ended.startswith("net11 keeps the limit")


def test_a_limit_that_is_not_kept_ends_nothing() -> None:
    trainer = FakeTrainer(TurnedClock(), {**FAR_APART, "net11": 0.99})
    assert len(raced(trainer, budget=10_000, min_accuracy=0.999).rungs) == 4


def test_two_rungs_without_a_gain_end_the_race() -> None:
    trainer = FakeTrainer(TurnedClock(), FAR_APART)
    trainer.accuracy = lambda trial: trainer.limit[trial.arch]  # type: ignore[method-assign]
    race = raced(trainer, budget=10_000)
    assert [rung.epochs for rung in race.rungs] == [1, 3, 9]
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
        assert len(after.ranked) <= max(1, len(before.ranked) // 2)
        assert after.epochs > before.epochs
        if len(before.ranked) > FINALISTS:
            assert before.ranked[0] in after.ranked
        elif len(before.ranked) > 1:
            assert race.settled[0] in after.ranked
    for forecast, there_was in trainer.begun[1:]:
        assert forecast <= there_was + 1e-6
    if len(trainer.begun) > 1:
        assert trainer.clock.seconds <= max(budget - reserved, trainer.begun[0][0]) + 1e-6
    assert race.leader is None or race.leader in limit
    assert all(arch != race.leader for arch in race.left)


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
