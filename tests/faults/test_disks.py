"""Disks that are full, or read alone: what is said, and that the last good state stays."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty import FIT, Ended, contents, elsewhere, fill, here, image_folder, read_alone, small_disk
from torch import nn

from cnnbench import records
from cnnbench.records.schema import RunRecord
from cnnbench.training.room import checkpoint_bytes
from cnnbench.training.stored import open_checkpoint
from cnnbench.types import Exit

COMMAND = [sys.executable, "-m", "cnnbench"]
FULL = "No space left on device"
READ_ALONE = "Read-only file system"


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


def shifted(run: Path, bundle: Path, disk: Path) -> list[object]:
    shutil.copytree(run, disk / "runs" / "mnist5k_lenet5" / "seed1")
    return ["robustness", disk / "runs", "--images", "50"]


def drawn(run: Path, bundle: Path, disk: Path) -> list[object]:
    (disk / "lab").mkdir()
    (disk / "lab/fc-to-conv.svg").write_text("an earlier one")
    return ["lab", "fc-to-conv", "--out", disk / "lab"]


def shipped(run: Path, bundle: Path, disk: Path) -> list[object]:
    """Where no network can keep the limits, what is written is the decision and the commands."""
    (disk / "out").mkdir()
    for name in ("decision.json", "commands.sh"):
        (disk / "out" / name).write_text("an earlier one")
    words = ["ship", "--dataset", "mnist5k", "--arch", "linear,mlp", "--max-bytes", "1kB", "--jobs", "1"]
    return [*words, "--out", disk / "out"]


def earlier(name: str, *words: object) -> Callable[[Path, Path, Path], list[object]]:
    """A verb whose output replaces a file."""

    def make(run: Path, bundle: Path, disk: Path) -> list[object]:
        (disk / name).write_text("the earlier one")
        places = {"RUN": run, "BUNDLE": bundle, "OUT": disk / name, "IMAGES": image_folder(Path("images"))}
        return [places.get(str(word), word) for word in words]

    return make


WRITERS = {
    "export": export,
    "collect": collect,
    "test": scored,
    "robustness": shifted,
    "lab": drawn,
    "ship": shipped,
    "compare a picture": earlier("c.svg", "compare", "RUN", "--picture", "OUT"),
    "compare a table": earlier("c.csv", "compare", "RUN", "--out", "OUT"),
    "report": earlier("r.html", "report", "RUN", "BUNDLE", "--out", "OUT"),
    "lab a page": earlier("l.html", "lab", "fc-to-conv", "--html", "OUT", "--out", "lab"),
    "explain": earlier("e.html", "explain", "linear", "--html", "OUT"),
    "classify": earlier("c.csv", "classify", "BUNDLE", "IMAGES", "--out", "OUT"),
    "audit": earlier("a.html", "audit", "IMAGES", "--out", "OUT"),
    "bench": earlier(
        "l.json", "bench", "BUNDLE", "--seconds", "0.05", "--batch", "1", "--backend", "onnxruntime", "--out", "OUT"
    ),
}
"""Verbs that write, with an earlier output in the way."""
SLOW = {"export", "bench", "report", "test", "compare a picture", "robustness", "lab", "lab a page", "ship"}


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


@pytest.mark.slow
def test_ship_on_a_full_disk_ends_in_one_line() -> None:
    with small_disk(1_000_000) as disk:
        fill(disk)
        (ended,) = elsewhere(["ship", "--dataset", "mnist5k", "--arch", "linear", "--jobs", "1", "--out", disk / "out"])
        assert ended.code == Exit.USAGE
        assert FULL in ended.line
        assert not list(disk.rglob("*.onnx"))


# a disk that is read alone


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_is_read_alone_is_one_line_that_names_it_and_nothing_is_lost(
    run: Path, bundle: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with small_disk(8_000_000) as disk:
        words = WRITERS[name](run, bundle, disk)
        before = contents(disk)
        with read_alone(disk):
            ended = here(*words)
        assert ended.code == Exit.USAGE, ended.err
        assert READ_ALONE in ended.line
        assert str(disk) in ended.line
        assert contents(disk) == before


@pytest.mark.slow
def test_runs_that_cannot_be_written_are_refused_before_training() -> None:
    with small_disk(8_000_000) as disk, read_alone(disk):
        for words in ([*FIT], ["sweep", "mnist5k_linear", "--seeds", "1"]):
            ended = here(*words, "--runs-dir", disk / "runs")
            assert ended.code == Exit.USAGE
            assert str(disk) in ended.line
            assert "epoch" not in ended.err
        (ended,) = elsewhere(["ship", "--dataset", "mnist5k", "--arch", "linear", "--jobs", "1", "--out", disk / "out"])
        assert ended.code == Exit.USAGE
        assert str(disk) in ended.line
        assert contents(disk) == {}


@pytest.mark.slow
def test_a_cache_that_is_read_alone_names_another_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = image_folder(tmp_path / "images")
    with small_disk(8_000_000) as disk, read_alone(disk):
        monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
        ended = here("fit", "--model.arch", "linear", "--data.folder", images, "--data.split", "50,25,25")
        assert ended.code == Exit.USAGE
        assert "XDG_CACHE_HOME" in ended.line
        assert not Path("runs/images_linear/seed1").exists()
        assert here("audit", images).code == 0  # what it found is found again
