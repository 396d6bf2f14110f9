"""WHY it behaves so: one lesson a file, each a claim of the field that is computed, drawn and checked.

A lesson is a decorated function without arguments that returns a `Lesson`. Nothing in it is written down beforehand but
the claim: numbers come from the computation, and a claim that does not hold is shown as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cnnbench.registry import Registry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

lesson = Registry("lesson", package="cnnbench.lab")
"""Decorator. `name`: what the command line calls it; `order`: its place in the course; `trains`: whether it trains
networks, which takes up to two minutes."""


@dataclass(frozen=True)
class Numbers:
    """A table: in each row, values under their headings."""

    title: str
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Lesson:
    """What a lesson found."""

    title: str
    text: str
    """What is shown, and how it was computed."""
    claims: list[tuple[str, bool]]
    """Each claim, with its numbers, and whether it held."""
    numbers: list[Numbers]
    figure: Figure
    shown: str
    """What the figure shows, in words."""
