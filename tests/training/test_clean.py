"""What can go from the disk, and what stays."""

import os
import tempfile
import time
from pathlib import Path

import pytest

from cnnbench.cache import cache_folder
from cnnbench.training.clean import Clutter, find_clutter, remove_clutter
from cnnbench.training.folder import RunFolder, locked
from cnnbench.types import CnnbenchError, Exit


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def write(path: Path, size: int = 1, *, days: float = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    then = time.time() - days * 24 * 3600
    for place in (path, path.parent):
        os.utime(place, (then, then))
    return path


def kinds(found: list[Clutter]) -> list[tuple[str, str]]:
    return [(clutter.kind, clutter.path.name) for clutter in found]


def test_nothing_is_found_where_nothing_is() -> None:
    assert find_clutter() == []


def test_each_cache_is_found_with_its_size_and_removed_alone() -> None:
    write(cache_folder("folders") / "x.npy", 1000)
    write(cache_folder("data") / "mnist" / "x", 50)
    before = {clutter.kind: clutter.bytes for clutter in find_clutter()}
    assert before.keys() == {"images", "downloads"}
    assert 1000 <= before["images"] < 1000 + 10_000  # and the folder's own
    assert kinds(remove_clutter(["images"])) == [("images", "folders")]
    assert not cache_folder("folders").exists()
    assert kinds(find_clutter()) == [("downloads", "data")]


def test_a_replaced_run_goes_once_its_replacement_is_there() -> None:
    write(Path("runs/a/seed1.replaced/result.json"))
    assert find_clutter() == [], "it is the only one"
    write(Path("runs/a/seed1/result.json"))
    with locked(RunFolder(Path("runs/a/seed1"))):
        assert find_clutter() == [], "another process works there"
    assert kinds(remove_clutter(["runs"])) == [("runs", "seed1.replaced")]
    assert Path("runs/a/seed1/result.json").is_file()
    assert not Path("runs/a/seed1.replaced").exists()


def test_leftovers_of_killed_processes_go_after_a_day() -> None:
    write(Path("runs/a/seed1/.best-abcd_123.ckpt"))
    write(Path("runs/a/seed2/.best-abcd_123.ckpt"), days=0.5)
    write(Path("exports/.a-12345678/new/model.onnx"))
    os.utime("exports/.a-12345678", (1, 1))
    write(Path("tmp/cnnbench-12345678/x"))
    write(Path("tmp/other-12345678/x"))
    write(Path("runs/a/seed1/.hidden"))
    assert kinds(remove_clutter(["leftovers"])) == [
        ("leftovers", ".best-abcd_123.ckpt"),
        ("leftovers", ".a-12345678"),
        ("leftovers", "cnnbench-12345678"),
    ]
    assert find_clutter() == []
    left = (Path("runs/a/seed2/.best-abcd_123.ckpt"), Path("tmp/other-12345678/x"), Path("runs/a/seed1/.hidden"))
    assert all(path.exists() for path in left)


def test_a_kind_that_is_none_is_a_usage_error() -> None:
    with pytest.raises(CnnbenchError, match="expected images, downloads") as refused:
        remove_clutter(["everything"])  # type: ignore[list-item]
    assert refused.value.code == Exit.USAGE
