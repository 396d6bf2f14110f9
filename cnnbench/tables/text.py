"""Figures as a person reads them: the one place where numbers are rounded for tables, sentences and pages."""

from __future__ import annotations


def percent(value: float) -> str:
    """A fraction in percent with its sign: 0.98765 is `98.77 %`."""
    return f"{percent_digits(value)} %"


def percent_digits(value: float) -> str:
    """A fraction in percent, where the heading has the sign: 0.98765 is `98.77`."""
    return f"{100 * value:.2f}"


def count(value: float) -> str:
    """All digits, in groups of three: 416520 is `416,520`."""
    return f"{value:,}"


def milliseconds(value: float) -> str:
    """Milliseconds, where the heading has the unit: to the microsecond, as the clock is read."""
    return f"{value:,.3f}"


def short(value: float) -> str:
    """Three digits and a unit prefix: 416,520 is `417 k`."""
    for factor, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= 0.9995 * factor:
            return f"{_three(value / factor)}{prefix}"
    return _three(value)


def short_bytes(value: float) -> str:
    """Three digits and a unit: 246,000 is `246 kB`."""
    text = short(value)
    return f"{text}B" if text[-1].isalpha() else f"{text} B"


def interval(low: float, high: float) -> str:
    """Two fractions in percent: `98.87 to 99.08`."""
    return f"{percent_digits(low)} to {percent_digits(high)}"


def plural(number: int, noun: str) -> str:
    """`1 thread`, `2 threads`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _three(value: float) -> str:
    digits = f"{value:.3g}"
    return f"{value:.0f}" if "e" in digits else digits
