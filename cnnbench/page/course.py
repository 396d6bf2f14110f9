"""The page and the tables of `lab`: one lesson, or the whole course."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cnnbench.lab import Lesson, Numbers
from cnnbench.page.section import Block, Page, Section, Table, drawing
from cnnbench.tables.columns import Column


def course_page(lessons: Mapping[str, Lesson]) -> Page:
    """The page of the given lessons, by name; of more than one it is the course."""
    sections = [_section(name, lesson) for name, lesson in lessons.items()]
    if len(lessons) == 1:
        lead = "One lesson of `cnnbench lab`. Every number was computed for this page."
        return Page("lab", sections[0].heading, lead, sections=[replace(sections[0], heading="What it shows")])
    lead = (
        "The lessons of `cnnbench lab`: what a convolution is, what it saves, and why deeper networks need ways around "
        "their layers. Every number was computed for this page; every claim was checked."
    )
    return Page("lab", "From the fully connected layer to Inception", lead, sections=sections)


def numbers_table(numbers: Numbers) -> Table:
    """A table of a lesson; its columns are the keys of the rows, in order."""
    columns = []
    for key in dict.fromkeys(key for row in numbers.rows for key in row):
        values = [row[key] for row in numbers.rows if row.get(key) is not None]
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        columns.append(Column(key, key, _shown, right=numeric))
    return Table(columns, numbers.rows, numbers.title)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _section(name: str, lesson: Lesson) -> Section:
    blocks = [
        Block(notes=[f"Run it: `cnnbench lab {name}`"], claims=lesson.claims),
        Block(pictures=[drawing(lesson.alt_text, lesson.figure)], layout="wide"),
        *(Block(table=numbers_table(numbers)) for numbers in lesson.numbers),
    ]
    return Section(name, lesson.title, lesson.text, blocks)
