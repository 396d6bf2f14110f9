"""One table, four faces: rounded for people, exact for programs."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.report import table
from cnnbench.report.table import Column, render

COLUMNS = [
    Column("name", "the name"),
    Column("share", "share %", lambda value: f"{value:.1%}".rstrip("%"), right=True),
    Column("count", "images", "{:,}".format, right=True),
]
ROWS: list[dict[str, Any]] = [
    {"name": "first", "share": 1 / 3, "count": 12_345, "hidden": [1, 2]},
    {"name": "second", "share": None, "count": 0},
]
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"))


def printed(capsys: pytest.CaptureFixture[str], format: Any, rows: list[dict[str, Any]] = ROWS) -> str:
    render("Title", COLUMNS, rows, format)
    return capsys.readouterr().out


def test_json_holds_every_value_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(printed(capsys, "json")) == ROWS


def test_csv_holds_the_columns_in_full_and_leaves_what_is_missing_empty(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(printed(capsys, "csv"))))
    assert [list(row) for row in rows] == [["name", "share", "count"]] * 2
    assert (float(rows[0]["share"]), rows[1]["share"], rows[1]["count"]) == (1 / 3, "", "0")


@given(st.lists(st.tuples(texts, texts), max_size=5))
def test_any_text_survives_csv(pairs: list[tuple[str, str]]) -> None:
    columns = [Column("a", "A"), Column("b", "B")]
    text = table._csv(columns, [{"a": a, "b": b} for a, b in pairs])
    assert [(row["a"], row["b"]) for row in csv.DictReader(io.StringIO(text, newline=""))] == pairs


def test_markdown_is_rounded_and_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "markdown").splitlines() == [
        "| the name | share % | images |",
        "| --- | ---: | ---: |",
        "| first | 33.3 | 12,345 |",
        "| second | - | 0 |",
    ]


def test_a_bar_or_a_line_break_does_not_break_a_markdown_row(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "markdown", [{"name": "a|b\nc", "share": 0, "count": 1}]).splitlines()
    assert lines[2:] == ["| a\\|b<br>c | 0.0 | 1 |"]


def test_into_a_pipe_a_row_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "table").splitlines()
    assert "Title" in lines[0]
    (line,) = [line for line in lines if "first" in line]
    assert "33.3" in line
    assert "12,345" in line


def test_names_in_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    assert "[red]x[/red]" in printed(capsys, "table", [{"name": "[red]x[/red]", "share": 0, "count": 1}])


def test_no_rows_are_an_empty_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(printed(capsys, "json", [])) == []
    assert printed(capsys, "csv", []) == "name,share,count\n"
