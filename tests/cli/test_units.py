"""Units: what is read, what is refused and how, and that a written figure is read back as the same number."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cnnbench.cli import units
from cnnbench.cli.units import ACCURACY, MILLISECOND, POINTS, SECOND, SECONDS, SIZE, SIZES, Unit

FRACTIONS = st.floats(0, 1)
POSITIVE = st.floats(1e-9, 1e9)
ROUND_TRIPS = {
    "accuracy": (ACCURACY, FRACTIONS),
    "points": (POINTS, st.floats(0, 100)),
    "seconds": (SECOND, POSITIVE),
    "milliseconds": (MILLISECOND, POSITIVE),
    "bytes": (SIZE, st.integers(1, 10**15)),
}


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (units.accuracy, "98%", 0.98),
        (units.accuracy, "0.98", 0.98),
        (units.accuracy, "99.9%", 0.999),
        (units.accuracy, ".5", 0.5),
        (units.accuracy, "100%", 1.0),
        (units.accuracy, "1.0", 1.0),
        (units.accuracy, "0.5%", 0.005),
        (units.accuracy, " 98 %", 0.98),
        (units.points, "0.2%", 0.2),
        (units.points, "0%", 0.0),
        (units.milliseconds, "2ms", 2.0),
        (units.milliseconds, "0.5s", 500.0),
        (units.milliseconds, "30us", 0.03),
        (units.seconds, "30m", 1800.0),
        (units.seconds, "30min", 1800.0),
        (units.seconds, "90s", 90.0),
        (units.seconds, "2h", 7200.0),
        (units.duration, "5", 5.0),
        (units.duration, "0.1", 0.1),
        (units.duration, "5s", 5.0),
        (units.duration, "500ms", 0.5),
        (units.size, "1MB", 1_000_000),
        (units.size, "1MiB", 1_048_576),
        (units.size, "300kB", 300_000),
        (units.size, "300KB", 300_000),
        (units.size, "1.5GB", 1_500_000_000),
        (units.size, "250605", 250_605),
        (units.size, "1e6", 1_000_000),
    ],
)
def test_a_figure_with_its_unit(parse: object, text: str, value: float) -> None:
    assert parse(text) == value  # type: ignore[operator]
    assert type(parse(text)) is type(value)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("parse", "text", "accepted"),
    [
        (units.accuracy, "98", "98% or 0.98"),
        (units.accuracy, "98.5", "98.5% or 0.985"),
        (units.accuracy, "2", "2% or 0.02"),
        (units.accuracy, "1", "100% or 1%"),
        (units.accuracy, "980", "98% or 0.98"),
        (units.accuracy, "101%", "at most 100%"),
        (units.accuracy, "-1", "98% or 0.98"),
        (units.accuracy, "nan", "98% or 0.98"),
        (units.accuracy, "inf", "98% or 0.98"),
        (units.accuracy, "0.9.8", "98% or 0.98"),
        (units.accuracy, "", "98% or 0.98"),
        (units.accuracy, "98ms", "98% or 0.98"),
        (units.points, "0.2", "0.2%"),
        (units.points, "101%", "at most 100%"),
        (units.milliseconds, "2", "2ms, 2s"),
        (units.milliseconds, "2MB", "2ms or 0.5s"),
        (units.milliseconds, "0ms", "more than 0"),
        (units.seconds, "half an hour", "30m, 90s or 2h"),
        (units.seconds, "-5s", "30m, 90s or 2h"),
        (units.duration, "5x", "30m, 90s or 2h"),
        (units.duration, "nan", "30m, 90s or 2h"),
        (units.size, "0", "whole number above 0"),
        (units.size, "1.5", "whole number above 0"),
        (units.size, "1mb", "1MB (1,000,000 bytes)"),
        (units.size, "1e999", "1MB (1,000,000 bytes)"),
        (units.size, "²", "1MB (1,000,000 bytes)"),
    ],
)
def test_a_refusal_names_what_is_accepted(parse: object, text: str, accepted: str) -> None:
    with pytest.raises(ValueError, match="expected") as refused:
        parse(text)  # type: ignore[operator]
    assert accepted in str(refused.value)


@pytest.mark.parametrize("name", ROUND_TRIPS)
@given(data=st.data())
def test_a_shown_figure_is_read_back_as_the_same_number(name: str, data: st.DataObject) -> None:
    unit, values = ROUND_TRIPS[name]
    value = data.draw(values)
    assert unit.parse(unit.show(value)) == value


@given(FRACTIONS, FRACTIONS)
def test_a_larger_percentage_is_a_larger_accuracy(one: float, other: float) -> None:
    assume(one <= other)
    assert units.accuracy(ACCURACY.show(one)) <= units.accuracy(ACCURACY.show(other))


@given(st.decimals(0, 100, places=3))
def test_a_percentage_is_a_hundredth_correctly_rounded(percent: object) -> None:
    assert units.accuracy(f"{percent:f}%") == float(percent / 100)  # type: ignore[operator]


@given(st.integers(1, 10**6), st.sampled_from(sorted(SIZES)))
def test_a_size_is_its_number_times_its_prefix(number: int, unit: str) -> None:
    assert units.size(f"{number}{unit}") == number * SIZES[unit]


@given(st.integers(1, 10**6), st.sampled_from(sorted(SECONDS)))
def test_a_time_is_a_thousand_times_more_in_milliseconds(number: int, unit: str) -> None:
    assert units.milliseconds(f"{number}{unit}") == pytest.approx(1000 * units.seconds(f"{number}{unit}"), rel=1e-15)


@pytest.mark.parametrize("smaller", ["kB", "MB", "GB", "KiB", "MiB", "GiB"])
def test_prefixes_grow_by_a_thousand_or_by_1024(smaller: str) -> None:
    step = 1024 if smaller.endswith("iB") else 1000
    larger = {"k": "M", "K": "M", "M": "G", "G": "T"}[smaller[0]] + smaller[1:]
    assert SIZES[larger] == step * SIZES[smaller]


@given(st.text(max_size=12), st.sampled_from([ACCURACY, POINTS, SECOND, MILLISECOND, SIZE]))
def test_any_text_is_a_number_or_a_refusal(text: str, unit: Unit) -> None:
    try:
        value = unit.parse(text)
    except ValueError as refused:
        assert "expected" in str(refused)  # noqa: PT017 - either outcome is right
    else:
        assert 0 <= value < float("inf")
