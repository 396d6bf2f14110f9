"""Full disks, users without rights, limits and closed streams: what is said, and that the last good state stays."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from faulty import Ended, contents, elsewhere, fill, here, nobody, small_disk, started, unprivileged
from PIL import Image
from torch import nn

from cnnbench import records
from cnnbench.records.schema import RunRecord
from cnnbench.training.room import checkpoint_bytes
from cnnbench.training.stored import open_checkpoint
from cnnbench.types import Exit

COMMAND = [sys.executable, "-m", "cnnbench"]
FIT = ["fit", "--model.arch", "linear", "--trainer.max_epochs", "1", "--data.train_images", "200"]
FULL = "No space left on device"


def test_a_checkpoint_has_weights_buffers_and_momentum() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    # 8 weights and biases and 4 of the norm, twice; two running statistics of 2, and a count of 8 bytes
    assert checkpoint_bytes(network) == 4 * 2 * (8 + 4) + 4 * 4 + 8


# a full disk


def test_fit_is_refused_where_its_checkpoints_cannot_fit() -> None:
    with small_disk(600_000) as disk:
        ended = here(*FIT, "--runs-dir", disk / "runs")
        assert ended.code == Exit.USAGE
        assert "the checkpoints of this run need 1.2 MB in" in ended.line  # 3 x 2 x 4 x 7,850 bytes, and 1 MiB
        assert "epoch" not in ended.err
        assert set(contents(disk)) == {"runs/mnist5k_linear/seed1.lock"}


@pytest.mark.slow
def test_a_disk_that_fills_while_fit_trains_leaves_what_can_be_resumed() -> None:
    with small_disk(4_000_000) as disk:
        words = [*FIT, "--trainer.max_epochs", "60", "--runs-dir", str(disk / "runs")]
        last = disk / "runs/mnist5k_linear/seed1/last.ckpt"
        with subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE, text=True) as process:
            while not last.exists() and process.poll() is None:
                time.sleep(0.01)
            filler = fill(disk)
            _, err = process.communicate(timeout=300)
        ended = Ended(process.returncode, "", err)
        assert ended.code == Exit.USAGE
        assert FULL in ended.line
        assert str(disk) in ended.line
        epoch = open_checkpoint(last).epoch
        assert epoch < 59
        assert not list(last.parent.glob(".*"))
        filler.unlink()
        resumed = here(*words, "--ckpt_path", "last")
        assert resumed.code == 0, resumed.err
        assert records.read(last.with_name("result.json"), RunRecord).fit.epochs == 60


def export(run: Path, bundle: Path, disk: Path) -> list[object]:
    shutil.copytree(bundle, disk / "exports" / bundle.name)
    return ["export", run, "--out", disk / "exports"]


def collect(run: Path, bundle: Path, disk: Path) -> list[object]:
    (disk / "results").mkdir()
    (disk / "results/README.md").write_text("earlier ones")
    return ["collect", run, "--out", disk / "results"]


def scored(run: Path, bundle: Path, disk: Path) -> list[object]:
    shutil.copytree(run, disk / "runs" / "mnist5k_lenet5" / "seed1")
    return ["test", "--model.arch", "lenet5", "--trainer.max_epochs", "2", "--runs-dir", disk / "runs"]


def earlier(name: str, *words: object) -> Callable[[Path, Path, Path], list[object]]:
    """A verb whose output replaces a file."""

    def make(run: Path, bundle: Path, disk: Path) -> list[object]:
        (disk / name).write_text("the earlier one")
        places = {"RUN": run, "BUNDLE": bundle, "OUT": disk / name, "IMAGES": image_folder(Path("images"))}
        return [places.get(str(word), word) for word in words]

    return make


def image_folder(folder: Path) -> Path:
    """12 gray images of two classes."""
    drawn = np.random.RandomState(0)
    for number in range(12):
        file = folder / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn.randint(0, 256, (20, 20), np.uint8)).save(file)
    return folder


WRITERS = {
    "export": export,
    "collect": collect,
    "test": scored,
    "compare a picture": earlier("c.svg", "compare", "RUN", "--picture", "OUT"),
    "compare a table": earlier("c.csv", "compare", "RUN", "--out", "OUT"),
    "report": earlier("r.html", "report", "RUN", "BUNDLE", "--out", "OUT"),
    "explain": earlier("e.html", "explain", "linear", "--html", "OUT"),
    "classify": earlier("c.csv", "classify", "BUNDLE", "IMAGES", "--out", "OUT"),
    "audit": earlier("a.html", "audit", "IMAGES", "--out", "OUT"),
    "bench": earlier(
        "l.json", "bench", "BUNDLE", "--seconds", "0.05", "--batch", "1", "--backend", "onnxruntime", "--out", "OUT"
    ),
}
"""Verbs that write, with an earlier output in the way."""
SLOW = {"export", "bench", "report", "test", "compare a picture"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in WRITERS])
def test_a_full_disk_is_one_line_that_names_it_and_the_earlier_output_stays(
    run: Path, bundle: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with small_disk(2_000_000) as disk:
        words = WRITERS[name](run, bundle, disk)
        fill(disk)
        before = contents(disk)
        ended = here(*words)
        assert ended.code == Exit.USAGE, ended.err
        assert FULL in ended.line
        assert str(disk) in ended.line
        after = contents(disk)
        assert {path: after.get(path) for path in before} == before
        assert all(path.endswith(".lock") for path in after.keys() - before.keys())


@pytest.mark.slow
def test_a_full_cache_names_another_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = image_folder(tmp_path / "images")
    with small_disk(8_192) as disk:
        monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
        ended = here("fit", "--model.arch", "linear", "--data.folder", images, "--data.split", "50,25,25")
        assert ended.code == Exit.USAGE
        assert "XDG_CACHE_HOME" in ended.line
        assert not Path("runs/images_linear/seed1").exists()
        assert not list(disk.rglob("*.npy"))


@pytest.fixture
def full_tmpdir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with small_disk(65_536) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        monkeypatch.setenv("TMPDIR", str(disk))
        yield disk


def test_verify_and_export_say_that_the_temporary_folder_is_full(run: Path, bundle: Path, full_tmpdir: Path) -> None:
    for words in (["verify", bundle], ["export", run, "--out", "exports"]):
        ended = here(*words)
        assert ended.code == Exit.ENVIRONMENT
        assert ended.line.startswith(f"cannot write {full_tmpdir}: {FULL}")
        assert "TMPDIR" in ended.line
    assert contents(full_tmpdir) == {}
    assert not list(Path("exports").glob("*"))


@pytest.mark.slow
def test_fit_needs_no_temporary_folder(full_tmpdir: Path) -> None:
    assert here(*FIT).code == 0


@pytest.mark.slow
def test_a_sweep_on_a_full_disk_ends_in_one_line() -> None:
    with small_disk(1_000_000) as disk:
        fill(disk)
        (ended,) = elsewhere(["sweep", "mnist5k_linear", "--seeds", "1", "--runs-dir", disk / "runs"])
        assert ended.code in (Exit.USAGE, Exit.SWEEP)
        assert FULL in ended.err + ended.out
        assert "Traceback" not in ended.err


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
