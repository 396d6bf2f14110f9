"""What is being done and how much is left, on stderr: one bar on a terminal, plain lines elsewhere.

A verb opens a display; what takes long says what it does by `step`, `move` and `within`, which do nothing where no
display is open, as when Python calls it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

DRAWN = 52
"""Columns of a bar with its times; the rest is for what is being done."""
DRAWN_WITHOUT_SHARE = 35
"""Where only the time that is left stands beside the bar."""

_open: list[Display] = []
"""The display that is open, if any."""


class Display:
    """Steps of which some are done. On a terminal `bar` draws them; else each is a line as it begins."""

    drawn = DRAWN

    def __init__(self, total: float | None, *, bar: Progress | None) -> None:
        self.total = total
        self.bar = bar
        self.begun = 0
        self.task: TaskID | None = bar.add_task("", total=total) if bar else None

    def step(self, text: str) -> None:
        """Begin the next step."""
        self.begun += 1
        self.move(text, done=self.begun - 1)
        if self.bar is None:
            place = f"[{self.begun}/{self.total:g}] " if self.total is not None else ""
            print(f"{place}{text}", file=sys.stderr, flush=True)

    def move(self, text: str, *, done: float) -> None:
        """Show what is being done, and how much is done, on a terminal alone."""
        if self.bar is not None and self.task is not None:
            room = max(16, self.bar.console.width - self.drawn)
            text = text if len(text) <= room else f"{text[: room - 3]}..."
            self.bar.update(self.task, description=text, completed=done)

    def within(self, share: float) -> None:
        """Show that a share of the step that has begun is done, 0 to 1."""
        if self.bar is not None and self.task is not None:
            if self.total is None:
                self.bar.update(self.task, total=1, completed=share)
            else:
                self.bar.update(self.task, completed=self.begun - 1 + share)


class Countdown(Display):
    """Seconds of a budget: the bar moves with the time, and a step only says what is being done."""

    drawn = DRAWN_WITHOUT_SHARE

    def __init__(self, seconds: float, *, bar: Progress | None) -> None:
        super().__init__(seconds, bar=bar)
        self.doing("", left=seconds)

    def step(self, text: str) -> None:
        """Say what is being done."""
        self.move(text, done=0)

    def within(self, share: float) -> None:
        """Nothing: the time moves the bar."""

    def doing(self, text: str, *, left: float) -> None:
        """Say what is being done, and how many seconds are left now."""
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, ends=time.monotonic() + left)
        self.move(text, done=0)


@contextmanager
def display(total: float | None, *, begun: int = 0, budget: bool = False) -> Iterator[Display]:
    """Show progress until the block ends; what is printed on stderr meanwhile stands above the bar, which then goes.

    Args:
        total: How many steps there are; None where it is not known.
        begun: How many of them are done already.
        budget: Whether `total` is seconds that may be spent, from now on.
    """
    drawn = sys.stderr and sys.stderr.isatty() and not _open
    with _bar() if drawn else nullcontext() as bar:
        shown = Countdown(total, bar=bar) if budget and total is not None else Display(total, bar=bar)
        shown.begun = begun
        _open.append(shown)
        try:
            yield shown
        finally:
            _open.remove(shown)


def step(text: str) -> None:
    """Begin the next step of the display that is open."""
    if _open:
        _open[-1].step(text)


def doing(text: str, *, left: float) -> None:
    """Say what is being done, and how many seconds of the budget are left, where one is shown."""
    if _open and isinstance(_open[-1], Countdown):
        _open[-1].doing(text, left=left)


def say(line: str) -> None:
    """Print a line on stderr where a display is open."""
    if _open:
        print(line, file=sys.stderr, flush=True)


def is_open() -> bool:
    """Whether a display is open."""
    return bool(_open)


def within(share: float) -> None:
    """Say how much of the step that has begun is done, 0 to 1."""
    if _open:
        _open[-1].within(share)


@contextmanager
def _bar() -> Iterator[Progress]:
    """A bar on stderr with what is being done, and the times."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn
    from rich.table import Column

    description = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
    console = Console(stderr=True)
    with Progress(
        description, *_columns(), console=console, transient=True, redirect_stdout=False, speed_estimate_period=3600.0
    ) as bar:
        yield bar


def _columns() -> tuple[ProgressColumn, ...]:
    """The bar, and beside it the share that is done, the time that it took and that the rest takes at this pace.

    Of a budget the time that is left alone.
    """
    from rich.progress import BarColumn, ProgressColumn, Task
    from rich.progress_bar import ProgressBar
    from rich.table import Column
    from rich.text import Text

    def left_of(task: Task) -> float | None:
        return max(0.0, task.fields["ends"] - time.monotonic()) if "ends" in task.fields else None

    class Bar(BarColumn):
        def render(self, task: Task) -> ProgressBar:
            left = left_of(task)
            if left is None or task.total is None:
                return super().render(task)
            return ProgressBar(total=task.total, completed=task.total - left, width=self.bar_width)

    class Times(ProgressColumn):
        max_refresh = 0.5

        def render(self, task: Task) -> Text:
            left = left_of(task)
            if left is not None:
                return Text(f"{in_words(left)} left")
            share = "" if task.total is None else f"{task.percentage:.0f} %, "
            rest = task.time_remaining
            about = "" if rest is None or task.finished else f", about {in_words(rest)} left"
            return Text(f"{share}{in_words(task.elapsed or 0.0)}{about}")

    return Bar(bar_width=16), Times(table_column=Column(no_wrap=True))


def in_words(seconds: float) -> str:
    """A time: `40 s`, `2 min 45 s`, `12 min`, `3 h 30 min`; `0 s` below 0."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(whole / 60), 60)
    parts = [f"{hours} h"] * (hours > 0) + [f"{minutes} min"] * (minutes > 0)
    return " ".join(parts)
