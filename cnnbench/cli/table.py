"""Tables printed and written: for a terminal, as Markdown, CSV, JSON or Parquet. Columns are `tables.columns`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from cnnbench import records
from cnnbench.cli import layout
from cnnbench.tables.columns import Column, plain, texts
from cnnbench.types import CnnbenchError, printable

Format = Literal["table", "markdown", "csv", "json"]
Rows = Sequence[object]
"""Frozen dataclasses, records or mappings."""


def render(
    columns: Sequence[Column],
    rows: Rows,
    *,
    title: str = "",
    format: Format = "table",
    shown: layout.Shown = "all",
) -> None:
    """Print rows: headings and rounded values for people, keys and full precision for programs.

    JSON has every field of a row, CSV the columns. A missing value is an empty cell in CSV, null in JSON and a dash
    elsewhere. `shown` is of the table for people, which fits the terminal.
    """
    if format == "json":
        print(json.dumps([msgspec.to_builtins(row) for row in rows], indent=2))
    elif format == "csv":
        print(_csv(columns, rows), end="")
    elif format == "markdown":
        print(_markdown(columns, rows))
    else:
        text = layout.lines(columns, rows, width=layout.width(), shown=shown)
        print("\n".join([printable(title), "", *text] if title else text))


def write(path: Path, *, columns: Sequence[Column], rows: Rows) -> None:
    """Write rows to a file, by its suffix: .csv, .json, .parquet (keys, full precision) or .md (for people).

    Raises:
        CnnbenchError: The suffix is another one, or the file cannot be written (exit 2).
    """
    writers = {".csv": _csv, ".md": _markdown, ".json": _json}
    if path.suffix not in (*writers, ".parquet"):
        raise CnnbenchError(f"cannot write {path}: expected a name that ends in .csv, .json, .md or .parquet")
    with records.replacing(path) as partial:
        if path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(plain(columns, rows)), partial)
        else:
            partial.write_text(writers[path.suffix](columns, rows).rstrip("\n") + "\n")


def _json(columns: Sequence[Column], rows: Rows) -> str:
    return json.dumps(plain(columns, rows), indent=2)


def _csv(columns: Sequence[Column], rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [column.key for column in columns], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _csv_cell(value) for key, value in row.items()} for row in plain(columns, rows))
    return text.getvalue()


def _csv_cell(value: Any) -> Any:
    """A list as JSON, which other languages read too."""
    return json.dumps(value) if isinstance(value, list | tuple) else value


def _markdown(columns: Sequence[Column], rows: Rows) -> str:
    lines = ["| " + " | ".join(printable(column.title) for column in columns) + " |"]
    lines.append("| " + " | ".join("---:" if column.right else "---" for column in columns) + " |")
    for row in rows:
        escaped = [printable(cell).replace("|", "\\|").replace("\n", "<br>") for cell in texts(columns, row)]
        lines.append("| " + " | ".join(escaped) + " |")
    return "\n".join(lines)
