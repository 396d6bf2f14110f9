"""A table of path and label, and of split and group if they are known: CSV, TSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import io
import json
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from cnnbench.datasets.tree import ROLES, File, Found, Layout
from cnnbench.types import CnnbenchError, Exit, listed, one_line

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")
PATH_COLUMNS = ("path", "file_name")
"""The second is Hugging Face's, in the metadata of an imagefolder."""
COLUMNS = (*PATH_COLUMNS, "label", "split", "group")
METADATA = tuple(f"metadata{suffix}" for suffix in (".csv", ".parquet", ".jsonl"))
EXPECTED = "a table with the columns path and label, and split and group if they are known"
Row = Mapping[str, str]
"""Values by column; what a row leaves out is not there."""
Parsed = tuple[list[str], list[Mapping[str, Any]]]
"""Names of the columns, and the rows."""


def is_table(name: str) -> bool:
    """Whether a file is a table by its name."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def read_table(file: File) -> list[Row]:
    """The rows of a table, each with path and label as text, and with split and group where it says.

    Raises:
        CnnbenchError: It cannot be read, a column is missing or there twice, a value is neither text nor a whole
            number, a path can be no file's, or a row has no path or no label (exit 3).
    """
    columns, rows = _parsed(file)
    if fault := _columns_fault(columns):
        raise CnnbenchError(f"{file.name} {fault}; expected {EXPECTED}", Exit.DATA)
    names = {name: key for name in columns if (key := _key(name)) in COLUMNS}
    path = next(column for column in PATH_COLUMNS if column in names.values())
    table = [
        _row(file, number, {key: row.get(name) for name, key in names.items()}, path)
        for number, row in enumerate(rows, 1)
    ]
    if lacking := [number for number, row in enumerate(table, 1) if not {"path", "label"} <= row.keys()]:
        told = f"{file.name} has {len(lacking):,} rows without path or label: {listed(lacking, 10)}"
        raise CnnbenchError(told, Exit.DATA)
    return table


@dataclass(frozen=True)
class Fault:
    """Why a file that is a table by its name does not list images."""

    reason: str
    meant: bool
    """Whether it was to list images, as far as one can tell: it cannot be read, or its columns cannot be told apart."""


def fault_of(file: File) -> Fault | None:
    """Why a table does not list images; None where it has the columns of one that does."""
    try:
        columns, _ = _parsed(file)
    except CnnbenchError as error:
        return Fault(str(error), meant=True)
    if not (fault := _columns_fault(columns)):
        return None
    meant = {*map(_key, columns)} >= {"path", "label"} or _is_unparted(columns)
    return Fault(f"{file.name} {fault}; expected {EXPECTED}", meant)


def _key(column: str) -> str:
    """A column's name, however it is written."""
    return column.strip().lower()


def _is_unparted(columns: Sequence[str]) -> bool:
    return len(columns) == 1 and any(mark in columns[0] for mark in (",", ";", "\t", "|"))


def _columns_fault(columns: Sequence[str]) -> str:
    """What is wrong with the columns of a table; empty where nothing is."""
    have = Counter(map(_key, columns))
    if twice := [column for column in COLUMNS if have[column] > 1]:
        return f"has several columns {twice[0]}"
    if "label" in have and any(column in have for column in PATH_COLUMNS):
        return ""
    apart = ", which are not parted by commas (by tabs in .tsv)" if _is_unparted(columns) else ""
    return one_line(f"has the columns {', '.join(columns) or 'none'}{apart}")


def of_tables(tables: Sequence[tuple[File, str | None]], *, found: Callable[[str], File]) -> Layout:
    """The images that tables list, by paths relative to the table's folder.

    Args:
        tables: Each with the split of its images, where rows name none.
        found: The file at a path, which begins where the names of the tables begin.

    Raises:
        CnnbenchError: A table cannot be read, lists a file twice, names a split that is none or names it for some rows
            alone, or has a group in two splits (exit 3).
    """
    images: list[Found] = []
    for table, split in tables:
        place = PurePosixPath(table.name).parent
        for number, row in enumerate(read_table(table), 1):
            path = posixpath.normpath(place / row["path"])
            images.append(Found(found(path), row["label"], _split(table, number, row) or split, row.get("group")))
    name = tables[0][0].name
    _check_rows(name, images)
    return Layout(f"listed by {', '.join(table.name for table, _ in tables)}", tuple(images))


