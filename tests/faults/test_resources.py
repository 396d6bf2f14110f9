"""Users without rights, limits and closed streams: what is said, and that the last good state stays."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import FIT, contents, elsewhere, here, image_folder, nobody, started, unprivileged

from cnnbench import records
from cnnbench.records.schema import RunRecord
from cnnbench.types import Exit

COMMAND = [sys.executable, "-m", "cnnbench"]
FULL = "No space left on device"


# a user without rights


@pytest.mark.slow
def test_what_cannot_be_written_or_read_is_one_line(run: Path, bundle: Path, tmp_path: Path) -> None:
    closed, mine = tmp_path / "closed", tmp_path / "runs/mnist5k_lenet5/seed1"
    closed.mkdir()
    shutil.copytree(run, mine)
    (tmp_path / "unreadable").mkdir()
    shutil.copy(run / "result.json", tmp_path / "unreadable")
    shutil.copy(run / "best.ckpt", tmp_path / "unreadable")
    before = contents(mine)
    for path in (closed, mine, *mine.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for path in (tmp_path / "unreadable").iterdir():
        path.chmod(0)
    lenet = ["--model.arch", "lenet5", "--trainer.max_epochs", "2", "--runs-dir", tmp_path / "runs"]
    cases: list[tuple[list[object], int, str]] = [
        ([*FIT, "--runs-dir", closed / "runs"], 2, f"cannot write to {closed}/runs"),
        (["sweep", "mnist5k_linear", "--runs-dir", closed / "runs"], 2, "cannot write to"),
        (["export", run, "--out", closed / "exports"], 2, f"cannot write {closed}"),
        (["report", run, "--out", closed / "r.html"], 2, f"cannot write {closed}"),
        (["compare", run, "--picture", closed / "c.svg"], 2, f"cannot write {closed}"),
        (["bench", bundle, "--seconds", "60", "--out", closed / "l.json"], 2, f"cannot write {closed}"),
        (["download", "kmnist", "--root", closed], 2, f"cannot write {closed}"),
        (["test", *lenet], 2, "cannot write"),
        (["predict", *lenet], 2, "cannot write"),
        (["compare", tmp_path / "unreadable"], 3, "cannot read"),
        (["export", tmp_path / "unreadable/best.ckpt"], 3, "cannot be read: "),
        (["compare", mine, "--picture", tmp_path / "c.svg"], 0, ""),
        (["choose", mine], 0, ""),
    ]
    for (words, code, said), ended in zip(
        cases, elsewhere(*(words for words, _, _ in cases), wrapper=unprivileged()), strict=True
    ):
        assert ended.code == code, (words, ended.err)
        if said:
            assert said in ended.line, words
            assert "Permission denied" in ended.line or "cannot be written" in ended.line, words
    assert contents(mine) == before
    assert contents(closed) == {}


@pytest.fixture
def open_folder(run: Path, bundle: Path) -> Iterator[Path]:
    """A folder that anyone may write to, with a run and a bundle."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(run, folder / "runs/mnist5k_lenet5/seed1")
        shutil.copytree(bundle, folder / "exports/mnist5k_lenet5")
        image_folder(folder / "images")
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)
        yield folder


OF_NOBODY: list[list[object]] = [
    [*FIT],
    ["fit", "--model.arch", "linear", "--data.folder", "images", "--trainer.max_epochs", "1"],
    ["compare", "runs", "--picture", "c.svg"],
    ["report", "runs", "exports", "--out", "r.html"],
    ["classify", "exports/mnist5k_lenet5", "images", "--out", "c.csv"],
    ["export", "runs/mnist5k_lenet5/seed1", "--out", "out"],
    ["verify", "exports/mnist5k_lenet5"],
    ["doctor"],
]


