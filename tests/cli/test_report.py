"""`report` says where its page is."""

import json
from pathlib import Path

import pytest
from builders import run_record, write_run

from cnnbench.__main__ import main


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.slow
def test_the_page_is_named_in_words_or_as_json(format: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(run_record())
    assert main(["report", "runs", "--out", "page.html", "--format", format]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"page": "page.html"} if format == "json" else printed == "page: page.html\n"
    assert Path("page.html").is_file()


def test_an_old_flag_is_refused_with_one_that_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    write_run(run_record())
    assert main(["report", "runs", "--json"]) == 2
    assert "--json is now --format json" in capsys.readouterr().err
    assert main(["report", "runs", "--format", "json"]) == 0


@pytest.mark.parametrize("target", ["0", "1", "100%"])
def test_a_target_that_says_nothing_is_refused(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(run_record())
    assert main(["report", "runs", "--target-accuracy", target]) == 2
    assert "--target-accuracy" in capsys.readouterr().err
    assert not Path("report.html").exists()


def test_a_page_replaces_no_file_of_another_kind(capsys: pytest.CaptureFixture[str]) -> None:
    Path("table.csv").write_text("kept")
    assert main(["report", "runs", "--out", "table.csv"]) == 2
    assert "cannot write a page to table.csv: expected a name that ends in .html" in capsys.readouterr().err
    assert Path("table.csv").read_text() == "kept"