def _split(table: File, number: int, row: Row) -> str | None:
    given = row.get("split")
    if given is not None and given.lower() not in ROLES:
        raise CnnbenchError(
            f"{table.name}, row {number}, has the split {given!r}; expected one of {', '.join(ROLES)}", Exit.DATA
        )
    return ROLES[given.lower()] if given else None


def _check_rows(name: str, images: Sequence[Found]) -> None:
    if not images:
        raise CnnbenchError(f"{name} lists no images; expected {EXPECTED}", Exit.DATA)
    paths = Counter(image.file.name for image in images)
    if twice := [path for path, count in paths.items() if count > 1]:
        told = f"{name} lists {len(twice):,} files more than once: {listed(twice, 1)}"
        raise CnnbenchError(one_line(told), Exit.DATA)
    without = sum(image.split is None for image in images)
    if 0 < without < len(images):
        raise CnnbenchError(f"{name} names the split of some rows and not of {without:,}: name all, or none", Exit.DATA)
    splits: dict[str, set[str]] = {}
    for image in images:
        if image.group is not None and image.split is not None:
            splits.setdefault(image.group, set()).add(image.split)
    if divided := sorted(group for group, where in splits.items() if len(where) > 1):
        where = " and ".join(sorted(splits[divided[0]]))
        told = f"{name} divides {len(divided):,} groups between splits: {divided[0]} is in {where}"
        raise CnnbenchError(one_line(told), Exit.DATA)


def _row(file: File, number: int, row: Mapping[str, Any], path: str) -> Row:
    """The values of a row as text; `path` is the column of paths."""
    given = {"path": row[path], **{name: row.get(name) for name in ("label", "split", "group")}}
    texts: dict[str, str] = {}
    for name, value in given.items():
        if value is None:
            continue
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise CnnbenchError(
                f"{file.name}, row {number}: its {name} is of type {type(value).__name__}; expected text or a whole "
                "number",
                Exit.DATA,
            )
        if text := str(value).strip():
            texts[name] = text
    if not _can_be_a_path(texts.get("path", "")):
        told = f"{file.name}, row {number}: its path {texts['path']!r} cannot be the name of a file"
        raise CnnbenchError(told, Exit.DATA)
    return texts


def _can_be_a_path(text: str) -> bool:
    """Whether the operating system can be asked for a file of this name."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half of a pair of surrogates
        return False


def _parsed(file: File) -> Parsed:
    """Names of the columns, and the rows.

    Raises:
        CnnbenchError: It cannot be read (exit 3).
    """
    readers: dict[str, Callable[[bytes], Parsed]] = {
        ".parquet": _parquet,
        ".jsonl": _json_lines,
        ".csv": _csv,
        ".tsv": partial(_csv, delimiter="\t"),
    }
    try:
        with file.opened() as opened:
            return readers[PurePosixPath(file.name).suffix.lower()](opened.read())
    except UnicodeDecodeError as error:
        raise CnnbenchError(
            f"{file.name} cannot be read as a table: byte {error.start} is no UTF-8; expected {EXPECTED}, as UTF-8",
            Exit.DATA,
        ) from None
    except (OSError, ValueError, KeyError, csv.Error, RecursionError) as error:  # pyarrow's derive from these
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CnnbenchError(
            f"{file.name} cannot be read as a table: {reason}; expected {EXPECTED}", Exit.DATA
        ) from None


def _parquet(content: bytes) -> Parsed:
    import pyarrow.parquet as pq

    source = pq.ParquetFile(io.BytesIO(content))
    columns = [name for name in source.schema_arrow.names if _key(name) in COLUMNS]
    return list(source.schema_arrow.names), source.read(columns=columns).to_pylist()


def _json_lines(content: bytes) -> Parsed:
    rows = [json.loads(line) for line in content.decode("utf-8-sig").splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no object")
    return sorted({key for row in rows for key in row}), rows


def _csv(content: bytes, delimiter: str = ",") -> Parsed:
    text = io.StringIO(content.decode("utf-8-sig"), newline="")
    reader = csv.DictReader(text, delimiter=delimiter, strict=True)
    return [*(reader.fieldnames or ())], list(reader)
