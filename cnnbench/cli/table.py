"""One table, four faces: a terminal's, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cnnbench import records
from cnnbench.types import CnnbenchError

Format = Literal["table", "markdown", "csv", "json"]


@dataclass(frozen=True)
class Column:
    """A key of the rows, its heading with unit, and how a person wants to read its values."""

    key: str
    heading: str
    show: Callable[[Any], str] = str
    right: bool = False


def render(title: str, columns: list[Column], rows: list[dict[str, Any]], format: Format) -> None:
    """Print `rows`: headings and rounded values for people, keys and full precision for programs.

    A missing value is an empty cell in CSV, null in JSON and a dash elsewhere.
    """
    if format == "json":
        print(json.dumps(rows, indent=2))
    elif format == "csv":
        print(_csv(columns, rows), end="")
    elif format == "markdown":
        print(_markdown(columns, rows))
    else:
        _terminal(title, columns, rows)


def write(path: Path, columns: list[Column], rows: list[dict[str, Any]]) -> None:
    """Write `rows` to a file, by its suffix: .csv, .json, .parquet (keys, full precision) or .md (for people).

    Raises:
        CnnbenchError: The suffix is another one, or the file cannot be written (exit 2).
    """
    texts = {".csv": _csv, ".md": _markdown, ".json": _json}
    if path.suffix not in (*texts, ".parquet"):
        raise CnnbenchError(f"cannot write {path}: expected a name that ends in .csv, .json, .md or .parquet")
    with records.replacing(path) as partial:
        if path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(plain(columns, rows)), partial)
        else:
            partial.write_text(texts[path.suffix](columns, rows).rstrip("\n") + "\n")


def _json(columns: list[Column], rows: list[dict[str, Any]]) -> str:
    return json.dumps(plain(columns, rows), indent=2)


def plain(columns: list[Column], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the keys of all columns and no others; a missing value is None."""
    return [{column.key: row.get(column.key) for column in columns} for row in rows]


def cells(columns: list[Column], row: dict[str, Any]) -> list[str]:
    """What a person reads in a row: a dash for a missing value."""
    return ["-" if row.get(column.key) is None else column.show(row[column.key]) for column in columns]


def _csv(columns: list[Column], rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [column.key for column in columns], lineterminator="\n")
    writer.writeheader()
    for row in plain(columns, rows):  # a list as JSON, which other languages read too
        writer.writerow({key: json.dumps(value) if isinstance(value, list) else value for key, value in row.items()})
    return text.getvalue()


def _markdown(columns: list[Column], rows: list[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(column.heading for column in columns) + " |"]
    lines.append("| " + " | ".join("---:" if column.right else "---" for column in columns) + " |")
    for row in rows:
        escaped = [cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells(columns, row)]
        lines.append("| " + " | ".join(escaped) + " |")
    return "\n".join(lines)


def _terminal(title: str, columns: list[Column], rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column.heading, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in cells(columns, row)))
    if Console().is_terminal:
        Console().print(table)
    else:  # a file or a pipe has no width to fit: one row stays one line
        text = io.StringIO()
        Console(file=text, width=200).print(table)
        print("\n".join(line.rstrip() for line in text.getvalue().splitlines()))
