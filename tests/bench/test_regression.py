"""The gate: quiet on noise, however it comes, and not on a slowdown; and two records held against each other."""

import copy
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_helpers import content, setup_of, taken
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.bench import interleave, regression
from cnnbench.bench.interleave import Budget, Cell, Taken
from cnnbench.bench.processes import Setup
from cnnbench.bench.regression import Effect, baseline, effect, gate, verdict
from cnnbench.types import CnnbenchError, Exit

Rounds = list[list[float]]


def rounds(
    draw: np.random.Generator, slowdown: float = 1.0, between_processes: float = 0.01, count: int = 20
) -> tuple[Rounds, Rounds]:
    """Medians of rounds of A, A again, B, B again: drift that strikes all alike, and noise."""
    drift = np.cumsum(draw.normal(0, 0.02, count))

    def process(factor: float) -> list[float]:
        log = drift + draw.normal(0, between_processes) + draw.normal(0, 0.02, count)
        times: list[float] = (1e-3 * factor * np.exp(log)).tolist()
        return times

    return [process(slowdown) for _ in range(2)], [process(1.0) for _ in range(2)]


def test_without_noise_the_ratio_is_exact_and_the_floor_is_the_smallest_effect() -> None:
    drift = [1e-3 * (1 + index / 10) for index in range(20)]
    found = effect([[1.3 * value for value in drift]] * 2, [drift] * 2)
    assert (found.ratio, found.low, found.high) == pytest.approx((1.3, 1.3, 1.3))
    assert found.floor == 1.02
    assert found.rounds == 20


