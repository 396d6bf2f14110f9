"""One table, four faces: rounded for people, exact for programs."""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.cli.table import render, write
from cnnbench.tables.columns import Column, plain
from cnnbench.types import CnnbenchError, Exit

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
    render(COLUMNS, rows, title="Title", format=format)
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
    with TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write(path, columns=columns, rows=[{"a": a, "b": b} for a, b in pairs])
        with path.open(newline="") as file:
            assert [(row["a"], row["b"]) for row in csv.DictReader(file)] == pairs


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


def test_plain_rows_have_the_keys_of_the_columns_in_their_order() -> None:
    assert plain(COLUMNS, [{"hidden": 1, "count": 0, "name": "x"}]) == [{"name": "x", "share": None, "count": 0}]
    assert list(plain(COLUMNS, ROWS)[1]) == ["name", "share", "count"]


def test_a_list_in_csv_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    values = ['a "quoted", word', "it's"]
    render([Column("values", "values")], [{"values": values}], format="csv")
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert json.loads(row["values"]) == values


PLAIN = [{"name": "first", "share": 1 / 3, "count": 12_345}, {"name": "second", "share": None, "count": 0}]


def test_files_hold_the_columns_in_full(tmp_path: Path) -> None:
    for suffix in (".csv", ".json", ".parquet"):
        write(tmp_path / f"table{suffix}", columns=COLUMNS, rows=ROWS)
    assert json.loads((tmp_path / "table.json").read_text()) == PLAIN
    assert pq.read_table(tmp_path / "table.parquet").to_pylist() == PLAIN
    read = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [(row["name"], row["share"], row["count"]) for row in read] == [
        ("first", str(1 / 3), "12345"),
        ("second", "", "0"),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv", "table.json", "table.parquet"]


def test_a_markdown_file_is_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "table.md", columns=COLUMNS, rows=ROWS)
    assert (tmp_path / "table.md").read_text() == printed(capsys, "markdown")


@pytest.mark.parametrize("suffix", [".csv", ".json", ".md", ".parquet"])
def test_a_file_of_no_rows_is_a_table_without_rows(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"table{suffix}"
    write(path, columns=COLUMNS, rows=[])
    if suffix == ".parquet":
        assert pq.read_table(path).num_rows == 0
    else:
        assert path.read_text().endswith("\n")


@pytest.mark.parametrize("name", ["table.txt", "table", "table.CSV", ".csv"])
def test_an_unknown_suffix_is_refused_and_nothing_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(CnnbenchError, match=r"ends in \.csv, \.json, \.md or \.parquet") as caught:
        write(tmp_path / name, columns=COLUMNS, rows=ROWS)
    assert caught.value.code == Exit.USAGE
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_stays_whole_where_writing_stops_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(table: object, path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    path = tmp_path / "table.parquet"
    path.write_text("older")
    monkeypatch.setattr(pq, "write_table", stop)
    with pytest.raises(KeyboardInterrupt):
        write(path, columns=COLUMNS, rows=ROWS)
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


@dataclass(frozen=True)
class Figures:
    name: str
    share: float | None
    count: int
    hidden: tuple[int, ...] = ()


def test_rows_may_be_dataclasses_of_which_json_has_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Figures("first", 1 / 3, 12_345, (1, 2)), Figures("second", None, 0)]
    render(COLUMNS, rows, format="json")
    assert json.loads(capsys.readouterr().out) == [
        {"name": "first", "share": 1 / 3, "count": 12_345, "hidden": [1, 2]},
        {"name": "second", "share": None, "count": 0, "hidden": []},
    ]
    render(COLUMNS, rows, format="markdown")
    assert capsys.readouterr().out == printed(capsys, "markdown")


def test_a_unit_stands_behind_its_heading(capsys: pytest.CaptureFixture[str]) -> None:
    render([Column("seconds", "training", unit="s")], [{"seconds": 1}], format="markdown")
    assert capsys.readouterr().out.startswith("| training, s |\n")


@pytest.mark.parametrize("format", ["table", "markdown"])
def test_no_text_colours_a_terminal(capsys: pytest.CaptureFixture[str], format: Any) -> None:
    columns = [Column("name", "the \x1b[31mname")]
    render(columns, [{"name": "\x1b[31mred"}], title="[red]\x1b[31mTitle", format=format)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b[31mred" in out
    assert "\\x1b[31mname" in out
