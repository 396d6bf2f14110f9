"""Figures with a unit on the command line: accuracies, times, sizes and points, each read by one function.

A verb's parameter says what it takes with one of the aliases, `min_accuracy: Accuracy | None = None`; the
function gets a plain number in the unit that the alias names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, TypeAlias

SECONDS = {"us": Decimal("1e-6"), "ms": Decimal("1e-3"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}
"""Seconds in a unit of time."""
SIZES = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", 1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)},
}
"""Bytes in a unit of size: decimal prefixes (1MB = 1,000,000) and binary ones (1MiB = 1,048,576)."""


@dataclass(frozen=True)
class Unit:
    """How a figure is read and written, and what a user is shown where it cannot be read."""

    metavar: str
    parse: Callable[[str], float]
    """The figure that a text names. Raises ValueError with what would be accepted."""
    show: Callable[[float], str]
    """A text that `parse` reads as this figure."""


def accuracy(text: str) -> float:
    """A fraction, from `98%` or `0.98`; a bare `98` or `1` has two readings and is refused."""
    number, unit = _split(text)
    if number is None or unit not in ("", "%"):
        raise ValueError(f"{text!r} is not an accuracy: expected 98% or 0.98")
    if unit == "" and number == 1 and "." not in text:
        raise ValueError(f"{text} has two readings: expected 100% or 1%")
    if unit == "" and number > 1:
        readings = f"{_plain(number)}% or {_plain(number / 100)}" if number <= 100 else "98% or 0.98"
        raise ValueError(f"{text} is more than 1: expected {readings}")
    fraction = number / 100 if unit else number
    if fraction > 1:
        raise ValueError(f"{text} is more than 100%: expected at most 100%")
    return float(fraction)


def points(text: str) -> float:
    """Percentage points, from `0.2%`."""
    number, unit = _split(text)
    if number is None or unit not in ("", "%"):
        raise ValueError(f"{text!r} is not a difference of accuracies: expected points such as 0.2%")
    if unit == "":
        raise ValueError(f"{text} has no unit: expected {_plain(number)}% for {_plain(number)} points")
    if number > 100:
        raise ValueError(f"{text} is more than 100%: expected at most 100%")
    return float(number)


def seconds(text: str) -> float:
    """Seconds, from `90s`, `30m`, `2h`, `500ms` or `20us`."""
    return float(_time(text, example="30m, 90s or 2h"))


def duration(text: str) -> float:
    """Seconds, from `5s`, `500ms` and the like, or from a plain number of seconds."""
    number, unit = _split(text)
    return float(number) if number is not None and unit == "" else seconds(text)


def milliseconds(text: str) -> float:
    """Milliseconds, from `2ms`, `0.5s` and the like."""
    return float(_time(text, example="2ms or 0.5s") * 1000)


def size(text: str) -> int:
    """Bytes, from `1MB`, `300kB`, `1MiB` or a whole number of bytes."""
    number, unit = _split(text)
    unit = {"": "B", "KB": "kB"}.get(unit, unit)
    if number is None or unit not in SIZES:
        raise ValueError(f"{text!r} is not a size: expected 1MB (1,000,000 bytes), 1MiB, 300kB or bytes")
    counted = number * SIZES[unit]
    if counted != int(counted) or not counted:
        raise ValueError(f"{text} is {_plain(counted)} bytes: expected a whole number above 0")
    return int(counted)


def _time(text: str, *, example: str) -> Decimal:
    number, unit = _split(text)
    unit = {"min": "m"}.get(unit, unit)
    if number is None or unit not in ("", *SECONDS):
        raise ValueError(f"{text!r} is not a time: expected {example}")
    if unit == "":
        raise ValueError(f"{text} has no unit: expected {text}ms, {text}s or {text}m")
    if not number:
        raise ValueError(f"{text} is not a time: expected more than 0, such as {example}")
    return number * SECONDS[unit]


def _split(text: str) -> tuple[Decimal | None, str]:
    """The number at the head of a text, None where there is none, and the unit after it."""
    parts = re.fullmatch(r"([0-9.]+(?:[eE][+-]?[0-9]{1,2})?) ?([A-Za-z%]*)", text.strip())
    if parts is None:
        return None, ""
    try:
        return Decimal(parts[1]), parts[2]
    except InvalidOperation:
        return None, ""


def _plain(number: Decimal) -> str:
    """A decimal without exponent and without trailing zeros."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _exact(value: float, factor: int) -> str:
    """A float times a power of ten in its shortest decimal form, so that reading it back gives the same float."""
    return _plain(Decimal(repr(float(value))) * factor)


ACCURACY = Unit("98%", accuracy, lambda value: f"{_exact(value, 100)}%")
POINTS = Unit("0.2%", points, lambda value: f"{_exact(value, 1)}%")
SECOND = Unit("30m", seconds, lambda value: f"{_exact(value, 1)}s")
DURATION = Unit("5s", duration, SECOND.show)
MILLISECOND = Unit("2ms", milliseconds, lambda value: f"{_exact(value, 1)}ms")
SIZE = Unit("1MB", size, lambda value: f"{value:.0f}B")

Accuracy: TypeAlias = Annotated[float, ACCURACY]
"""A fraction in [0, 1], written 98% or 0.98."""
Points: TypeAlias = Annotated[float, POINTS]
"""Percentage points in [0, 100], written 0.2%."""
Seconds: TypeAlias = Annotated[float, SECOND]
"""Seconds above 0, written 30m, 90s or 2h."""
Duration: TypeAlias = Annotated[float, DURATION]
"""Seconds, written 5s, 500ms or as a plain number of seconds."""
Milliseconds: TypeAlias = Annotated[float, MILLISECOND]
"""Milliseconds above 0, written 2ms or 0.5s."""
Bytes: TypeAlias = Annotated[int, SIZE]
"""Bytes above 0, written 1MB (1,000,000), 1MiB (1,048,576), 300kB or as a plain integer."""
