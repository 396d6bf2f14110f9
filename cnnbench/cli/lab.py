"""`lab`: lessons that compute, draw and check why networks behave as they do."""

from __future__ import annotations

import json as json_module
import time
from pathlib import Path
from typing import Any

from cnnbench import pictures
from cnnbench.cli.table import render
from cnnbench.lab import Lesson, Numbers, lesson
from cnnbench.page.page import Section, Table, write
from cnnbench.registry import Entry
from cnnbench.tables.columns import Column
from cnnbench.types import CnnbenchError, Exit


def lab(
    name: str | None = None, all: bool = False, html: str | None = None, out: str = "lab", json: bool = False
) -> int:
    """Run a lesson: print its numbers, check its claims, draw its figure. Exit 1 if a claim does not hold.

    Args:
        name: The lesson; without one, and without --all, they are listed.
        all: Run every lesson, in the order of the course.
        html: Write a self-contained page of the lessons that were run to this file.
        out: Folder of the figures, <name>.svg and <name>.png.
        json: Print one JSON document.
    """
    course = sorted(lesson.entries.values(), key=lambda entry: entry.declared.get("order", 99))
    if name is not None and all:
        raise CnnbenchError("lab takes the name of a lesson or --all, not both")
    if name is None and not all:
        if html is not None:
            raise CnnbenchError("lab --html needs the name of a lesson, or --all")
        _list(course, json)
        return Exit.OK
    if html is not None and Path(html).is_dir():  # said before minutes are spent
        raise CnnbenchError(f"cannot write {html}: it is a folder; expected the name of a file")
    chosen = course if all else [lesson[str(name)]]
    found: dict[str, Lesson] = {}
    for entry in chosen:
        start = time.perf_counter()
        found[entry.name] = entry.load()()
        drawn = pictures.write(found[entry.name].figure, Path(out) / entry.name)
        if not json:
            _print(entry.name, found[entry.name], drawn, time.perf_counter() - start)
    if html is not None:
        sections = [_section(title, result) for title, result in found.items()]
        write(Path(html), *_headings(found, every=all), sections)
        if not json:
            print(f"page: {html}")
    if json:
        documents = [_plain(title, result) for title, result in found.items()]
        print(json_module.dumps(documents if all else documents[0], indent=2))
    holds = [held for result in found.values() for _, held in result.claims]
    if all and not json:
        print(f"{sum(holds)} of {len(holds)} claims hold")
    return Exit.OK if sum(holds) == len(holds) else Exit.BUG


def _headings(found: dict[str, Lesson], every: bool) -> tuple[str, str]:
    if not every:
        return next(
            iter(found.values())
        ).title, "One lesson of `cnnbench lab`. Every number was computed for this page."
    return (
        "From the fully connected layer to Inception",
        "The whole course of `cnnbench lab`: what a convolution is, what it saves, and why deeper networks need ways "
        "around their layers. Every number was computed for this page; each claim was checked.",
    )


def _list(course: list[Entry], json: bool) -> None:
    rows = [
        {"lesson": entry.name, "trains": entry.declared.get("trains", False), "summary": entry.summary}
        for entry in course
    ]
    columns = [
        Column("lesson", "lesson"),
        Column("trains", "time", lambda trains: "up to 2 min" if trains else "seconds"),
        Column("summary", "what it shows"),
    ]
    title = "Lessons: `cnnbench lab NAME`, or --all --html course.html"
    render(columns, rows, title=title, format="json" if json else "table")


def _print(name: str, result: Lesson, drawn: list[Path], seconds: float) -> None:
    print(f"\n{result.title}\n{'=' * len(result.title)}\n{result.text}\n")
    for numbers in result.numbers:
        table = _table(numbers)
        render(table.columns, table.rows, title=table.title)
    for claim, held in result.claims:
        print(f"{'holds' if held else 'DOES NOT HOLD'}: {claim}")
    print(f"figure: {' and '.join(str(path) for path in drawn)}  ({name}, {seconds:.1f} s)")


def _table(numbers: Numbers) -> Table:
    """Columns from the keys of the rows, in order."""
    keys = list(dict.fromkeys(key for row in numbers.rows for key in row))
    columns = []
    for key in keys:
        values = [row[key] for row in numbers.rows if row.get(key) is not None]
        counted = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        columns.append(Column(key, key, _shown, right=counted))
    return Table(numbers.title, columns, numbers.rows)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _section(name: str, result: Lesson) -> Section:
    return Section(
        result.title,
        [result.text, f"Run it: cnnbench lab {name}"],
        [*result.claims],
        {result.shown: result.figure},
        [_table(numbers) for numbers in result.numbers],
    )


def _plain(name: str, result: Lesson) -> dict[str, Any]:
    return {
        "lesson": name,
        "title": result.title,
        "claims": [{"claim": claim, "holds": bool(held)} for claim, held in result.claims],
        "numbers": [{"title": numbers.title, "rows": numbers.rows} for numbers in result.numbers],
    }