@given(st.floats(0.2, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_swapping_the_bundles_inverts_the_ratio(slowdown: float, seed: int) -> None:
    a, b = rounds(np.random.default_rng(seed), slowdown)
    there, back = effect(a, b), effect(b, a)
    assert there.ratio == pytest.approx(1 / back.ratio)
    assert there.low <= there.ratio <= there.high
    assert there.floor == pytest.approx(back.floor)
    assert there.p_value == pytest.approx(back.p_value)


@pytest.mark.parametrize("between_processes", [0.0, 0.03, 0.1])
def test_the_gate_stays_quiet_where_nothing_changed(between_processes: float) -> None:
    draw = np.random.default_rng(1)
    for _ in range(10):
        assert not verdict("x", [effect(*rounds(draw, 1.0, between_processes)) for _ in range(2)]).regression


def test_the_gate_sees_a_slowdown_of_three_tenths_and_its_inverse() -> None:
    draw = np.random.default_rng(2)
    for _ in range(5):
        slower = verdict("x", [effect(*rounds(draw, 1.3)) for _ in range(2)])
        assert (slower.regression, slower.improvement) == (True, False)
        assert slower.answer.startswith("x: regression, seen twice: the candidate takes 1.")
        faster = verdict("x", [effect(*rounds(draw, 1 / 1.3)) for _ in range(2)])
        assert (faster.regression, faster.improvement) == (False, True)
        assert faster.answer.startswith("x: faster, seen twice: the candidate takes 0.")


def test_what_processes_of_one_bundle_differ_by_is_noise() -> None:
    quiet = [1e-3] * 20
    found = effect([quiet, [value * 1.2 for value in quiet]], [quiet, quiet])
    assert found.floor == pytest.approx(1.2)
    assert found.ratio == pytest.approx(1.2**0.5)  # the mean of the two, in logarithms
    assert not found.slower(found.floor)


def test_both_measurements_are_held_against_the_noisier_ones_floor() -> None:
    quiet = effect([[1.1e-3] * 20] * 2, [[1e-3] * 20] * 2)
    noisy = effect([[1.1e-3] * 20] * 2, [[1e-3] * 20, [1.15e-3] * 20])
    assert quiet.slower(quiet.floor)
    assert not verdict("x", [quiet, noisy]).regression
    assert not verdict("x", [noisy, quiet]).regression
    assert verdict("x", [quiet, quiet]).regression


def test_few_rounds_never_make_a_regression() -> None:
    found = effect([[2e-3] * 4] * 2, [[1e-3] * 4] * 2)
    assert found.p_value > regression.SIGNIFICANCE
    assert not found.slower(found.floor)
    assert regression.LEAST_ROUNDS > 4


class Machine:
    """Stands for the engines: slices of a bundle have this median, in each measurement another."""

    def __init__(self, *medians: dict[str, float]) -> None:
        self.medians, self.asked = list(medians), []  # type: ignore[var-annotated]

    def __call__(
        self, setups: Sequence[Setup], batches: Sequence[int], budget: Budget, order: random.Random, say: Any
    ) -> list[dict[int, Taken]]:
        self.asked.append(([setup.bundle.name for setup in setups], list(batches)))
        medians = self.medians.pop(0)
        return [
            {batch: taken(*[medians[setup.bundle.name]] * budget.rounds, calls=5) for batch in batches}
            for setup in setups
        ]


def judge(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> list[regression.Verdict]:
    monkeypatch.setattr(interleave, "measured", machine)
    return gate([setup_of(Path("a"))], [setup_of(Path("b"))], [1], seconds=1.0, seed=1, say=lambda line: None)


def test_two_processes_of_each_bundle_are_interleaved_in_one_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({"a": 1e-3, "b": 1e-3})
    (found,) = judge(monkeypatch, machine)
    assert machine.asked == [(["a", "a", "b", "b"], [1])]
    assert not found.regression
    assert list(found.effects[0].round_medians) == ["A", "A again", "B", "B again"]


def test_a_difference_is_a_regression_only_if_fresh_processes_show_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, same = {"a": 1.3e-3, "b": 1e-3}, {"a": 1e-3, "b": 1e-3}
    machine = Machine(slow, slow)
    (found,) = judge(monkeypatch, machine)
    assert found.regression
    assert len(machine.asked) == 2
    (found,) = judge(monkeypatch, Machine(slow, same))
    assert not found.regression
    assert "a difference was seen once, and not again" in found.answer


def test_the_gate_says_nothing_where_an_engine_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(setups: Sequence[Setup], *_: Any) -> list[dict[int, Taken]]:
        return [{1: Taken(failed="its process died (SIGKILL)")} for _ in setups]

    monkeypatch.setattr(interleave, "measured", failing)
    with pytest.raises(CnnbenchError, match=r"its process died \(SIGKILL\)") as failure:
        gate([setup_of(Path("a"))], [setup_of(Path("b"))], [1], 1.0, 1, lambda line: None)
    assert failure.value.code == Exit.ENVIRONMENT


@pytest.fixture
def old(bundle: Path) -> dict[str, Any]:
    """A record of one cell: 1 ms, its two processes 2 % apart."""
    return content({Cell(setup_of(bundle), 8): [taken(1.0e-3, calls=201), taken(1.02e-3, calls=201)]})


def judged(old: dict[str, Any], new: dict[str, Any]) -> regression.Judged:
    for name, record in (("old.json", old), ("new.json", new)):
        Path(name).write_text(json.dumps(record))
    return baseline(Path("new.json"), Path("old.json"))


def scaled(record: dict[str, Any], factor: float, last_process: float = 1.0) -> dict[str, Any]:
    """The record of a network that takes `factor` times as long; its last process a further factor."""
    record = copy.deepcopy(record)
    for case in record["benchmarks"]:
        processes = case["extra_info"]["processes"]
        split = sum(processes[0]["slices"])
        data = [
            call * factor * (last_process if index >= split else 1) for index, call in enumerate(case["stats"]["data"])
        ]
        case["stats"]["data"] = data
        for process, part in zip(processes, (data[:split], data[split:]), strict=True):
            process["median_seconds"] = float(np.median(part))
    return record


def test_a_record_is_no_regression_of_itself(old: dict[str, Any]) -> None:
    found = judged(old, old)
    (row,) = found.rows
    assert (found.regression, found.notes) == (False, [])
    assert (row["ratio"], row["verdict"]) == (1.0, "no difference above the noise")
    assert row["noise"] == pytest.approx(0.02)
    assert {key: row[key] for key in regression.KEY} == {
        "task": "mnist5k_lenet5",
        "runtime": "onnxruntime",
        "precision": "fp32",
        "provider": "cpu",
        "batch": 8,
        "threads": 1,
    }


@pytest.mark.parametrize(
    ("factor", "last_process", "expected"),
    [
        (1.3, 1.0, "regression"),
        (1 / 1.3, 1.0, "faster"),
        (1.01, 1.0, "no difference above the noise"),
        (1.1, 1.3, "no difference above the noise"),  # its own processes are as far apart
    ],
)
def test_a_difference_counts_only_above_the_noise_between_processes(
    old: dict[str, Any], factor: float, last_process: float, expected: str
) -> None:
    found = judged(old, scaled(old, factor, last_process))
    assert [row["verdict"] for row in found.rows] == [expected]
    assert found.regression == (expected == "regression")


def test_overlapping_intervals_are_no_regression(bundle: Path) -> None:
    cell = Cell(setup_of(bundle), 8)
    few = [content({cell: [taken(median, calls=7)] * 2}) for median in (1e-3, 1.004e-3)]
    found = judged(*few)
    assert found.rows[0]["noise"] == 0
    assert found.rows[0]["ratio"] == pytest.approx(1.004)
    assert not found.regression


def test_what_cannot_be_judged_is_said(bundle: Path, old: dict[str, Any]) -> None:
    cell = Cell(setup_of(bundle), 8)
    (row,) = judged(old, content({cell: [taken(2e-3)]})).rows
    assert (row["noise"], row["verdict"]) == (None, "not judged: noise needs at least two processes in each record")
    (row,) = judged(old, content({cell: [taken(2e-3, calls=5)] * 2})).rows
    assert row["verdict"].startswith("not judged: p50 needs 11 samples, 10 were taken in ")


@pytest.mark.parametrize("change", [{"cpu": {"brand_raw": "other", "count": 2}}, {"system": "Other"}, {"gpus": ["G"]}])
def test_two_machines_are_refused(old: dict[str, Any], change: dict[str, Any]) -> None:
    other = {**old, "machine_info": {**old["machine_info"], **change}}
    with pytest.raises(CnnbenchError, match="latencies of two machines are not compared") as failure:
        judged(old, other)
    assert failure.value.code == Exit.ENVIRONMENT
    assert "\n" not in str(failure.value)


def test_other_versions_are_noted(old: dict[str, Any]) -> None:
    packages = {**old["machine_info"]["packages"], "numpy": "0.1"}
    found = judged(old, {**old, "machine_info": {**old["machine_info"], "packages": packages}})
    assert found.notes == [f"numpy: 0.1, baseline {old['machine_info']['packages']['numpy']}"]


def test_records_without_a_common_cell_are_refused(bundle: Path, old: dict[str, Any]) -> None:
    for changes in ({"threads": 2}, {"runtime": "torch"}, {"task": "mnist5k_lenet5"}):
        cell = Cell(setup_of(bundle, **changes), 8 if "task" not in changes else 1)
        with pytest.raises(CnnbenchError, match="no cell in common") as failure:
            judged(old, content({cell: [taken(1e-3)] * 2}))
        assert failure.value.code == Exit.DATA


@pytest.mark.parametrize(
    "damage",
    [
        {"machine_info": None},
        {"machine_info": {"cpu": None}},
        {"benchmarks": []},
        {"benchmarks": None},
        {"benchmarks": [{"extra_info": {"model_sha256": "0"}}]},
        {"benchmarks": [{}]},
    ],
)
def test_a_damaged_record_is_told(old: dict[str, Any], damage: dict[str, Any]) -> None:
    with pytest.raises(CnnbenchError, match=r"^new\.json ") as failure:
        judged(old, {**old, **damage})
    assert failure.value.code == Exit.DATA


def test_an_effect_is_never_both_slower_and_faster() -> None:
    found = Effect(1.0, 0.5, 2.0, 1.02, 1e-6, 20, {})
    assert not found.slower(found.floor)
    assert not found.faster(found.floor)
