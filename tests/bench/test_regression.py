"""Two bundles compared: quiet on noise, however it comes, and not on a slowdown; and two records compared."""

import copy
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_helpers import case_of, samples, setup_of, written
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cnnbench.bench import interleave
from cnnbench.bench.interleave import Budget, CaseSamples
from cnnbench.bench.plan import Case, LatencyOptions, Setup
from cnnbench.bench.regression import (
    PROCESSES,
    BundleComparison,
    Effect,
    RecordComparison,
    compare_records,
    compare_setups,
    conclude,
    estimate_effect,
)
from cnnbench.types import CnnbenchError, Exit

Rounds = list[list[float]]
CASE = case_of(8)


def rounds(
    draw: np.random.Generator, slowdown: float = 1.0, between_processes: float = 0.01, count: int = 20
) -> tuple[Rounds, Rounds]:
    """Medians of rounds of the processes of A and of B: drift that strikes all alike, and noise."""
    drift = np.cumsum(draw.normal(0, 0.02, count))

    def process(factor: float) -> list[float]:
        log = drift + draw.normal(0, between_processes) + draw.normal(0, 0.02, count)
        times: list[float] = (1e-3 * factor * np.exp(log)).tolist()
        return times

    return [process(slowdown) for _ in range(PROCESSES)], [process(1.0) for _ in range(PROCESSES)]


def test_without_noise_the_ratio_is_exact_and_the_smallest_effect_is_seen() -> None:
    drift = [1e-3 * (1 + index / 10) for index in range(20)]
    effect = estimate_effect([[1.3 * value for value in drift]] * 2, [drift] * 2)
    assert (effect.ratio, effect.low, effect.high) == pytest.approx((1.3, 1.3, 1.3))
    assert effect.smallest_seen == pytest.approx(1.02)
    assert (effect.rounds, effect.processes) == (20, 4)


def test_a_burst_in_the_middle_of_a_drift_is_forgiven() -> None:
    drift = [1e-3 * 1.1**index for index in range(21)]
    burst = [1.2 * value if index == 10 else value for index, value in enumerate(drift)]
    assert estimate_effect([burst] * 2, [drift] * 2).ratio == pytest.approx(1)


def test_the_interval_is_student_s_t_between_processes() -> None:
    a, b = [1.0, 1.1, 1.05], [1.0, 0.98, 1.03]  # one round: a process is its time
    effect = estimate_effect([[value] for value in a], [[value] for value in b])
    expected = stats.ttest_ind(np.log(a), np.log(b))
    interval = expected.confidence_interval(0.95)
    assert (effect.low, effect.high) == pytest.approx((np.exp(interval.low), np.exp(interval.high)))
    assert effect.ratio == pytest.approx(np.exp(np.mean(np.log(a)) - np.mean(np.log(b))))
    assert effect.p_value == pytest.approx(expected.pvalue)


