"""WHY it behaves so: one lesson a file; each claim about convolutional networks is computed, drawn and checked.

A lesson is a decorated function without arguments that returns a `Lesson`. Its module has a function that measures, one
that states the claims with their numbers, and one that draws. Only the claims' wording is fixed: their numbers are
computed, and a claim that fails is reported as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cnnbench.registry import Entry, Registry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

lesson = Registry("lesson", package="cnnbench.lab")
"""Decorator. `name`: the lesson's name on the command line; `order`: its position in the course; `trains`: whether it
trains networks, which takes up to two minutes."""


class Claim(NamedTuple):
    """A statement about networks, with the numbers that were computed, and whether they support it."""

    text: str
    holds: bool


Row = dict[str, str | int | float | bool | None]
"""Values by heading."""


@dataclass(frozen=True)
class Numbers:
    """A table of a lesson."""

    title: str
    rows: list[Row]


@dataclass(frozen=True)
class Lesson:
    """The result of a lesson."""

    title: str
    text: str
    """What is shown, and how it was computed."""
    claims: list[Claim]
    numbers: list[Numbers]
    figure: Figure
    alt_text: str
    """What the figure shows, in words."""

    @property
    def holds(self) -> bool:
        """Whether every claim holds."""
        return all(claim.holds for claim in self.claims)


def course() -> list[Entry]:
    """Every lesson, in the order of the course; nothing is run or imported."""
    return sorted(lesson.entries.values(), key=lambda entry: entry.declared.get("order", 99))


def run_lesson(name: str) -> Lesson:
    """Run a lesson: seconds, or up to two minutes where it trains networks.

    Raises:
        CnnbenchError: There is no lesson of this name (exit 2).
    """
    result: Lesson = lesson[name].load()()
    return result
