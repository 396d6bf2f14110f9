"""`audit`: what is printed, and the exit code that a script asks for."""

import json
from pathlib import Path

import pytest
from pages import Page
from planted import clean, faulty

from cnnbench.__main__ import main


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_every_fault_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    faulty(Path("photos"))
    assert main(["audit", "photos"]) == 0
    seen = capsys.readouterr()
    printed = seen.out + seen.err
    for words in (
        "always answering red: 61.19 % of the training images",
        "test/green/other format.bmp (test, green)",
        "one image under several labels: train/green/wrong.png (train, green), train/red/3.png (train, red)",
        "broken: 1: train/red/cut.png (",
        "not read: 1: train/notes.txt (",
        "of one colour: 1: train/green/flat.png",
        "look alike, in two splits: 1: ",
        "3 leaks between splits, 1 image under several labels, 1 broken file",
        "fit trains on 67 images, chooses on 13 and tests on 18",
        "next: cnnbench fit",
        "--data.size 32 --data.channels 3",
    ):
        assert words in printed


def test_strict_exits_with_3_on_a_leak_alone(capsys: pytest.CaptureFixture[str]) -> None:
    faulty(Path("faulty"))
    clean(Path("clean"))
    codes = [main(["audit", folder, *flags]) for folder in ("faulty", "clean") for flags in ([], ["--strict"])]
    assert codes == [0, 3, 0, 0]


def test_json_has_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    faulty(Path("photos"))
    assert main(["audit", "photos", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["leaks"]) == 3
    files = {place["file"]: place for leak in document["leaks"] for place in leak}
    assert files["train/red/0.png"] == {"split": "train", "class": "red", "file": "train/red/0.png"}
    assert document["counts"]["test"] == {"blue": 5, "green": 6, "red": 7}
    assert document["majority"]["class"] == "red"
    assert document["broken"][0]["name"] == "train/red/cut.png"
    assert document["advice"]["size"] == 32


def test_the_page_shows_the_files(capsys: pytest.CaptureFixture[str]) -> None:
    faulty(Path("photos"))
    assert main(["audit", "photos", "--out", "page.html"]) == 0
    page = Page(Path("page.html"))
    sections = [found["id"] for tag, found in page.tags if tag == "section"]
    assert sections == ["leaks", "labels", "near", "copies", "flat", "counts", "samples", "files", "left-out"]
    said = {text for _, text in page.texts}
    assert {"3 leaks between splits", "test/green/other format.bmp", "train/red/cut.png"} <= said
    shown = [tag for tag in page.tags if tag[0] == "img"]
    assert len(shown) == 6 + 2 + 2 + 2 + 1 + 3 * 8
    assert all((found["src"] or "").startswith("data:image/png;base64,") for _, found in shown)


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "nowhere"]) == 3
    assert "no folder nowhere" in capsys.readouterr().err
    clean(Path("photos"))
    assert main(["audit", "photos", "--split", "1,2"]) == 2
    assert "expected percent of train, val and test" in capsys.readouterr().err


def test_the_page_is_no_other_file(capsys: pytest.CaptureFixture[str]) -> None:
    folder = clean(Path("photos"))
    for out in (folder / "train/red/0.png", Path("labels.csv"), Path("page")):
        before = out.read_bytes() if out.exists() else None
        assert main(["audit", "photos", "--out", str(out)]) == 2
        assert "expected a name that ends in .html" in capsys.readouterr().err
        assert (out.read_bytes() if out.exists() else None) == before


def test_a_folder_that_fit_refuses_has_a_report_and_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "other"):
        Path("photos", name).mkdir(parents=True)
        for place in range(4):
            Path("photos", name, f"{place}.png").write_bytes(f"{name} {place}".encode())
    assert main(["audit", "photos", "--out", "page.html"]) == 0
    seen = capsys.readouterr()
    printed = seen.out
    assert "broken: 8: " in printed
    assert "fit has nothing to train on: all 8 files are broken" in printed
    assert "next: " not in seen.err
    assert "always answering" not in printed
    assert any("fit has nothing to train on" in text for _, text in Page(Path("page.html")).texts)
