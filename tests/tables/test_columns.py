"""Columns: each reads one figure of a row, and people see its unit once."""

from dataclasses import dataclass, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.tables.columns import (
    CATALOGUE,
    FIGURES,
    Column,
    every_column,
    latency_column,
    latency_pair_column,
    select,
    target_columns,
    texts,
)
from cnnbench.tables.rows import LatencyKey, Percentiles, Row, TimeToTarget


def row(**changes: object) -> Row:
    return Row(**{"task": "d_a", "arch": "a", "dataset": "d", **changes})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Network:
    name: str
    share: float | None


@pytest.mark.parametrize("network", [Network("lenet5", 0.5), {"name": "lenet5", "share": 0.5}], ids=["row", "mapping"])
def test_a_column_reads_an_attribute_or_a_key(network: object) -> None:
    columns = [Column("name", "network"), Column("share", "share", lambda value: f"{100 * value:.0f}", unit="%")]
    assert [column.value(network) for column in columns] == ["lenet5", 0.5]
    assert texts(columns, network) == ["lenet5", "50"]
    assert [column.title for column in columns] == ["network", "share, %"]


def test_what_was_not_measured_is_none_and_a_dash() -> None:
    column = Column("share", "share", "{:.1f}".format)
    for network in (Network("lenet5", None), {"name": "lenet5"}):
        assert (column.value(network), column.text(network)) == (None, "-")


def test_a_key_that_a_row_does_not_have_is_a_mistake() -> None:
    with pytest.raises(AttributeError):
        Column("shares", "share").value(Network("lenet5", 0.5))


def test_every_figure_of_a_row_has_one_column() -> None:
    joined = {"latencies", "time_to_target"}  # these have a column for each of their figures
    sources = {"runs", "bundle"}
    assert [column.key for column in FIGURES if column.read is None] == [column.key for column in FIGURES]
    assert {column.key for column in FIGURES} == {field.name for field in fields(Row)} - joined - sources
    keys = [column.key for column in every_column([LatencyKey(), LatencyKey("torch")], with_target=True)]
    assert len(set(keys)) == len(keys)


def test_headings_do_not_repeat_their_unit() -> None:
    for column in [*CATALOGUE.values(), latency_column(LatencyKey(), 50), latency_pair_column(LatencyKey())]:
        assert column.heading.strip() == column.heading != ""
        assert not column.unit or not column.heading.endswith(column.unit)


def test_columns_are_selected_by_key_in_the_order_asked_for() -> None:
    assert [column.key for column in select("macs", "arch")] == ["macs", "arch"]
    with pytest.raises(KeyError):
        select("speed")


def test_a_task_that_failed_shows_so_and_has_no_figures() -> None:
    failed = row(failures=("seed 1: no disk",))
    assert texts(select("accuracy_and_std", "accuracy_interval", "seeds_and_failures", "macs"), failed) == [
        "failed",
        "-",
        "0 (1 failed)",
        "-",
    ]
    untested = row(macs=5)
    assert texts(select("accuracy_and_std", "seeds_and_failures", "macs"), untested) == ["not read", "-", "5"]


def test_accuracies_are_in_percent_with_their_spread() -> None:
    several = row(accuracy=0.9155, accuracy_std=0.0212, accuracy_low=0.9, accuracy_high=0.931, seeds=3)
    keys = ("accuracy", "accuracy_and_std", "accuracy_interval", "seeds_and_failures")
    assert texts(select(*keys), several) == ["91.55", "91.55 +- 2.12", "90.00 to 93.10", "3"]
    interval = CATALOGUE["accuracy_interval"]
    assert interval.text(row(accuracy=0.9, seeds=2)) == "too few seeds"
    ends = {"accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95}
    assert interval.text(row(**ends, interval_scope="images")) == "80.00 to 95.00, this network alone"
    assert interval.text(row(**ends, interval_scope="seeds")) == "80.00 to 95.00, over seeds alone"
    assert interval.text(row(**ends, interval_scope="seeds and images")) == "80.00 to 95.00"


@given(st.sampled_from([50, 90, 99]), st.none() | st.floats(0.001, 1e6))
def test_a_latency_column_reads_its_own_percentile(percent: int, milliseconds: float | None) -> None:
    figures = {"p50_ms": 1.0, "p90_ms": 2.0, "p99_ms": 3.0, f"p{percent}_ms": milliseconds}
    key = LatencyKey("torch", threads=2)
    timed = row(latencies={key: Percentiles(**figures)})
    assert latency_column(key, percent).value(timed) == milliseconds
    assert latency_column(LatencyKey("torch"), percent).value(timed) is None


def test_both_percentiles_stand_in_one_cell() -> None:
    column = latency_pair_column(LatencyKey("torch", "cuda", 8, 2))
    assert column.title == "torch on cuda p50 / p90, batch 8, 2 threads, ms"
    for p90, text in ((0.25, "0.125 / 0.250"), (None, "0.125 / -")):
        timed = row(latencies={LatencyKey("torch", "cuda", 8, 2): Percentiles(0.125, p90, None)})
        assert column.text(timed) == text
    assert column.text(row()) == "-"


def test_the_time_to_a_target_is_a_median_with_its_range() -> None:
    time = TimeToTarget(0.9, 4, (5.0, 9.0, 6.0), (2, 2, 2), (9.6e6, 9.6e6, 9.6e6))
    columns = target_columns(0.9)
    assert columns[0].title == "seeds to val 90.00 %"
    assert texts(columns, row(time_to_target=time)) == ["3 of 4", "7.5 (5.0 to 9.0)", "2", "9.60e+06"]
    late = TimeToTarget(0.9, 4, (5.0, 9.0, 6.0), (2, 2, 2), (), (8.0,), (2,), ())
    assert texts(columns, row(time_to_target=late))[:2] == ["3 of 4", "7.5 (5.0 to 9.0)"]
    few = TimeToTarget(0.9, 3, (5.0,), (2,), (), (8.0, 8.0), (2, 2), ())
    assert texts(columns, row(time_to_target=few))[:2] == ["1 of 3", "more than 8.0 (5.0)"]
    never = TimeToTarget(0.9, 2, (), (), ())
    assert texts(columns, row(time_to_target=never)) == ["never (0 of 2)", "-", "-", "-"]
    assert texts(columns, row()) == ["-", "-", "-", "-"]
