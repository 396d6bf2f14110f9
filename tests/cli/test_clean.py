"""`clean` and `download` as they are called."""

import json
from pathlib import Path

import pytest

from cnnbench.__main__ import main
from cnnbench.cache import cache_folder


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_clean_shows_and_removes_nothing_unless_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean"]) == 0
    assert "can be removed" not in capsys.readouterr().out or not cache_folder("folders").exists()
    cache_folder("folders").mkdir(parents=True)
    (cache_folder("folders") / "x.npy").write_bytes(b"x" * 1_500_000)
    assert main(["clean"]) == 0
    shown = capsys.readouterr()
    assert f"images           1.5 MB  {cache_folder('folders')}" in shown.out
    assert "next: cnnbench clean --remove images" in shown.err
    assert cache_folder("folders").exists()
    assert main(["clean", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["kind"] == "images"
    assert main(["clean", "--remove", "images,checks"]) == 0
    assert "MB removed" in capsys.readouterr().out
    assert not cache_folder("folders").exists()


def test_clean_refuses_a_kind_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "--remove", "all"]) == 2
    assert "images" in capsys.readouterr().err


def test_download_says_what_needs_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "shapes"]) == 2
    assert "shapes comes with the installation: there is nothing to fetch" in capsys.readouterr().err


def test_clean_refuses_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").mkdir()
    assert main(["clean", "runs", "nope"]) == 2
    assert "no folder nope: expected folders of runs and bundles" in capsys.readouterr().err
