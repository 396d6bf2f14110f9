"""How `fit` begins: what it finishes, resumes, replaces and refuses, and that all processes begin alike."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.utilities import rank_zero_only

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.records.schema import RunConfig, RunRecord
from cnnbench.training import recorder, start
from cnnbench.training.config import parse
from cnnbench.training.data import ImageData
from cnnbench.training.folder import RunFolder
from cnnbench.training.start import Start, decide, passed_on
from cnnbench.training.stored import open_checkpoint
from cnnbench.training.trainer import EpochLines
from cnnbench.types import CnnbenchError, Dataset, Exit

SHORT = ["--config", "mnist5k_linear", "--data.train_images", "256", "--trainer.max_epochs", "2"]
OTHER = [*SHORT, "--model.lr", "0.01"]
RUN = RunFolder(Path("runs/mnist5k_linear/seed1"))
TWO_PROCESSES = ["--trainer.devices", "2", "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp"]


def interrupted(arguments: list[str], where: Any, name: str, *, epoch: int | None = None) -> None:
    """A `fit` that Ctrl-C ends when it calls a function; of a callback, in an epoch (from 0 on)."""
    original = getattr(where, name)

    def stop(*arguments: Any) -> None:
        if epoch is None or arguments[1].current_epoch == epoch:
            raise KeyboardInterrupt
        original(*arguments)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, name, stop)
        assert main(["fit", *arguments]) == Exit.INTERRUPTED
    signal.signal(signal.SIGINT, handler)  # Lightning ignores Ctrl-C while it shuts down


def before_its_result(arguments: list[str]) -> None:
    interrupted(arguments, recorder, "write_result")
    assert not RUN.result.exists()


def in_its_second_epoch(arguments: list[str]) -> None:
    interrupted(arguments, EpochLines, "on_train_epoch_end", epoch=1)
    assert open_checkpoint(RUN.last).epoch == 0


def before_its_first_checkpoint(arguments: list[str]) -> None:
    """As SIGKILL leaves it: the folder is not removed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnnbench.training.claim.FolderClaim._give_back", lambda self: None)
        interrupted(arguments, EpochLines, "on_train_epoch_end", epoch=0)
    shutil.rmtree(RUN.path)
    RUN.path.mkdir()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    runs_dir = tmp_path_factory.mktemp("trained")
    assert main(["fit", *SHORT, "--runs-dir", str(runs_dir)]) == 0
    return runs_dir / "mnist5k_linear" / "seed1"


@pytest.fixture
def complete(trained: Path) -> RunFolder:
    """A finished run in the folder that `fit` would use."""
    shutil.copytree(trained, RUN.path)
    return RUN


