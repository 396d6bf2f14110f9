"""CIFAR-10 and CIFAR-100 in the format their authors publish: pickled batches in torchvision's folders."""

import hashlib
import pickle
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from dataset_helpers import refusal
from torchvision.datasets import CIFAR10, CIFAR100

from cnnbench.datasets import Source
from cnnbench.datasets.choice import load
from cnnbench.types import Augment, Exit

NAMES_10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PLACES = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}

each = pytest.mark.parametrize("name", list(PLACES))


def rows(count: int, seed: int) -> np.ndarray:
    """As published: 3,072 bytes an image, the red plane first, then green, then blue."""
    return np.random.RandomState(seed).randint(0, 256, (count, 3072)).astype(np.uint8)


def write(path: Path, content: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with both datasets, small, whose checksums torchvision takes for the published ones."""
    ten, hundred = (tmp_path / place for place in PLACES.values())
    batches = [f"data_batch_{k}" for k in range(1, 6)]
    sums = {
        name: write(ten / name, {"data": rows(20, seed), "labels": [*range(10)] * 2})
        for seed, name in enumerate([*batches, "test_batch"])
    }
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in batches])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    meta = write(ten / "batches.meta", {"label_names": NAMES_10})
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": meta})

    train = {"data": rows(300, 6), "fine_labels": [*range(100)] * 3, "coarse_labels": [0] * 300}
    test = {"data": rows(100, 7), "fine_labels": [*range(100)], "coarse_labels": [0] * 100}
    monkeypatch.setattr(CIFAR100, "train_list", [["train", write(hundred / "train", train)]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", write(hundred / "test", test)]])
    meta = write(hundred / "meta", {"fine_label_names": [f"kind {k}" for k in range(100)]})
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": meta})
    return tmp_path


def test_cifar10_loads_in_row_column_channel_order(root: Path) -> None:
    data = load("cifar10", Source(root))
    assert [len(split) for split in (data.train, data.val, data.test)] == [90, 10, 20]
    assert data.class_names == tuple(NAMES_10)
    assert data.augment == Augment(pad=4, flip=True)
    published = rows(20, 5)
    for image, row, column, channel in ((0, 0, 0, 0), (3, 5, 17, 1), (19, 31, 30, 2)):
        assert data.test.images[image, row, column, channel] == published[image, channel * 1024 + row * 32 + column]


def test_cifar100_has_the_fine_labels(root: Path) -> None:
    data = load("cifar100", Source(root))
    assert data.spec.num_classes == len(data.class_names) == 100
    assert data.test.labels.tolist() == list(range(100))
    assert np.bincount(data.val.labels).tolist() == [1] * 100


@each
def test_missing_data_says_where_and_how_to_fetch(tmp_path: Path, name: str) -> None:
    line = refusal(name, Source(tmp_path))
    assert line.startswith(f"{name} not found: no {tmp_path / PLACES[name]}")
    assert f"`cnnbench download {name} --root {tmp_path}`" in line


@each
def test_an_altered_file_is_refused_before_it_is_unpickled(root: Path, name: str) -> None:
    for path in (root / PLACES[name]).iterdir():
        published = path.read_bytes()
        path.write_bytes(b"cos\nmkdir\n(S'unpickled'\ntR.")  # a pickle that would make a folder
        assert str(root / PLACES[name]) in refusal(name, Source(root))
        path.write_bytes(published)
    assert not Path("unpickled").exists()


@each
def test_a_truncated_or_missing_file_is_refused(root: Path, name: str) -> None:
    for path in (root / PLACES[name]).iterdir():
        published = path.read_bytes()
        path.write_bytes(published[:-1])
        refusal(name, Source(root))
        path.unlink()
        assert path.name.split("_")[0] in refusal(name, Source(root))
        path.write_bytes(published)
    load(name, Source(root))


@each
def test_a_download_without_network_is_one_clear_line(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", offline)
    line = refusal(name, Source(tmp_path, download=True), Exit.ENVIRONMENT)
    assert f"{name} cannot be fetched into {tmp_path / PLACES[name]}" in line
    assert "Temporary failure in name resolution" in line
