"""MNIST and its kin in the format their authors publish: idx files in torchvision's folders."""

import gzip
import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision
from dataset_helpers import per_class, refusal

from cnnbench.datasets import Source, mnist
from cnnbench.datasets.choice import load
from cnnbench.datasets.splits import with_pixel_stats
from cnnbench.types import Augment, Exit, Split

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
TRAIN, TEST = 200, 30

both = pytest.mark.parametrize(("name", "place"), [("mnist", "MNIST/raw"), ("fashion_mnist", "FashionMNIST/raw")])


@pytest.fixture(autouse=True)
def _without_debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "DEBIAN", tmp_path / "no package")


def idx(array: np.ndarray) -> bytes:
    """The idx format: two zeros, 8 for unsigned bytes, the number of axes, their big-endian lengths, the values."""
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


def images(count: int) -> np.ndarray:
    return np.random.RandomState(count).randint(0, 256, (count, 28, 28)).astype(np.uint8)


def labels(count: int) -> np.ndarray:
    return np.arange(count) % 10


def write(raw: Path) -> Path:
    raw.mkdir(parents=True)
    for name, array in zip(FILES, (images(TRAIN), labels(TRAIN), images(TEST), labels(TEST)), strict=True):
        (raw / name).write_bytes(idx(array))
    return raw


def test_files_in_the_real_format_load(tmp_path: Path) -> None:
    write(tmp_path / "KMNIST/raw")
    data = load("kmnist", Source(tmp_path))
    assert [len(split) for split in (data.train, data.val, data.test)] == [TRAIN * 9 // 10, TRAIN // 10, TEST]
    assert np.array_equal(data.test.images, images(TEST)[..., None])
    assert np.array_equal(data.test.labels, labels(TEST))
    assert data.class_names == tuple(torchvision.datasets.KMNIST.classes)
    assert data.augment == Augment(pad=2), "clothes may be mirrored, characters may not"
    counted = with_pixel_stats(data.spec, Split(images(TRAIN)[..., None], labels(TRAIN)))
    assert (data.spec.mean, data.spec.std) == (counted.mean, counted.std)


def test_letters_are_turned_upright_and_named(tmp_path: Path) -> None:
    raw = tmp_path / "EMNIST/raw"
    raw.mkdir(parents=True)
    classes = np.arange(470) % 47
    for part in ("train", "test"):
        (raw / f"emnist-balanced-{part}-images-idx3-ubyte").write_bytes(idx(images(470)))
        (raw / f"emnist-balanced-{part}-labels-idx1-ubyte").write_bytes(idx(classes))
    data = load("emnist", Source(tmp_path))
    assert np.array_equal(data.test.images[..., 0], images(470).transpose(0, 2, 1))  # NIST: rows and columns exchanged
    assert [data.class_names[label] for label in (0, 9, 10, 35, 36, 46)] == ["0", "9", "A", "Z", "a", "t"]


def write_compressed(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, array in zip(FILES, (images(TRAIN), labels(TRAIN), images(TEST), labels(TEST)), strict=True):
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    return folder


def test_the_files_of_debians_package_are_found_where_it_puts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "DEBIAN", write_compressed(tmp_path / "debian"))
    decoded = mnist.fashion_mnist(Source(tmp_path / "nowhere"))
    assert np.array_equal(decoded.train.images, images(TRAIN)[..., None])
    assert np.array_equal(decoded.test.labels, labels(TEST))
    assert decoded.class_names == tuple(torchvision.datasets.FashionMNIST.classes)
    write(tmp_path / "FashionMNIST/raw")  # a root that has the files goes before it
    (tmp_path / "debian" / f"{FILES[0]}.gz").unlink()
    assert len(mnist.fashion_mnist(Source(tmp_path)).train) == TRAIN
    assert f"fashion_mnist cannot be read from {tmp_path / 'debian'}" in refusal(
        "fashion_mnist", Source(tmp_path / "x")
    )


def test_other_clothes_than_fashion_mnist_s_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "FashionMNIST/raw")
    assert f"fashion_mnist in {tmp_path} is altered" in refusal("fashion_mnist", Source(tmp_path))


def test_other_digits_than_mnist_s_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "MNIST/raw")
    assert f"mnist in {tmp_path} is altered" in refusal("mnist", Source(tmp_path))


