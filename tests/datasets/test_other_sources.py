"""STL-10 and SVHN in the formats their authors publish, where torchvision looks for them."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from dataset_helpers import refusal
from torchvision.datasets import STL10, SVHN

from cnnbench.datasets import Source
from cnnbench.datasets.choice import load
from cnnbench.datasets.download import download_dataset
from cnnbench.types import CnnbenchError, DatasetNotFoundError, Exit

TRAIN, TEST = 100, 20
NAMES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def images(count: int, side: int) -> np.ndarray:
    """`(count, side, side, 3)`"""
    return np.random.RandomState(count).randint(0, 256, (count, side, side, 3)).astype(np.uint8)


def checksum(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As published: each image plane by plane, each plane column by column; labels from 1."""
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    for part, count in (("train", TRAIN), ("test", TEST)):
        images(count, 96).transpose(0, 3, 2, 1).tofile(folder / f"{part}_X.bin")
        (np.arange(count) % 10 + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")
    (folder / "unlabeled_X.bin").touch()
    (folder / "class_names.txt").write_text("\n".join(NAMES))
    for names in ("train_list", "test_list"):
        monkeypatch.setattr(STL10, names, [[name, checksum(folder / name)] for name, _ in getattr(STL10, names)])
    return tmp_path


def test_stl10_loads_upright(stl10: Path) -> None:
    data = load("stl10", Source(stl10))
    assert [len(split) for split in (data.train, data.val, data.test)] == [90, 10, TEST]
    assert np.array_equal(data.test.images, images(TEST, 96))
    assert data.test.labels.tolist() == [number % 10 for number in range(TEST)]
    assert data.class_names == NAMES


@pytest.fixture
def svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As published: MATLAB files of X, (32, 32, 3, N), and y, in which 10 is the digit 0."""
    sums = {}
    for part, count in (("train", TRAIN), ("test", TEST)):
        path = tmp_path / f"{part}_32x32.mat"
        digits = np.arange(count) % 10
        scipy.io.savemat(
            path, {"X": images(count, 32).transpose(1, 2, 3, 0), "y": np.where(digits, digits, 10)[:, None]}
        )
        sums[part] = ["", path.name, checksum(path)]
    monkeypatch.setattr(SVHN, "split_list", {**SVHN.split_list, **sums})
    return tmp_path


def test_svhn_loads_with_its_zeros(svhn: Path) -> None:
    data = load("svhn", Source(svhn))
    assert np.array_equal(data.test.images, images(TEST, 32))
    assert data.test.labels.tolist() == [number % 10 for number in range(TEST)]
    assert data.class_names == tuple("0123456789")


@pytest.mark.parametrize("name", ["kmnist", "emnist", "stl10", "svhn"])
def test_what_is_not_there_says_how_to_fetch_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetNotFoundError, match=f"{name} not found: no .*`cnnbench download {name} --root"):
        load(name, Source(tmp_path))


def test_one_missing_file_is_refused(svhn: Path) -> None:
    (svhn / "test_32x32.mat").unlink()
    assert "svhn cannot be read from" in refusal("svhn", Source(svhn))


def test_what_is_there_is_not_fetched_again(stl10: Path) -> None:
    got = download_dataset("stl10", root=stl10)
    assert (got.train_images, got.val_images, got.test_images) == (90, 10, TEST)
    assert got.sha256 == load("stl10", Source(stl10)).sha256


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mnist5k", "mnist5k comes with the installation"),
        ("folder", "your own images"),
        ("kmnis", "did you mean kmnist"),
    ],
)
def test_what_cannot_be_fetched_is_a_usage_error(name: str, said: str) -> None:
    with pytest.raises(CnnbenchError, match=said) as refused:
        download_dataset(name)
    assert refused.value.code == Exit.USAGE