@given(st.floats(0.2, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_swapping_the_bundles_inverts_the_ratio(slowdown: float, seed: int) -> None:
    a, b = rounds(np.random.default_rng(seed), slowdown)
    there, back = estimate_effect(a, b), estimate_effect(b, a)
    assert (there.ratio, there.low, there.high) == pytest.approx((1 / back.ratio, 1 / back.high, 1 / back.low))
    assert there.low <= there.ratio <= there.high
    assert there.smallest_seen == pytest.approx(back.smallest_seen)
    assert there.p_value == pytest.approx(back.p_value)


@pytest.mark.parametrize("between_processes", [0.0, 0.03, 0.1])
def test_nothing_is_a_regression_where_nothing_changed(between_processes: float) -> None:
    draw = np.random.default_rng(1)
    effects = [estimate_effect(*rounds(draw, 1.0, between_processes)) for _ in range(400)]
    excluded = np.mean([not effect.low <= 1 <= effect.high for effect in effects])
    assert excluded <= 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5
    assert not any(conclude("x", [first, second]).regression for first, second in itertools.pairwise(effects))


def test_the_slowdown_that_is_said_to_be_seen_is_seen_in_nine_of_ten_measurements() -> None:
    draw = np.random.default_rng(4)
    typical = float(np.mean([estimate_effect(*rounds(draw, 1.0, 0.03)).smallest_seen for _ in range(300)]))
    seen = np.mean([estimate_effect(*rounds(draw, typical, 0.03)).slower for _ in range(300)])
    assert seen == pytest.approx(0.9, abs=0.05)


def test_a_slowdown_of_three_tenths_is_seen_and_its_inverse() -> None:
    draw = np.random.default_rng(2)
    for _ in range(5):
        slower = conclude("x", [estimate_effect(*rounds(draw, 1.3)) for _ in range(2)])
        assert (slower.regression, slower.improvement) == (True, False)
        assert slower.answer.startswith("x: regression, seen twice: the candidate takes 1.")
        faster = conclude("x", [estimate_effect(*rounds(draw, 1 / 1.3)) for _ in range(2)])
        assert (faster.regression, faster.improvement) == (False, True)
        assert faster.answer.startswith("x: faster, seen twice: the candidate takes 0.")


def test_what_processes_of_one_bundle_differ_by_is_noise() -> None:
    quiet = [1e-3] * 20
    effect = estimate_effect([quiet, [value * 1.2 for value in quiet]], [quiet, quiet])
    assert effect.ratio == pytest.approx(1.2**0.5)  # the mean of the two, in logarithms
    assert not effect.slower
    assert effect.cannot_tell


def test_where_a_slowdown_of_a_tenth_is_not_excluded_the_answer_is_that_it_cannot_be_told() -> None:
    draw = np.random.default_rng(5)
    noisy = conclude("x", [estimate_effect(*rounds(draw, 1.0, 0.2))])
    assert (noisy.regression, noisy.cannot_tell) == (False, True)
    assert noisy.answer.startswith("x: cannot tell: the candidate takes ")
    assert "; only a slowdown from 1." in noisy.answer
    quiet = conclude("x", [estimate_effect(*rounds(draw))])
    assert (quiet.regression, quiet.cannot_tell) == (False, False)
    assert quiet.answer.startswith("x: no regression: the candidate takes ")
    assert quiet.answer.endswith(f"; a slowdown from {quiet.effects[0].smallest_seen:.2f} x on would have been seen")


class Machine:
    """Stands for the processes: slices of a bundle have this median, in each measurement another."""

    def __init__(self, *medians: dict[str, float]) -> None:
        self.medians = list(medians)
        self.requests: list[tuple[list[str], list[int]]] = []

    def __call__(
        self, setups: Sequence[Setup], batches: Sequence[int], *, budget: Budget, **_: Any
    ) -> list[list[CaseSamples]]:
        self.requests.append(([setup.bundle.name for setup in setups], list(batches)))
        medians = self.medians.pop(0)
        return [
            [samples(Case(setup, batch), *[medians[setup.bundle.name]] * budget.rounds, calls=5) for batch in batches]
            for setup in setups
        ]


def compared(monkeypatch: pytest.MonkeyPatch, measure: Any, *batches: int) -> list[BundleComparison]:
    """Bundle a compared with bundle b."""
    monkeypatch.setattr(interleave, "measure_in_turns", measure)
    options = LatencyOptions(batches=batches or [1], seconds=1.0)
    a, b = (setup_of(Path(name)) for name in "ab")
    return compare_setups([a], [b], options=options, progress=lambda line: None)


def test_four_processes_of_each_bundle_are_interleaved_in_one_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({"a": 1e-3, "b": 1e-3})
    (comparison,) = compared(monkeypatch, machine)
    assert machine.requests == [(["a"] * 4 + ["b"] * 4, [1])]
    assert not comparison.regression
    assert list(comparison.effects[0].round_medians) == ["A1", "A2", "A3", "A4", "B1", "B2", "B3", "B4"]


def test_a_difference_is_a_regression_only_if_fresh_processes_show_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, same = {"a": 1.3e-3, "b": 1e-3}, {"a": 1e-3, "b": 1e-3}
    machine = Machine(slow, slow)
    (comparison,) = compared(monkeypatch, machine)
    assert comparison.regression
    assert len(machine.requests) == 2
    (comparison,) = compared(monkeypatch, Machine(slow, same))
    assert not comparison.regression
    assert "a difference was seen once, and not again" in comparison.answer


def test_only_what_differs_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_at_8(setups: Sequence[Setup], batches: Sequence[int], **_: Any) -> list[list[CaseSamples]]:
        requests.append(list(batches))
        return [
            [
                samples(Case(setup, batch), *[1.3e-3 if (setup.bundle.name, batch) == ("a", 8) else 1e-3] * 20, calls=5)
                for batch in batches
            ]
            for setup in setups
        ]

    requests: list[list[int]] = []
    one, eight = compared(monkeypatch, slow_at_8, 1, 8)
    assert requests == [[1, 8], [8]]
    assert (one.regression, eight.regression) == (False, True)
    assert (len(one.effects), len(eight.effects)) == (1, 2)


def test_there_is_no_answer_where_a_backend_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(setups: Sequence[Setup], *_: Any, **__: Any) -> list[list[CaseSamples]]:
        return [[CaseSamples(Case(setup, 1), failure="its process died (SIGKILL)")] for setup in setups]

    with pytest.raises(CnnbenchError, match=r"its process died \(SIGKILL\)") as failure:
        compared(monkeypatch, failing)
    assert failure.value.code == Exit.ENVIRONMENT


@pytest.fixture
def old() -> dict[str, Any]:
    """A record of one case: 1 ms, its two processes 2 % apart."""
    return written([samples(CASE, 1.0e-3, calls=201), samples(CASE, 1.02e-3, calls=201)])


def changes(old: dict[str, Any], new: dict[str, Any]) -> RecordComparison:
    for name, record in (("old.json", old), ("new.json", new)):
        Path(name).write_text(json.dumps(record))
    return compare_records(Path("new.json"), Path("old.json"))


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
    comparison = changes(old, old)
    (row,) = comparison.rows
    assert (comparison.regression, comparison.notes) == (False, ())
    assert (row.ratio, row.answer) == (1.0, "no regression")
    # two processes 2 % apart on each side, so two degrees of freedom
    half = stats.t.ppf(0.975, 2) * np.std(np.log([1, 1.02]), ddof=1)
    assert (row.low, row.high) == pytest.approx((np.exp(-half), np.exp(half)))
    assert (row.task, row.backend, row.precision) == ("mnist5k_lenet5", "onnxruntime", "fp32")
    assert (row.provider, row.batch, row.threads) == ("cpu", 8, 1)


@pytest.mark.parametrize(
    ("factor", "last_process", "expected"),
    [
        (1.3, 1.0, "regression"),
        (1 / 1.3, 1.0, "faster"),
        (1.01, 1.0, "no regression"),
        (1.1, 1.3, "cannot tell"),  # its own processes are as far apart
    ],
)
def test_a_difference_counts_only_above_the_noise_between_processes(
    old: dict[str, Any], factor: float, last_process: float, expected: str
) -> None:
    comparison = changes(old, scaled(old, factor, last_process))
    assert [row.answer for row in comparison.rows] == [expected]
    assert comparison.regression == (expected == "regression")


def test_too_few_processes_or_samples_give_no_answer(old: dict[str, Any]) -> None:
    (row,) = changes(old, written([samples(CASE, 2e-3)])).rows
    assert (row.low, row.answer) == (None, "no answer: noise needs at least two processes in each record")
    (row,) = changes(old, written([samples(CASE, 2e-3, calls=5)] * 2)).rows
    assert row.answer.startswith("no answer: p50 needs 11 samples, 10 were taken in ")
    assert not row.regression


@pytest.mark.parametrize("change", [{"cpu": {"brand_raw": "other", "count": 2}}, {"system": "Other"}, {"gpus": ["G"]}])
def test_two_machines_are_refused(old: dict[str, Any], change: dict[str, Any]) -> None:
    other = {**old, "machine_info": {**old["machine_info"], **change}}
    with pytest.raises(CnnbenchError, match="latencies of two machines are not compared") as failure:
        changes(old, other)
    assert failure.value.code == Exit.ENVIRONMENT
    assert "\n" not in str(failure.value)


def test_other_versions_are_noted(old: dict[str, Any]) -> None:
    packages = {**old["machine_info"]["packages"], "numpy": "0.1"}
    comparison = changes(old, {**old, "machine_info": {**old["machine_info"], "packages": packages}})
    assert comparison.notes == (f"numpy: 0.1, baseline {old['machine_info']['packages']['numpy']}",)


def test_records_without_a_common_case_are_refused(old: dict[str, Any]) -> None:
    for other in (case_of(8, threads=2), case_of(8, backend="torch"), case_of(1)):
        with pytest.raises(CnnbenchError, match="no case in common") as failure:
            changes(old, written([samples(other, 1e-3)] * 2))
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
def test_a_damaged_record_is_refused(old: dict[str, Any], damage: dict[str, Any]) -> None:
    with pytest.raises(CnnbenchError, match=r"new\.json ") as failure:
        changes(old, {**old, **damage})
    assert failure.value.code == Exit.DATA


def test_an_effect_is_never_both_slower_and_faster() -> None:
    effect = Effect(1.0, 0.5, 2.0, 1.5, 0.9, 8)
    assert not effect.slower
    assert not effect.faster
