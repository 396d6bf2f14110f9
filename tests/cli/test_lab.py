"""`lab`: the course on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from isolated import TORCH, cnnbench_without

from cnnbench import pictures
from cnnbench.__main__ import main
from cnnbench.lab import Claim, Lesson, Numbers, lesson
from cnnbench.registry import Entry

Capture = pytest.CaptureFixture[str]

COURSE = [
    "fc-to-conv",
    "shapes",
    "receptive-field",
    "one-by-one",
    "pooling",
    "backprop",
    "bottleneck",
    "losses",
    "filters",
    "depth",
    "translation",
]


def result(title: str, *claims: tuple[str, bool]) -> Lesson:
    figure, (axes,) = pictures.new(3, 2)
    axes.plot([0, 1])
    numbers = [Numbers("Some numbers", [{"word": "x", "count": 1_234_567, "share": 0.123456}, {"word": "y"}])]
    return Lesson(title, f"All about {title}.", [Claim(*claim) for claim in claims], numbers, figure, "A line")


def true() -> Lesson:
    return result("Truth", ("one is one", True), ("two is two", True))


def false() -> Lesson:
    return result("Falsehood", ("one is one", True), ("one is two", False))


def broken() -> Lesson:
    raise ZeroDivisionError("no lesson learnt")


ran: list[str] = []


def first() -> Lesson:
    ran.append("first")
    return result("First", ("one is one", True))


def second() -> Lesson:
    ran.append("second")
    return result("Second", ("two is two", True))


def enter(monkeypatch: pytest.MonkeyPatch, *functions: Any) -> None:
    """Make `functions` the course, in their order, although their names sort otherwise."""
    entries = {
        function.__name__: Entry(function.__name__, __name__, function.__name__, "What for", {"order": place})
        for place, function in enumerate(functions)
    }
    monkeypatch.setitem(vars(lesson), "entries", dict(sorted(entries.items())))


def test_lessons_are_listed_in_the_order_of_the_course(capsys: Capture) -> None:
    assert main(["lab", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["lesson"] for row in rows] == COURSE
    assert {row["lesson"] for row in rows if row["trains"]} == {"depth", "translation"}
    assert all(row["summary"] for row in rows)
    assert main(["lab"]) == 0
    shown = capsys.readouterr().out
    places = [shown.index(f"\n{name} ") for name in COURSE]
    assert places == sorted(places)
    assert shown.count("up to 2 min") == 2


def test_listing_needs_no_torch() -> None:
    done = cnnbench_without((*TORCH, "onnx", "onnxruntime", "matplotlib"), "lab")
    assert (done.returncode, done.stderr) == (0, "next: cnnbench lab fc-to-conv\n")
    assert all(name in done.stdout for name in COURSE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["loses"], "unknown lesson 'loses': did you mean losses?"),
        (["receptive_field"], "did you mean receptive-field?"),
        (["losses", "--all"], "the name of a lesson or --all, not both"),
        (["--html", "page.html"], "lab --html needs the name of a lesson, or --all"),
    ],
)
def test_what_is_no_lesson_is_refused_in_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["lab", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err
    assert len(printed.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_lesson_leaves_a_page_and_its_figure_twice(tmp_path: Path, capsys: Capture) -> None:
    assert main(["lab", "losses", "--html", "page.html", "--out", "figures"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("\nholds: ") == 5
    assert "DOES NOT HOLD" not in shown
    assert shown.splitlines()[-1] == "page: page.html"
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["figures/losses.png", "figures/losses.svg", "page.html"]
    text = (tmp_path / "page.html").read_text()
    assert text.count("<h2>") == text.count('class="drawing"') == 1
    assert text.count('"holds"') == 5
    assert "Run it: <code>cnnbench lab losses</code>" in text


@pytest.mark.usefixtures("sketched")
def test_figures_are_kept_in_a_folder_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(monkeypatch, true)
    assert main(["lab", "true"]) == 0
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == ["lab/true.png", "lab/true.svg"]


@pytest.mark.usefixtures("sketched")
def test_json_has_claims_and_numbers_and_nothing_else_is_printed(capsys: Capture) -> None:
    assert main(["lab", "losses", "--format", "json", "--html", "page.html"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"lesson", "title", "claims", "numbers"}
    assert document["lesson"] == "losses"
    assert [claim["holds"] for claim in document["claims"]] == [True] * 5
    (numbers,) = document["numbers"]
    losses = [row["loss"] for row in numbers["rows"]]
    assert len(losses) == 4
    assert max(losses) - min(losses) < 1e-12


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize(
    "arguments", [["false"], ["--all"], ["false", "--format=json"], ["--all", "--format=json"]], ids=" ".join
)
def test_a_claim_that_does_not_hold_fails_the_lesson(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    enter(monkeypatch, true, false)
    assert main(["lab", *arguments, "--html", "page.html"]) == 1
    shown = capsys.readouterr().out
    if "--format=json" in arguments:
        claims = json.loads(shown)[1]["claims"] if "--all" in arguments else json.loads(shown)["claims"]
        assert claims == [{"claim": "one is one", "holds": True}, {"claim": "one is two", "holds": False}]
    else:
        assert "\nDOES NOT HOLD: one is two\n" in shown
        assert "\nholds: one is one\n" in shown
        assert ("3 of 4 claims hold" in shown) == ("--all" in arguments)
    assert (tmp_path / "page.html").read_text().count("DOES NOT HOLD") == 1, "the page says so, too"


@pytest.mark.usefixtures("sketched")
def test_all_lessons_run_in_the_order_of_the_course(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    enter(monkeypatch, second, first)
    ran.clear()
    assert main(["lab", "--all", "--html", "course.html", "--out", "figures"]) == 0
    assert ran == ["second", "first"]
    shown = capsys.readouterr().out
    assert -1 < shown.index("\nSecond\n======\n") < shown.index("\nFirst\n=====\n")
    assert "2 of 2 claims hold" in shown
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "first.png",
        "first.svg",
        "second.png",
        "second.svg",
    }
    text = (tmp_path / "course.html").read_text()
    assert "From the fully connected layer to Inception" in text
    assert text.index("<h2>Second") < text.index("<h2>First")
    ran.clear()
    assert main(["lab", "--all", "--format", "json"]) == 0
    assert [document["lesson"] for document in json.loads(capsys.readouterr().out)] == ran == ["second", "first"]


@pytest.mark.usefixtures("sketched")
def test_numbers_are_shown_to_be_read(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    enter(monkeypatch, true)
    assert main(["lab", "true"]) == 0
    shown = capsys.readouterr().out
    assert "1,234,567" in shown
    assert "0.1235" in shown
    assert main(["lab", "true", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["numbers"][0]["rows"]
    assert rows == [{"word": "x", "count": 1_234_567, "share": 0.123456}, {"word": "y"}]


@pytest.mark.usefixtures("sketched")
def test_a_lesson_that_breaks_leaves_the_last_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    enter(monkeypatch, true, broken)
    page = tmp_path / "page.html"
    page.write_text("the last one")
    assert main(["lab", "--all", "--html", str(page)]) == 1
    printed = capsys.readouterr()
    assert "unexpected ZeroDivisionError" in printed.err
    assert printed.err.splitlines()[:2] == ["[1/2] true", "[2/2] broken"]
    assert len(printed.err.splitlines()) == 3
    assert page.read_text() == "the last one"


@pytest.mark.usefixtures("sketched")
def test_a_folder_that_cannot_be_made_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    enter(monkeypatch, true)
    (tmp_path / "file").write_text("in the way")
    assert main(["lab", "true", "--out", "file/figures"]) == 2
    assert "cannot write" in capsys.readouterr().err
