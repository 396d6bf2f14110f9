"""Which arrays of an .npz are read, and that no other is passed over in silence."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cnnbench.datasets.arrays import of_arrays
from cnnbench.types import CnnbenchError, Exit

IMAGES = np.zeros((4, 2, 2), np.uint8)
LABELS = np.array([0, 1, 0, 1])


def saved(path: Path, *names: str) -> Path:
    """An .npz of images and labels under these names."""
    np.savez(path, **{name: LABELS if "lab" in name or name.lower().startswith("y") else IMAGES for name in names})
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CnnbenchError) as refused:
        of_arrays(path)
    assert refused.value.code == Exit.DATA
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["images", "labels"], [None]),
        (["train_images", "train_labels", "validation_images", "validation_labels"], ["train", "val"]),
        (["train_images", "train_labels", "valid_images", "valid_labels"], ["train", "val"]),
        (["x_train", "y_train", "x_valid", "y_valid", "x_test", "y_test"], ["train", "val", "test"]),
        (["X_train", "y_train", "X_test", "y_test"], ["train", "test"]),
    ],
)
def test_arrays_of_splits_have_the_names_that_folders_have(
    tmp_path: Path, names: list[str], splits: list[str | None]
) -> None:
    found = of_arrays(saved(tmp_path / "x.npz", *names)).found
    assert [image.split for image in found] == [split for split in splits for _ in LABELS]
    assert [image.class_name for image in found] == [str(label) for _ in splits for label in LABELS]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["train_images", "train_labels", "test_images"], "not used beside train_images, train_labels: test_images;"),
        (["train_images", "train_labels", "test_image", "test_label"], ": test_image, test_label; rename or remove"),
        (["images", "labels", "test_images", "test_labels"], "beside test_images, test_labels: images, labels;"),
        (["images", "labels", "weights"], "beside images, labels: weights;"),
        (["images", "labels", "new\nline"], "labels: new\\nline;"),
        (["val_images", "val_labels", "x_valid", "y_valid"], "holds both val_images and x_valid: keep one of them"),
    ],
)
def test_arrays_that_would_not_be_used_are_refused(tmp_path: Path, names: list[str], said: str) -> None:
    assert said in refusal(saved(tmp_path / "x.npz", *names))


def header(shape: tuple[int, ...]) -> bytes:
    """The beginning of an .npy of uint8."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (header((10**7, 300, 300)) + bytes(100), "images is uint8 (10000000, 300, 300), and 100 bytes of it are there"),
        (header((2, 2, 2)) + bytes(7), "images is uint8 (2, 2, 2), and 7 bytes of it are there"),
        (b"\x93NUMPY\x01\x00", "cannot be read as arrays: "),
        (b"no array", "cannot be read as arrays: "),
    ],
)
def test_an_array_that_claims_more_than_is_there_is_refused_unread(tmp_path: Path, content: bytes, said: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", content)
        archive.writestr("labels.npy", header((0,)))
    assert said in refusal(tmp_path / "x.npz")


def test_one_name_twice_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npz", "images", "labels")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("images.npy", header((0,)))
    assert "several arrays named images" in refusal(path)


def test_messages_name_no_python_object(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=np.array(["a", "b", None, 1], dtype=object))
    assert "labels holds Python objects" in refusal(tmp_path / "x.npz")
    np.save(tmp_path / "y.npz.npy", IMAGES)
    (tmp_path / "y.npz.npy").rename(tmp_path / "y.npz")
    assert "cannot be read as arrays: File is not a zip file" in refusal(tmp_path / "y.npz")
