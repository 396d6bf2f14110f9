"""The choice as a value: what is chosen, why the others are not, and which comes nearest."""

from pathlib import Path
from typing import Any

import pytest
from builders import measured, run_record, write_bundle, write_latencies, write_run
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.tables.choose import Choice, Limits, check_measured, choose_network, comparable_rows
from cnnbench.tables.gather import Records, gather
from cnnbench.tables.rows import LatencyKey, Percentiles, Row
from cnnbench.types import CnnbenchError, Exit


def row(arch: str, accuracy: float | None, macs: int, **changes: Any) -> Row:
    usual: dict[str, Any] = {"task": f"d_{arch}", "arch": arch, "dataset": "d", "train_images": 80, "params": 1_000}
    return Row(**{**usual, "accuracy": accuracy, "macs": macs, "seeds": 1, **changes})


SMALL, LARGE = row("small", 0.8, 1_000), row("large", 0.99, 8_000)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"min_accuracy": "98%"}, "min_accuracy is '98%': expected a number"),
        ({"max_latency_ms": "2ms"}, "max_latency_ms is '2ms': expected a number"),
        ({"max_params": 1.5}, "max_params is 1.5: expected a whole number"),
    ],
    ids=str,
)
def test_a_limit_is_a_number(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(CnnbenchError) as refused:
        Limits(**limits)
    assert str(refused.value) == words


def nearest(choice: Choice) -> str | None:
    assert choice.chosen is None
    return choice.nearest and choice.nearest.row.arch


def test_a_choice_names_every_network_once() -> None:
    choice = choose_network([LARGE, SMALL], Limits(), by="macs")
    assert choice.chosen is SMALL
    assert [(other.row, other.keeps_limits) for other in choice.others] == [(LARGE, True)]
    assert choice.nearest is None


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 10**6)), min_size=1), st.floats(0, 1), st.integers(1, 10**6))
def test_the_chosen_one_is_the_cheapest_that_keeps_every_limit(
    figures: list[tuple[float, int]], accuracy: float, macs: int
) -> None:
    rows = [row(str(place), *figure) for place, figure in enumerate(figures)]
    choice = choose_network(rows, Limits(min_accuracy=accuracy, max_macs=macs))
    fitting = [figure for figure in figures if figure[0] >= accuracy and figure[1] <= macs]
    assert (choice.chosen is None) == (not fitting)
    assert len(choice.others) == len(rows) - bool(fitting)
    assert all(other.reason for other in choice.others)
    if choice.chosen:
        assert choice.chosen.macs == min(cost for _, cost in fitting)
        assert choice.chosen.accuracy == max(right for right, cost in fitting if cost == choice.chosen.macs)
    else:
        assert choice.nearest in choice.others


def test_the_nearest_misses_the_fewest_limits_and_of_these_by_the_smallest_share() -> None:
    limits = Limits(min_accuracy=0.9, max_macs=900)
    both, one, closer = row("both", 0.899, 901), row("one", 0.99, 5_000), row("closer", 0.99, 1_000)
    assert nearest(choose_network([both, one, closer], limits)) == "closer"
    assert nearest(choose_network([both, one], limits)) == "one"


def test_what_was_not_measured_or_not_tested_is_not_near() -> None:
    limits = Limits(max_bytes=10)
    assert nearest(choose_network([SMALL, row("untested", None, 5)], limits)) is None
    assert nearest(choose_network([SMALL, row("sized", 0.9, 5_000, model_bytes=11)], limits)) == "sized"


def test_the_latency_that_counts_is_the_90th_percentile_of_the_key() -> None:
    torch = LatencyKey("torch", threads=2)
    fast = row("fast", 0.9, 9_000, latencies={torch: Percentiles(1.0, 2.0, None)})
    slow = row("slow", 0.9, 1_000, latencies={torch: Percentiles(0.5, 3.0, None)})
    assert choose_network([fast, slow], Limits(max_latency_ms=2.5), latency=torch).chosen is fast
    assert choose_network([fast, slow], Limits(), by="latency", latency=torch).chosen is fast
    assert choose_network([fast, slow], Limits(), by="latency").chosen is None


@pytest.mark.parametrize("limits", [{"min_accuracy": 98}, {"min_accuracy": -0.1}, {"max_macs": 0}, {"max_bytes": -1}])
def test_limits_that_say_nothing_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(CnnbenchError, match="expected"):
        Limits(**limits)


def test_only_networks_on_the_most_images_of_one_dataset_compare() -> None:
    fewer, other, failed = row("a", 0.9, 1, train_images=8), row("b", 0.9, 1, dataset="e"), row("x", None, 1)
    assert comparable_rows([SMALL, fewer, failed], None) == [SMALL, failed]
    assert comparable_rows([SMALL, other], "e") == [other]
    with pytest.raises(CnnbenchError, match="there are runs on d, e: name one with --dataset"):
        comparable_rows([SMALL, other], None)


def test_a_latency_is_refused_only_where_others_were_measured(tmp_path: Path) -> None:
    check_measured(Records(), LatencyKey("torch"))
    record = run_record()
    write_run(record)
    write_bundle(record)
    write_latencies(measured(record, [0.001] * 64))
    gathered = gather(["runs", "exports", "latency.json"])
    check_measured(gathered, LatencyKey())
    with pytest.raises(CnnbenchError, match=r"no latency of torch with 1 thread\(s\).*measured: onnxruntime"):
        check_measured(gathered, LatencyKey("torch"))


def test_what_cheap_means_is_one_of_four() -> None:
    with pytest.raises(CnnbenchError, match=r"cheap by 'byte': did you mean bytes\?") as refused:
        choose_network([], Limits(), by="byte")  # type: ignore[arg-type]
    assert refused.value.code == Exit.USAGE