@pytest.fixture
def config() -> RunConfig:
    return parse(SHORT)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The only line on stderr of a `fit` that must exit 2, but for the one with which training begins."""
    capsys.readouterr()
    assert main(["fit", *arguments]) == Exit.USAGE
    (line,) = (
        line for line in capsys.readouterr().err.splitlines() if not line.startswith(("augmentation: ", "images: "))
    )
    return line


def content(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir()}


class OtherImages(ImageData):
    """The same images under another hash."""

    @property
    def loaded(self) -> Dataset:
        return dataclasses.replace(super().loaded, sha256="0" * 64)


@pytest.mark.parametrize("kept", ["last.ckpt", "best.ckpt", "result.json"])
def test_any_checkpoint_or_result_of_another_run_occupies_its_folder(
    kept: str, complete: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in {"last.ckpt", "best.ckpt", "result.json"} - {kept}:
        (complete.path / name).unlink()
    before = content(complete.path)
    assert "already holds a run: give --overwrite" in refused(capsys, *OTHER)
    assert content(complete.path) == before


def test_a_finished_run_is_not_resumed_and_no_process_is_launched_for_it(
    complete: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(complete.path)
    assert "the run is finished; nothing to resume" in refused(capsys, *SHORT, "--ckpt_path", "last")
    assert content(complete.path) == before


@pytest.mark.parametrize(
    ("killed", "epochs"),
    [(before_its_result, []), (in_its_second_epoch, ["2/2"]), (before_its_first_checkpoint, ["1/2", "2/2"])],
)
def test_a_killed_replacement_is_finished_by_the_same_command(
    killed: Callable[[list[str]], None],
    epochs: list[str],
    complete: RunFolder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    earlier = complete.result.read_bytes()
    killed([*OTHER, "--overwrite"])
    assert (RUN.replaced / "result.json").read_bytes() == earlier
    capsys.readouterr()
    assert main(["fit", *OTHER, "--overwrite"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == epochs
    assert records.read(RUN.result, RunRecord).config.model.lr == 0.01
    assert not RUN.replaced.exists()


def test_an_unfinished_replacement_is_replaced_in_its_turn_and_the_finished_run_kept_until_then(
    complete: RunFolder,
) -> None:
    earlier = complete.result.read_bytes()
    in_its_second_epoch([*OTHER, "--overwrite"])
    third = [*SHORT, "--model.lr", "0.03", "--overwrite"]
    in_its_second_epoch(third)
    assert (RUN.replaced / "result.json").read_bytes() == earlier
    assert main(["fit", *third]) == 0
    assert records.read(RUN.result, RunRecord).config.model.lr == 0.03
    assert not RUN.replaced.exists()


def test_a_replaced_run_is_given_up_only_where_overwrite_says_so(
    complete: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = complete.result.read_bytes()
    before_its_first_checkpoint([*OTHER, "--overwrite"])
    assert "seed1.replaced holds the earlier run" in refused(capsys, *OTHER)
    assert (RUN.replaced / "result.json").read_bytes() == earlier
    diverging = [*SHORT, "--model.lr", "1e30", "--overwrite"]
    assert "diverged" in refused(capsys, *diverging)
    assert RUN.result.read_bytes() == earlier  # back in its place
    assert not RUN.replaced.exists()


def test_a_run_killed_in_its_first_epoch_is_trained_again(complete: RunFolder) -> None:
    for path in (complete.last, complete.result):
        path.unlink()
    assert main(["fit", *SHORT]) == 0
    assert open_checkpoint(RUN.last).epoch == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--model.lr", "0.1"], "model.lr 0.2, the config says 0.1"),
        (["--model.weight_decay", "0"], "model.weight_decay 0.0005, the config says 0.0"),
        (["--data.train_images", "255"], "data.train_images 256, the config says 255"),
        (["--data.batch_size", "32"], "data.batch_size 64, the config says 32"),
        (["--trainer.max_epochs", "3"], "trainer.max_epochs 2, the config says 3"),
        (["--trainer.gradient_clip_val", "0.01"], "trainer.gradient_clip_val None, the config says 0.01"),
        (["--trainer.accumulate_grad_batches", "2"], "trainer.accumulate_grad_batches None, the config says 2"),
        (["--trainer.precision", "64-true"], "trainer.precision auto, the config says 64-true"),
        (["--trainer.max_time", "00:01:00:00"], "trainer.max_time None, the config says 00:01:00:00"),
    ],
)
def test_a_run_is_resumed_with_the_configuration_it_was_begun_with(
    change: list[str], words: str, complete: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(complete.path)
    assert words in refused(capsys, *SHORT, *change, "--ckpt_path", "last")
    assert content(complete.path) == before


def test_a_run_is_resumed_on_the_images_it_was_begun_on(complete: RunFolder, config: RunConfig) -> None:
    data = OtherImages(config.data)
    with pytest.raises(CnnbenchError, match="images that hash to") as error:
        decide(complete, config, data=data, checkpoint=complete.last, overwrite=False)
    assert error.value.code == Exit.USAGE


# several processes


def test_all_processes_begin_alike_though_the_first_has_written_the_result(
    complete: RunFolder, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = complete.result.read_bytes()
    complete.result.unlink()
    data = ImageData(config.data)
    first = decide(complete, config, data=data, checkpoint=None, overwrite=False)
    assert first == Start(finishes=True)
    with passed_on(first):
        complete.result.write_bytes(result)
        monkeypatch.setattr(rank_zero_only, "rank", 1)
        assert decide(complete, config, data=data, checkpoint=None, overwrite=True) == first
        monkeypatch.setattr(rank_zero_only, "rank", 0)
    assert start.VARIABLE not in os.environ
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # launched by another program: each looks for itself
    assert decide(complete, config, data=data, checkpoint=None, overwrite=False) == first


@pytest.mark.slow
def test_two_processes_refuse_to_resume_a_finished_run_and_finish_a_killed_one() -> None:
    together = [sys.executable, "-m", "cnnbench", "fit", *SHORT, *TWO_PROCESSES]
    assert subprocess.run(together, capture_output=True, timeout=120, check=False).returncode == 0
    done = subprocess.run([*together, "--ckpt_path", "last"], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "nothing to resume" in done.stderr
    RUN.result.unlink()
    done = subprocess.run([*together, "--test"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert records.read(RUN.result, RunRecord).test is not None
