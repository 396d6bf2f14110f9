"""What may lie in the folder of a bundle; nothing in it is read."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cnnbench.bundles import card, inventory
from cnnbench.bundles.evidence import CheckError
from cnnbench.types import Exit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for name in card.CONTENTS:
        (bundle / name).touch()
    return bundle


def refused(folder: Path, code: Exit, word: str) -> None:
    with pytest.raises(CheckError) as caught:
        inventory.take(folder)
    assert (caught.value.check, caught.value.code) == ("files", code)
    assert word in str(caught.value)


def test_every_file_of_a_bundle_has_a_bound_and_is_known_by_its_name(folder: Path) -> None:
    assert set(inventory.LARGEST) == set(card.CONTENTS)
    assert inventory.take(folder) == inventory.Inventory(frozenset(card.CONTENTS), ())


def test_others_are_named_and_what_hosts_keep_is_passed_over(folder: Path) -> None:
    for name in ("image.png", ".gitattributes", "LICENSE", "notes.onnx.txt", "manifest.json.bak"):
        (folder / name).write_text("x")
    for name in inventory.HOSTS:
        (folder / name).mkdir()
        (folder / name / "hooks.py").write_text("x")
    expected = (".gitattributes", "LICENSE", "image.png", "manifest.json.bak", "notes.onnx.txt")
    assert inventory.take(folder).others == expected


@pytest.mark.parametrize(
    "name",
    [
        *("numpy.py", "Numpy.PY", "numpy.pyc", "numpy.pyd", "site.pth", "model.ort", "model.onnx.data", "other.onnx"),
        *("_numpy.cpython-311-x86_64-linux-gnu.so", ".hidden.py", "sitecustomize.pyw", "onnxruntime.zip", "kernel.dll"),
        "weights.ckpt",
    ],
)
def test_what_could_be_loaded_beside_the_bundle_is_refused(name: str, folder: Path) -> None:
    (folder / name).touch()
    refused(folder, Exit.VERDICT, name)


def linked(path: Path) -> None:
    path.symlink_to("/etc/passwd")


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a socket may have about 100 characters."""
    monkeypatch.chdir(tmp_path)


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as open_socket:
        open_socket.bind(os.path.relpath(path))


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("make", [linked, os.mkfifo, bound, Path.mkdir], ids=["link", "pipe", "socket", "folder"])
@pytest.mark.parametrize("name", ["golden.npz", "numpy", "__pycache__"])
def test_what_is_no_file_is_refused_whatever_its_name(name: str, make: Callable[[Path], None], folder: Path) -> None:
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    refused(folder, Exit.DATA, name)


@pytest.mark.parametrize("name", sorted(card.CONTENTS))
def test_a_file_larger_than_any_of_its_kind_is_refused_unread(name: str, folder: Path) -> None:
    os.truncate(folder / name, inventory.LARGEST[name])  # sparse: it takes no room
    inventory.take(folder)
    os.truncate(folder / name, inventory.LARGEST[name] + 1)
    refused(folder, Exit.DATA, f"{inventory.LARGEST[name]:,}")


def test_a_folder_that_cannot_be_listed_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", denied)
    refused(folder, Exit.DATA, "Permission denied")
