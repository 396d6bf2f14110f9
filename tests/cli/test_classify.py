"""`classify`: every file of a folder has a line, with the class that the network gives its pixels."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import cnnbench
from cnnbench.__main__ import main
from cnnbench.analysis.confidence import read_predictions
from cnnbench.bundles import classify as module
from cnnbench.datasets.choice import open_choice
from cnnbench.records.schema import DataChoice

COUNT = 9


@pytest.fixture
def images() -> Path:
    """The first test images as files, one of them in a folder of its own, beside what is no image."""
    test = open_choice(DataChoice()).test.images
    folder = Path("images")
    (folder / "more").mkdir(parents=True)
    for place in range(COUNT):
        Image.fromarray(test[place, :, :, 0]).save(folder / ("more" if place == 8 else "") / f"{place}.png")
    (folder / ".hidden.png").touch()
    (folder / "notes.txt").touch()
    return folder


def lines(path: str) -> list[dict[str, str]]:
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def test_a_run_and_its_bundle_answer_as_test_did(
    run: Path, bundle: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "BATCH", 4)  # so that there are several, the last of them not full
    kept = read_predictions(run / "predictions.parquet")
    names = [f"images/{place}.png" for place in range(8)] + ["images/more/8.png"]
    for source in (run, bundle):
        assert main(["classify", str(source), "images", "--out", "x.csv"]) == 0
        found = lines("x.csv")
        assert [row["file"] for row in found] == names
        assert [row["class"] for row in found] == [str(answer) for answer in kept.predictions[:COUNT]]
        given = [[float(row[f"p_{digit}"]) for digit in range(10)] for row in found]
        np.testing.assert_allclose(given, kept.probabilities[:COUNT], atol=1e-5)
        assert [float(row["probability"]) for row in found] == [max(row) for row in given]
    out, err = capsys.readouterr()
    assert "x.csv: 9 images classified: " in out
    assert (
        err.count("skipped 2 that are hidden, links, or no images by name: images/.hidden.png, images/notes.txt") == 2
    )


def test_a_broken_file_has_its_line_and_the_others_are_classified(
    bundle: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "3.png").write_bytes((images / "3.png").read_bytes()[:60])
    assert main(["classify", str(bundle), "images", "--out", "x.csv"]) == 3
    found = lines("x.csv")
    assert len(found) == COUNT
    (bad,) = [row for row in found if row["error"]]
    assert (bad["file"], bad["class"], bad["p_0"]) == ("images/3.png", "", "")
    assert "cannot read images/3.png as an image: " in capsys.readouterr().err


def test_where_nothing_can_be_read_an_earlier_file_stays(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.csv").write_text("good")
    Path("broken.png").write_text("no image")
    assert main(["classify", str(bundle), "broken.png", "--out", "x.csv"]) == 3
    assert Path("x.csv").read_text() == "good"
    assert "none of 1 file could be read: broken.png: " in capsys.readouterr().err
    Path("empty").mkdir()
    assert main(["classify", str(bundle), "empty", "--out", "x.csv"]) == 3
    assert "no image in empty" in capsys.readouterr().err


def test_ranks_stand_in_the_place_of_a_column_per_class(bundle: Path, images: Path) -> None:
    assert main(["classify", str(bundle), "images/0.png", "--out", "x.parquet", "--top", "3"]) == 0
    assert main(["classify", str(bundle), "images/0.png", "--out", "y.parquet"]) == 0
    (ranked,), (full,) = (pq.read_table(name).to_pylist() for name in ("x.parquet", "y.parquet"))
    by_class = {key.removeprefix("p_"): value for key, value in full.items() if key.startswith("p_")}
    best = sorted(by_class.items(), key=lambda pair: -pair[1])[:3]
    given = [(ranked["class"], ranked["probability"])]
    given += [(ranked[f"class_{rank}"], ranked[f"probability_{rank}"]) for rank in (2, 3)]
    assert given == best
    assert "class_4" not in ranked


def test_below_the_threshold_an_image_is_unknown(
    bundle: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["classify", str(bundle), "images", "--format", "json"]) == 0
    sure = sorted(row["probability"] for row in json.loads(capsys.readouterr().out))
    middle = (sure[3] + sure[4]) / 2
    assert main(["classify", str(bundle), "images", "--format", "json", "--threshold", str(middle)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert sum(row["unknown"] for row in rows) == 4
    assert all(row["unknown"] == (row["probability"] < middle) for row in rows)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--threshold", "1.5"], 2, "--threshold 1.5: expected 0 to 1"),
        (["--top", "0"], 2, "--top 0: expected at least 1"),
        (["--precision", "int4"], 2, "has no int4 file: expected fp32"),
        (["--out", "x.txt"], 2, "expected a name that ends in .csv"),
    ],
)
def test_a_value_that_is_not_accepted_is_refused(
    flags: list[str], code: int, words: str, bundle: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", str(bundle), "images/0.png", *flags]) == code
    assert words in capsys.readouterr().err


def test_from_python_it_returns_every_answer(run: Path, images: Path) -> None:
    shutil.copy(images / "0.png", "bytes.png")
    found = cnnbench.classify(run, "bytes.png")
    assert (found.class_names, found.unread, len(found.answers)) == (tuple("0123456789"), 0, 1)
    assert sum(found.answers[0].probabilities) == pytest.approx(1)


def test_a_run_on_image_files_decodes_as_its_training_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transparent icons, black everywhere: they differ on the chosen background alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path.cwd() / "cache"))
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for shape in ("disc", "bar"):
            folder = Path("icons", split, shape)
            folder.mkdir(parents=True)
            for place in range(count):
                pixels = np.zeros((8, 8, 4), np.uint8)
                pixels[2:6, (2 if shape == "disc" else 0) : (6 if shape == "disc" else 2), 3] = 255 - place
                Image.fromarray(pixels).save(folder / f"{place}.png")
    data = ["--data.folder", "icons", "--data.dataset", "folder", "--data.size", "8", "--data.batch_size", "8"]
    arguments = ["--model.arch", "linear", *data, "--trainer.max_epochs", "12"]
    assert main(["fit", *arguments]) == 0
    assert main(["test", *arguments]) == 0
    assert main(["classify", "runs/folder_linear/seed1", "icons/test", "--out", "x.csv"]) == 0
    assert [row["class"] for row in lines("x.csv")] == ["bar"] * 4 + ["disc"] * 4


def test_names_of_files_are_printed_on_one_line(bundle: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images / "0.png").rename(images / "a\n\x1b[31mb.png")
    assert main(["classify", str(bundle), "images"]) == 0
    assert "images/a\\n\\x1b[31mb.png" in capsys.readouterr().out
    assert main(["classify", str(bundle), "images", "--format", "csv"]) == 0
    assert "images/a\n\x1b[31mb.png" in {row["file"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