@both
def test_missing_data_says_where_what_and_how_to_fetch(tmp_path: Path, name: str, place: str) -> None:
    line = refusal(name, Source(tmp_path))
    assert line.startswith(f"{name} not found: no {tmp_path / place}")
    assert all(file in line for file in FILES)
    assert f"`cnnbench download {name} --root {tmp_path}`" in line
    assert "CNNBENCH_DATA" in line


@both
@pytest.mark.parametrize("file", FILES)
def test_one_missing_file_is_refused(tmp_path: Path, name: str, place: str, file: str) -> None:
    (write(tmp_path / place) / file).unlink()
    line = refusal(name, Source(tmp_path))
    assert str(tmp_path / place) in line
    assert file in line


@both
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kept", [0, 3, 4, 10, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, place: str, file: str, kept: int) -> None:
    path = write(tmp_path / place) / file
    path.write_bytes(path.read_bytes()[:kept])
    assert f"{name} cannot be read from {tmp_path / place}" in refusal(name, Source(tmp_path))


@pytest.mark.parametrize(
    "content",
    [b"<html>404</html>", bytes([0, 0, 12, 3]) + struct.pack(">4I", 1, 1, 1, 0), bytes([0, 0, 10, 1, 0, 0, 0, 1, 7])],
    ids=["foreign", "wider than bytes", "no idx type"],
)
@pytest.mark.parametrize("file", FILES)
def test_foreign_content_is_refused(tmp_path: Path, file: str, content: bytes) -> None:
    (write(tmp_path / "MNIST/raw") / file).write_bytes(content)
    assert "mnist cannot be read from" in refusal("mnist", Source(tmp_path))


def test_fewer_labels_than_images_are_refused(tmp_path: Path) -> None:
    (write(tmp_path / "KMNIST/raw") / FILES[1]).write_bytes(idx(labels(TRAIN - 1)))
    assert f"and {TRAIN - 1} labels" in refusal("kmnist", Source(tmp_path))


def test_a_label_out_of_range_is_refused(tmp_path: Path) -> None:
    (write(tmp_path / "KMNIST/raw") / FILES[3]).write_bytes(idx(labels(TEST) + 1))
    assert "labels from 1 to 10; expected 0 to 9" in refusal("kmnist", Source(tmp_path))


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    (write(tmp_path / "KMNIST/raw") / FILES[2]).write_bytes(idx(images(TEST)[:, :14]))
    assert "expected (N, 28, 28, 1)" in refusal("kmnist", Source(tmp_path))


@both
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (URLError("Temporary failure in name resolution"), Exit.ENVIRONMENT),
        (RuntimeError("Tried https://example.org, got: <urlopen error [Errno -3] no>"), Exit.ENVIRONMENT),
        (RuntimeError("File not found or corrupted."), Exit.DATA),
    ],
    ids=["no network", "no mirror", "damaged"],
)
def test_a_download_that_fails_is_one_clear_line(
    tmp_path: Path, name: str, place: str, monkeypatch: pytest.MonkeyPatch, error: Exception, code: Exit
) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", offline)
    line = refusal(name, Source(tmp_path, download=True), code)
    assert f"{name} cannot be fetched into {tmp_path / place}" in line
    assert str(error) in line
    assert "check the network" in line


def test_nothing_is_fetched_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[object] = []
    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", lambda *a, **k: fetched.append(a))
    (write(tmp_path / "MNIST/raw") / FILES[0]).unlink()
    refusal("mnist", Source(tmp_path))
    assert not fetched


def test_the_published_mnist_loads(real_data: Path) -> None:
    data = load("mnist", Source(real_data))  # `load` holds it to the declared hash
    assert len(data.train) + len(data.val) == 60_000
    assert per_class(data.test.labels) == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert data.augment == Augment(pad=2, flip=False)


def test_the_published_fashion_mnist_loads(real_data: Path) -> None:
    if not (real_data / "FashionMNIST").is_dir():
        pytest.skip("CNNBENCH_DATA holds no FashionMNIST")
    data = load("fashion_mnist", Source(real_data))  # `load` holds it to the declared hash
    assert per_class(data.test.labels) == [1000] * 10
    assert data.augment == Augment(pad=2, flip=True)
