"""Plain text of a table at a given width: which columns fit, and one line per row. No borders, no colours."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from cnnbench.tables.columns import Column, texts
from cnnbench.types import printable

Shown = Literal["fit", "all"]
"""Columns of a table: those that fit the width, or all, in several blocks where they do not."""
GAP = "  "
LEAST = 24
"""Characters to which a text is wrapped at least; figures and names are never broken."""


def width() -> int | None:
    """Characters of a line: COLUMNS, else the terminal's; None in a file or a pipe, where a row stays one line."""
    if os.environ.get("COLUMNS", "").isdecimal() or sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    return None


def prose(text: str) -> str:
    """A sentence, on a terminal in lines of whole words; those after the first are indented by two more."""
    return "\n".join(_folded(text, width()))


def _folded(text: str, size: int | None) -> list[str]:
    """A sentence in lines of whole words."""
    if size is None:
        return [text]
    indent = text[: len(text) - len(text.lstrip())] + "  "
    return textwrap.wrap(text, size, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def lines(columns: Sequence[Column], rows: Sequence[object], *, width: int | None, shown: Shown = "all") -> list[str]:
    """The table as lines, headings first, then what they mean and which columns were left out.

    Args:
        columns: Under their short headings; the first names the row and is never left out.
        rows: Frozen dataclasses, records or mappings.
        width: Characters of a line; None for no limit.
        shown: "fit" leaves out columns that do not fit, those of the lowest priority first, of equals the last.
    """
    cells = [[printable(cell).replace("\n", " ") for cell in texts(columns, row)] for row in rows]
    tables = [
        _Cells(column, printable(column.short or column.title), tuple(line[place] for line in cells))
        for place, column in enumerate(columns)
    ]
    if width is None:
        blocks, left_out = [tables], []
    elif shown == "fit":
        kept = _fitting(tables, width)
        blocks, left_out = [kept], [each.title for each in tables if each not in kept]
    else:
        blocks, left_out = list(_blocks(tables, width)), []
    text = [line for block in blocks for line in ["", *_printed(block, width)]][1:]
    explained = dict.fromkeys(each.column for block in blocks for each in block if each.column.short)
    notes = [f"{column.short}: {column.title}" for column in explained if not column.title.endswith(column.short)]
    notes += [f"not shown: {'; '.join(left_out)} (--columns all)"] * bool(left_out)
    return [*text, *(line for note in notes for line in _folded(note, width))]


@dataclass(frozen=True, eq=False)
class _Cells:
    """A column with its cells as text."""

    column: Column
    title: str
    cells: Sequence[str]

    @cached_property
    def natural(self) -> int:
        """Characters of the widest cell."""
        return max(map(_length, [self.title, *self.cells]))

    @cached_property
    def least(self) -> int:
        """Characters that it needs: a text may be wrapped between words, a number may not."""
        if self.column.right:
            return self.natural
        words = [word for cell in self.cells for word in cell.split()]
        return min(self.natural, max([LEAST, *map(_length, [self.title, *words])]))


def _length(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _least(block: Sequence[_Cells]) -> int:
    return sum(each.least for each in block) + len(GAP) * (len(block) - 1)


def _fitting(tables: Sequence[_Cells], width: int) -> list[_Cells]:
    """All columns, less as many as it takes; the first stays."""
    kept = list(tables)
    while len(kept) > 1 and _least(kept) > width:
        kept.remove(min(kept[:0:-1], key=lambda each: each.column.priority))
    return kept


def _blocks(tables: Sequence[_Cells], width: int) -> Iterator[list[_Cells]]:
    """The columns in blocks that fit, each of which begins with the first column."""
    first, *others = tables
    block = [first]
    for each in others:
        if len(block) > 1 and _least([*block, each]) > width:
            yield block
            block = [first]
        block.append(each)
    yield block


def _printed(block: Sequence[_Cells], width: int | None) -> Iterator[str]:
    widths = [each.natural for each in block]
    over = 0 if width is None else sum(widths) + len(GAP) * (len(block) - 1) - width
    for place in sorted(range(len(block)), key=lambda place: block[place].least - widths[place]):
        cut = min(max(over, 0), widths[place] - block[place].least)
        widths[place], over = widths[place] - cut, over - cut
    yield from _row(block, [each.title for each in block], widths)
    for cells in zip(*(each.cells for each in block), strict=True):
        yield from _row(block, cells, widths)


def _row(block: Sequence[_Cells], cells: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """A row of one line, or of more where a text was wrapped between words."""
    wrapped = [_wrapped(cell, size) for cell, size in zip(cells, widths, strict=True)]
    for number in range(max(map(len, wrapped))):
        parts = [parts[number] if number < len(parts) else "" for parts in wrapped]
        padded = (
            _pad(part, size, right=each.column.right) for each, part, size in zip(block, parts, widths, strict=True)
        )
        yield GAP.join(padded).rstrip()


def _wrapped(text: str, size: int) -> list[str]:
    if _length(text) <= size:
        return [text]
    found = [""]
    for word in text.split():
        longer = f"{found[-1]} {word}".strip()
        if _length(longer) <= size:
            found[-1] = longer
        else:
            found.append(word)
    return [line for line in found if line]


def _pad(text: str, size: int, *, right: bool) -> str:
    space = " " * (size - _length(text))
    return space + text if right else text + space
