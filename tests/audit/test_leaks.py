"""What `fit` warns of: images of the user's that are trained on and scored."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted import clean, faulty

from cnnbench.__main__ import main
from cnnbench.audit import leaks
from cnnbench.datasets.choice import open_choice
from cnnbench.records.schema import DataChoice
from cnnbench.types import Dataset


def opened(folder: Path) -> Dataset:
    return open_choice(DataChoice(dataset="folder", folder=str(folder), size=16, skip_broken=True))


def test_they_are_counted_by_the_pixels_that_the_network_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    data = opened(faulty(Path("photos")))
    trained = [image.tobytes() for image in data.train.images]
    expected = [sum(image.tobytes() in trained for image in split.images) for split in (data.val, data.test)]
    assert expected == [1, 2]
    found = leaks.leaks_of(data)
    assert [found.val, found.test] == expected
    words = "1 of 13 validation images and 2 of 18 test images are training images too, pixel for pixel at 16x16x3"
    assert leaks.warning(found, data).startswith(words)
    monkeypatch.setattr(leaks, "_hashes", lambda split: pytest.fail("it was counted before"))
    assert leaks.leaks_of(data) == found


def test_counts_are_not_those_of_other_pixels_of_the_same_files() -> None:
    """The hash of the data is of the files; how they are decoded is a choice of its own."""
    data = opened(faulty(Path("photos")))
    assert data.preprocessing is not None
    first = leaks.leaks_of(data)
    all_alike = replace(data.test, images=np.repeat(data.train.images[:1], len(data.test), axis=0))
    chosen = replace(data.preprocessing, background=7)
    assert leaks.leaks_of(replace(data, test=all_alike, preprocessing=chosen)).test == len(data.test) != first.test


def test_a_clean_folder_has_none() -> None:
    data = opened(clean(Path("photos")))
    assert leaks.warning(leaks.leaks_of(data), data) == ""
    assert len(np.unique(data.train.images.reshape(len(data.train), -1), axis=0)) == len(data.train)


@pytest.mark.slow
def test_fit_warns(capsys: pytest.CaptureFixture[str]) -> None:
    faulty(Path("photos"))
    options = ["--data.dataset", "folder", "--data.folder", "photos", "--data.size", "16", "--data.skip_broken", "true"]
    assert main(["fit", "--model.arch", "linear", *options, "--trainer.max_epochs", "1"]) == 0
    assert "warning: 1 of 13 validation images and 2 of 18 test images" in capsys.readouterr().err
