"""Tables in a terminal: no figure is broken, what does not fit is named, and every heading is one line."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cnnbench.cli.layout import lines, prose
from cnnbench.cli.table import render
from cnnbench.tables.columns import Column
from cnnbench.types import printable

COLUMNS = [
    Column("name", "network"),
    Column("macs", "multiply-adds for one image", "{:,}".format, right=True, short="MACs", priority=3),
    Column("params", "parameters", "{:,}".format, right=True, priority=2),
    Column("bytes", "ONNX bytes", "{:,}".format, right=True, priority=2),
    Column("accuracy", "accuracy", "{:.2f}".format, unit="%", right=True, priority=9),
    Column("why", "why", priority=4),
]
ROWS: list[dict[str, Any]] = [
    {"name": "lenet5", "macs": 416_520, "params": 61_706, "bytes": 250_558, "accuracy": 98.33, "why": "cheapest"},
    {"name": "resnet20", "macs": 30_821_248, "params": 269_434, "bytes": None, "accuracy": 9.5, "why": "a " * 30},
]
FIGURES = ["416,520", "61,706", "250,558", "98.33", "30,821,248", "269,434", "9.50"]


def test_without_a_width_a_row_is_a_line_and_columns_are_aligned() -> None:
    assert lines(COLUMNS, ROWS, width=None)[:3] == [
        "network         MACs  parameters  ONNX bytes  accuracy, %  why",
        "lenet5       416,520      61,706     250,558        98.33  cheapest",
        f"resnet20  30,821,248     269,434           -         9.50  {'a ' * 29}a",
    ]
    assert lines(COLUMNS, ROWS, width=None)[3:] == ["MACs: multiply-adds for one image"]


@pytest.mark.parametrize("width", range(20, 110, 3))
@pytest.mark.parametrize("shown", ["fit", "all"])
def test_no_line_is_longer_than_the_terminal_and_no_figure_broken(shown: Any, width: int) -> None:
    text = lines(COLUMNS, ROWS, width=width, shown=shown)
    assert max(map(len, text)) <= max(width, len("resnet20") + 2 + 24)
    table = text[: next((place for place, line in enumerate(text) if re.match("not shown: |MACs: ", line)), None)]
    found = re.findall(r"(?<!\w)[\d,.]{2,}", "\n".join(table))
    assert set(found) <= set(FIGURES)
    assert table[0].startswith("network")


def test_columns_are_left_out_by_their_priority_of_equals_the_last_and_named() -> None:
    by_width = {}
    for width in (90, 80, 66, 40):
        text = lines(COLUMNS, ROWS, width=width, shown="fit")
        start = next((place for place, line in enumerate(text) if line.startswith("not shown: ")), -1)
        by_width[width] = "".join(text[start:]).replace("  ", " ")
    assert by_width[90].startswith("MACs: ")
    assert by_width[80] == "not shown: ONNX bytes (--columns all)"
    assert by_width[66] == "not shown: parameters; ONNX bytes (--columns all)"
    assert by_width[40] == "not shown: MACs; parameters; ONNX bytes; why (--columns all)"


def test_all_columns_stand_in_blocks_that_begin_with_the_name() -> None:
    text = lines(COLUMNS, ROWS, width=40, shown="all")
    assert [line.split()[0] for line in text if line.startswith(("network", "lenet5"))] == ["network", "lenet5"] * 3
    assert all(any(figure in line for line in text) for figure in FIGURES)
    assert not [line for line in text if line.startswith("not shown")]


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=9), max_size=12))
@example(["\u17b4"])  # no control character, and not seen
def test_a_text_is_wrapped_between_words_and_none_is_lost(words: list[str]) -> None:
    columns = [Column("n", "n"), Column("text", "text")]
    text = lines(columns, [{"n": "x", "text": " ".join(words)}], width=30, shown="fit")
    assert " ".join(text[1:]).split() == ["x", *map(printable, words)]


def test_on_a_pipe_there_is_no_width_unless_columns_says_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    render(COLUMNS, ROWS, title="Networks", shown="fit")
    assert "not shown" not in (printed := capsys.readouterr().out)
    assert printed.isascii()
    monkeypatch.setenv("COLUMNS", "40")
    render(COLUMNS, ROWS, title="Networks", shown="fit")
    assert "not shown: MACs; parameters; ONNX bytes;\n  why" in capsys.readouterr().out


def test_a_sentence_is_broken_between_words_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = "  mnist5k_lenet5 fp32: keeps the limits with 98.20 %, but has 24.7x the MACs (10,301,952)"
    monkeypatch.delenv("COLUMNS", raising=False)
    assert prose(sentence) == sentence
    monkeypatch.setenv("COLUMNS", "40")
    told = prose(sentence).splitlines()
    assert [line.strip() for line in told] == [
        *("mnist5k_lenet5 fp32: keeps the limits", "with 98.20 %, but has 24.7x the MACs", "(10,301,952)")
    ]
    assert all(line.startswith("    ") for line in told[1:])