@pytest.mark.slow
def test_a_user_without_home_and_entry_in_passwd_is_told_what_to_set(open_folder: Path) -> None:
    none = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "CNNBENCH_DATA", "USER", "LOGNAME"))
    for ended in elsewhere(*OF_NOBODY[:2], wrapper=nobody(), environ=none, folder=open_folder):
        assert ended.code == Exit.ENVIRONMENT
        assert "set HOME" in ended.line
    assert not (open_folder / "runs/mnist5k_linear").exists()


@pytest.mark.slow
def test_a_home_that_is_not_there_is_not_needed(open_folder: Path) -> None:
    homeless = {"HOME": "/nonexistent", "XDG_CACHE_HOME": str(open_folder / "cache"), "CNNBENCH_DATA": None}
    for words, ended in zip(
        OF_NOBODY, elsewhere(*OF_NOBODY, wrapper=nobody(), environ=homeless, folder=open_folder), strict=True
    ):
        assert ended.code == 0, (words, ended.err)
        assert "Traceback" not in ended.err


# limits


@pytest.mark.slow
def test_64_open_files_are_enough(run: Path, bundle: Path, tmp_path: Path) -> None:
    images = image_folder(tmp_path / "images")
    verbs: list[list[object]] = [
        [*FIT],
        [
            "sweep",
            "mnist5k_linear",
            "--seeds",
            "2",
            "--jobs",
            "2",
            "--override",
            "trainer.max_epochs=1",
            "--runs-dir",
            "swept",
        ],
        ["export", run],
        ["verify", bundle],
        ["compare", run, "--picture", "c.svg"],
        ["report", run, "--out", "r.html"],
        ["classify", bundle, images, "--out", "c.csv"],
        ["audit", images],
    ]
    for words, ended in zip(verbs, elsewhere(*verbs, before="ulimit -n 64"), strict=True):
        assert ended.code == 0, (words, ended.err)


@pytest.mark.slow
def test_too_little_memory_for_torch_is_one_line(run: Path) -> None:
    (trained,) = elsewhere(FIT, before="ulimit -v 2000000")
    (compared,) = elsewhere(["compare", run, "--picture", "c.svg"], before="ulimit -v 2000000")
    assert trained.code == Exit.ENVIRONMENT
    assert "raise `ulimit -v`" in trained.line
    assert compared.code == 0
    assert not Path("runs").exists()


# streams, locale and mask


@pytest.mark.slow
def test_fit_works_where_every_stream_is_closed() -> None:
    ended = started([*COMMAND, *FIT], before="exec <&- >&- 2>&-")
    assert ended.code == 0
    folder = Path("runs/mnist5k_linear/seed1")
    assert records.read(folder / "result.json", RunRecord).fit.epochs == 1
    assert not any(b"val/accuracy 0." in content for content in contents(folder).values())  # a line of progress


@pytest.mark.slow
def test_a_full_stdout_is_one_line_and_the_run_stays() -> None:
    ended = started([*COMMAND, *FIT], before="exec >/dev/full")
    assert ended.code == Exit.USAGE
    assert ended.line == f"cannot write: {FULL}"
    assert Path("runs/mnist5k_linear/seed1/result.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LC_ALL=C", "TERM=dumb"])
def test_tables_are_printed_in_any_locale(run: Path, name: str) -> None:
    variable, _, value = name.partition("=")
    plain = {variable: value, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for verb in (["compare", str(run), "--picture", "c.svg"], ["list"]):
        ended = started([*COMMAND, *verb], environ=plain)
        assert ended.code == 0
        assert all(line.startswith("next: ") for line in ended.err.splitlines())
        assert "lenet5" in ended.out


@pytest.mark.slow
def test_a_mask_keeps_files_private(run: Path) -> None:
    before = os.umask(0o077)
    try:
        for words in ([*FIT], ["export", str(run)]):
            assert here(*words).code == 0
    finally:
        os.umask(before)
    written = [path for folder in ("runs", "exports") for path in Path(folder).rglob("*")]
    assert len(written) > 10
    assert [str(path) for path in written if path.stat().st_mode & 0o077] == []
