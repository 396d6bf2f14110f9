"""What is being done and how much is left, on stderr: one bar on a terminal, plain lines elsewhere.

A verb opens a display; what takes long says what it does by `step`, `move` and `within`, which do nothing where no
display is open, as when Python calls it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

DRAWN = 52
"""Columns of a bar with its times; the rest is for what is being done."""

_open: list[Display] = []
"""The display that is open, if any."""


class Display:
    """Steps of which some are done. On a terminal `bar` draws them; else each is a line as it begins."""

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
            room = max(16, self.bar.console.width - DRAWN)
            text = text if len(text) <= room else f"{text[: room - 3]}..."
            self.bar.update(self.task, description=text, completed=done)

    def within(self, share: float) -> None:
        """Show that a share of the step that has begun is done, 0 to 1."""
        if self.bar is not None and self.task is not None:
            if self.total is None:
                self.bar.update(self.task, total=1, completed=share)
            else:
                self.bar.update(self.task, completed=self.begun - 1 + share)


@contextmanager
def display(total: float | None, *, begun: int = 0) -> Iterator[Display]:
    """Show progress until the block ends; what is printed on stderr meanwhile stands above the bar, which then goes.

    Args:
        total: How many steps there are; None where it is not known.
        begun: How many of them are done already.
    """
    drawn = sys.stderr and sys.stderr.isatty() and not _open
    with _bar() if drawn else nullcontext() as bar:
        shown = Display(total, bar=bar)
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
    """A bar on stderr with what is being done, the share that is done, and the time that it took and that is left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=16),
        TimeElapsedColumn(),
        _left(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=False, speed_estimate_period=3600.0
    ) as bar:
        yield bar


def _left() -> ProgressColumn:
    from rich.progress import ProgressColumn, Task
    from rich.table import Column
    from rich.text import Text

    class Left(ProgressColumn):
        """The share that is done, and about how long the rest takes at this pace; nothing where it is not known."""

        max_refresh = 0.5

        def render(self, task: Task) -> Text:
            seconds = task.time_remaining
            share = "" if task.total is None else f"{task.percentage:.0f} %"
            return Text(share if seconds is None or task.finished else f"{share}, about {in_words(seconds)} left")

    return Left(table_column=Column(no_wrap=True))


def in_words(seconds: float) -> str:
    """A time in words: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
