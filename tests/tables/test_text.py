"""Figures in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.tables.text import count, interval, percent, percent_digits, plural, short, short_bytes


def test_fractions_are_in_percent_with_two_digits() -> None:
    assert (percent(0.98765), percent_digits(0.98765), interval(0.9, 0.931)) == ("98.77 %", "98.77", "90.00 to 93.10")


def test_counts_have_all_digits() -> None:
    assert (count(416_520), plural(1, "thread"), plural(1_200, "run")) == ("416,520", "1 thread", "1,200 runs")


@pytest.mark.parametrize(
    ("value", "text", "size"),
    [
        (0, "0", "0 B"),
        (999, "999", "999 B"),
        (999.6, "1 k", "1 kB"),
        (416_520, "417 k", "417 kB"),
        (30_821_248, "30.8 M", "30.8 MB"),
        (4.1e9, "4.1 G", "4.1 GB"),
    ],
)
def test_short_numbers_have_three_digits_and_a_prefix(value: float, text: str, size: str) -> None:
    assert (short(value), short_bytes(value)) == (text, size)


@given(st.floats(1, 9e14))
def test_a_short_number_is_within_half_a_percent_of_the_value(value: float) -> None:
    number, _, prefix = short(value).partition(" ")
    factor = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[prefix]
    assert float(number) * factor == pytest.approx(value, rel=0.0051)
