"""What of an archive is read, and that the rest is told."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from cnnbench.datasets.archives import open_archive
from cnnbench.datasets.tree import Tree


def read(tree: Tree) -> dict[str, bytes]:
    return {file.name: file.opened().read() for file in tree.files}


def told(tree: Tree) -> set[tuple[str, str]]:
    return {(skipped.name, skipped.reason) for skipped in tree.skipped}


def member(name: str, mode: int) -> zipfile.ZipInfo:
    """A member of a .zip with a mode of Unix, as `zip -y` writes it."""
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def test_links_and_devices_of_a_zip_are_told() -> None:
    with zipfile.ZipFile("x.zip", "w") as archive:
        for name, mode in (("link.png", 0o120777), ("pipe.png", 0o010644), ("file.png", 0o100644), ("plain.png", 0)):
            archive.writestr(member(f"cat/{name}", mode), b"/etc/passwd")
    tree = open_archive(Path("x.zip"))
    assert {*read(tree)} == {"cat/file.png", "cat/plain.png"}
    assert told(tree) == {(f"cat/{name}.png", "a link or no file") for name in ("link", "pipe")}


def tar_of(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_of_two_members_of_one_name_the_last_counts_and_the_other_is_told() -> None:
    path = tar_of(Path("x.tar"), [("cat/0.png", b"old"), ("cat/1.png", b"one"), ("./cat/0.png", b"new")])
    with zipfile.ZipFile("x.zip", "w") as archive:
        archive.writestr("cat/0.png", b"old")
        archive.writestr("cat/1.png", b"one")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("cat/0.png", b"new")
    for archived in (path, Path("x.zip")):
        tree = open_archive(archived)
        assert read(tree) == {"cat/1.png": b"one", "cat/0.png": b"new"}
        assert told(tree) == {("cat/0.png", "an earlier member of one name")}


def test_what_is_passed_over_beside_the_one_folder_is_told() -> None:
    path = tar_of(Path("x.tar"), [("../evil.png", b"x"), ("pets/cat/0.png", b"x"), ("/abs.png", b"x"), (".git/a", b"")])
    tree = open_archive(path).within("pets")
    assert {*read(tree)} == {"cat/0.png"}
    assert told(tree) == {
        ("../evil.png", "a name that leads out of the archive"),
        ("/abs.png", "a name that leads out of the archive"),
        (".git/a", "hidden"),
    }


def test_an_encrypted_member_among_others_is_unreadable_alone() -> None:
    with zipfile.ZipFile("x.zip", "w") as archive:
        for number in range(2):
            archive.writestr(f"cat/{number}.png", b"content")
    content = bytearray(Path("x.zip").read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    Path("x.zip").write_bytes(content)
    first, second = open_archive(Path("x.zip")).files
    with pytest.raises(OSError, match="encrypted"):
        first.opened()
    assert second.opened().read() == b"content"
