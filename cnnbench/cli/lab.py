"""`lab`: lessons on why networks behave as they do; claims are checked."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cnnbench import pictures, progress
from cnnbench.cli.hints import say_next
from cnnbench.cli.table import render
from cnnbench.lab import Lesson, course, lesson, run_lesson
from cnnbench.page.course import course_page, numbers_table
from cnnbench.page.write import check_place, write
from cnnbench.tables.columns import Column
from cnnbench.types import CnnbenchError, Exit


@dataclass(frozen=True)
class LessonRow:
    """A lesson as the list shows it."""

    lesson: str
    trains: bool
    summary: str


COLUMNS = (
    Column("lesson", "lesson"),
    Column("trains", "time", lambda trains: "up to 2 min" if trains else "seconds"),
    Column("summary", "what it shows"),
)


def lab(
    name: str | None = None,
    *,
    all: bool = False,
    html: str | None = None,
    out: str = "lab",
    format: Literal["text", "json"] = "text",
) -> int:
    """Run a lesson: print its numbers, check its claims, draw its figure. Exit 1 if a claim does not hold.

    Args:
        name: The lesson; without one, and without --all, they are listed.
        all: Run every lesson, in the order of the course.
        html: Write a self-contained page of the lessons that were run to this file.
        out: Folder of the figures, <name>.svg and <name>.png.
        format: How to print it.

    Examples:
        cnnbench lab
        cnnbench lab depth
        cnnbench lab --all --html course.html
    """
    if name is not None and all:
        raise CnnbenchError("lab takes the name of a lesson or --all, not both")
    if name is None and not all:
        if html is not None:
            raise CnnbenchError("lab --html needs the name of a lesson, or --all")
        _list(format)
        say_next("lab", course()[0].name, format=format)
        return Exit.OK
    if html is not None:
        check_place(html)  # before minutes are spent
    names = [entry.name for entry in course()] if all else [lesson[str(name)].name]
    lessons = {}
    for place, key in enumerate(names):
        with progress.display(len(names) if all else None, begun=place):
            progress.step(key)
            began = time.perf_counter()
            lessons[key] = run_lesson(key)
            seconds = time.perf_counter() - began
        _keep(key, lessons[key], Path(out), seconds=None if format == "json" else seconds)
    if html is not None:
        write(course_page(lessons), Path(html))
    if format == "json":
        documents = [_plain(key, result) for key, result in lessons.items()]
        print(json.dumps(documents if all else documents[0], indent=2))
    else:
        _print_end(lessons, html)
    return Exit.BUG if [name for name, result in lessons.items() if not result.holds] else Exit.OK


def _keep(name: str, result: Lesson, folder: Path, *, seconds: float | None) -> None:
    """Write the figure of a lesson, and print both, unless `seconds`, which it took, is None."""
    paths = pictures.write(result.figure, folder / name)
    if seconds is not None:
        _print(result)
        print(f"figure: {' and '.join(map(str, paths))}  ({name}, {seconds:.1f} s)")


def _print(result: Lesson) -> None:
    print(f"\n{result.title}\n{'=' * len(result.title)}\n{result.text}\n")
    for table in map(numbers_table, result.numbers):
        render(table.columns, table.rows, title=table.title)
    for claim, holds in result.claims:
        print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")


def _print_end(lessons: Mapping[str, Lesson], html: str | None) -> None:
    if html is not None:
        print(f"page: {html}")
    if len(lessons) > 1:
        verdicts = [holds for result in lessons.values() for _, holds in result.claims]
        print(f"{sum(verdicts)} of {len(verdicts)} claims hold")


def _list(format: Literal["text", "json"]) -> None:
    rows = [LessonRow(entry.name, entry.declared.get("trains", False), entry.summary) for entry in course()]
    title = "Lessons: `cnnbench lab NAME`, or --all --html course.html"
    render(COLUMNS, rows, title=title, format="json" if format == "json" else "table")


def _plain(name: str, result: Lesson) -> dict[str, Any]:
    """The JSON document of a lesson."""
    return {
        "lesson": name,
        "title": result.title,
        "claims": [{"claim": claim, "holds": bool(holds)} for claim, holds in result.claims],
        "numbers": [{"title": numbers.title, "rows": numbers.rows} for numbers in result.numbers],
    }
