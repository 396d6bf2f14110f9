"""The time that there is: a budget, what was spent before, and a clock that tests can turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

Now = Callable[[], float]
"""Seconds of a clock that never goes back."""


@dataclass(frozen=True)
class Clock:
    """Seconds of a budget.

    Args:
        budget: All that may be spent.
        began: When this process began, by `now`.
        before: Spent by an earlier process that was stopped.
        now: Reads the clock.
    """

    budget: float
    began: float
    before: float = 0.0
    now: Now = time.monotonic

    @property
    def used(self) -> float:
        return self.before + self.now() - self.began

    @property
    def left(self) -> float:
        return self.budget - self.used

    def fits(self, seconds: float, *, reserved: float) -> bool:
        """Whether a step that takes so long leaves what is reserved for the steps after it. What takes no time does."""
        return seconds <= 0 or seconds <= self.left - reserved
