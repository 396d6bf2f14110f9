"""Runs that are killed, and places that are full, missing or in use: nothing that was trained is lost."""

import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sweeping import in_this_process

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.records.schema import FitResult, RunRecord
from cnnbench.training import folder as run_folder
from cnnbench.training import recorder
from cnnbench.training.checkpoints import AtomicCheckpointIO, BestAndLast
from cnnbench.training.folder import RunFolder, is_locked, locked
from cnnbench.training.stopping import StopSignals
from cnnbench.training.stored import open_checkpoint
from cnnbench.training.trainer import EpochLines
from cnnbench.types import CnnbenchError, Exit

LINEAR = ["--config", "mnist5k_linear", "--data.train_images", "256"]
SHORT = [*LINEAR, "--trainer.max_epochs", "3"]
OVERRIDES = "data.train_images=256,trainer.max_epochs=3"
RUN = RunFolder(Path("runs/mnist5k_linear/seed1"))


def stopped_at(epoch: int, arguments: list[str]) -> None:
    """A `fit` that is interrupted in an epoch (from 0 on), before its checkpoint."""

    def stop(self: EpochLines, trainer: object, pl_module: object) -> None:
        if trainer.current_epoch == epoch:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EpochLines, "on_train_epoch_end", stop)
        assert main(["fit", *arguments]) == Exit.INTERRUPTED
    signal.signal(signal.SIGINT, handler)  # Lightning ignores Ctrl-C while it shuts down


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=True)["state_dict"]
    return state


def same_weights(first: Path, second: Path) -> bool:
    ours, others = weights(first), weights(second)
    return ours.keys() == others.keys() and all(torch.equal(ours[name], others[name]) for name in ours)


def timeless(fit: FitResult) -> FitResult:
    curve = tuple(records.replace(epoch, train_seconds=0.0) for epoch in fit.curve)
    return records.replace(fit, train_seconds=0.0, validation_seconds=0.0, curve=curve, resources=None)


# last.ckpt, after every epoch


def test_an_interrupted_run_without_improvement_resumes_from_its_last_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    still = [*LINEAR, "--model.lr", "1e-9", "--trainer.max_epochs", "14"]  # the accuracy stays that of epoch 1
    assert main(["fit", *still, "--runs-dir", "undisturbed"]) == 0
    stopped_at(12, still)
    assert open_checkpoint(RUN.best).epoch == 0
    assert open_checkpoint(RUN.last).epoch == 11
    capsys.readouterr()
    assert main(["fit", *still, "--ckpt_path", "last"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]
    assert [line.split()[1] for line in lines] == ["13/14", "14/14"]
    undisturbed = RunFolder(Path("undisturbed/mnist5k_linear/seed1"))
    for name in ("best.ckpt", "last.ckpt"):
        assert same_weights(RUN.path / name, undisturbed.path / name)
    fits = [records.read(run.result, RunRecord).fit for run in (RUN, undisturbed)]
    assert timeless(fits[0]) == timeless(fits[1])


@pytest.mark.parametrize("every", [1, 2])
def test_best_is_the_earliest_of_the_best_validations_and_last_the_last_epoch(every: int) -> None:
    assert main(["fit", *LINEAR, "--trainer.max_epochs", "6", "--trainer.check_val_every_n_epoch", str(every)]) == 0
    fit = records.read(RUN.result, RunRecord).fit
    accuracies = [epoch.val_accuracy for epoch in fit.curve]
    assert open_checkpoint(RUN.best).epoch == fit.best_epoch
    assert fit.curve[accuracies.index(max(accuracies))].epoch == fit.best_epoch + 1
    assert open_checkpoint(RUN.last).epoch == 5


# killed between the last checkpoint and result.json


Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def complete(once: Once) -> Path:
    """The folder of a run that nothing disturbed."""

    def make(folder: Path) -> None:
        assert main(["fit", *SHORT, "--runs-dir", str(folder)]) == 0

    return once("complete", make) / "mnist5k_linear" / "seed1"


@pytest.fixture
def killed(once: Once) -> RunFolder:
    """A run that was stopped when it would have written its result: a copy of its own for each test."""
    shutil.copytree(once("killed", stopped_before_its_result), "runs")
    assert not RUN.result.exists()
    return RUN


def stopped_before_its_result(folder: Path) -> None:
    def stop(run: RunFolder, record: RunRecord) -> None:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "write_result", stop)
        assert main(["fit", *SHORT, "--runs-dir", str(folder)]) == Exit.INTERRUPTED
    signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize(
    ("verb", "tested"),
    [
        (["fit", *SHORT, "--ckpt_path", "last"], False),
        (["fit", *SHORT], False),
        (["fit", *SHORT, "--test"], True),
        (["test", *SHORT], True),
        (["sweep", "mnist5k_linear", "--seeds", "1", "--override", OVERRIDES], True),
    ],
    ids=["fit from last", "fit", "fit with test", "test", "sweep"],
)
def test_a_run_killed_before_its_result_is_finished_by_the_next_command(
    verb: list[str], tested: bool, killed: RunFolder, complete: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(monkeypatch)
    left = {name: (killed.path / name).read_bytes() for name in ("best.ckpt", "last.ckpt", "metrics.csv")}
    assert main(verb) == 0
    record, expected = (records.read(path / "result.json", RunRecord) for path in (killed.path, complete))
    assert timeless(record.fit) == timeless(expected.fit)
    assert record.fit.train_seconds > 0
    assert (record.test is not None) == tested
    assert record.val is not None
    assert expected.val is not None
    assert record.val.logits_sha256 == expected.val.logits_sha256
    unchanged = {"fit", "test", "curve", "val"}  # checkpoints hold seconds
    for field in set(RunRecord.__struct_fields__) - unchanged:
        assert getattr(record, field) == getattr(expected, field), field
    assert {name: (killed.path / name).read_bytes() for name in left} == left  # nothing was trained


def test_such_a_run_is_refused_where_the_flags_are_those_of_another(
    killed: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *SHORT, "--model.lr", "0.05"]) == Exit.USAGE
    assert "already holds a run" in capsys.readouterr().err
    assert main(["fit", *SHORT, "--model.lr", "0.05", "--ckpt_path", "last"]) == Exit.USAGE
    assert "the interrupted run had model.lr 0.2" in capsys.readouterr().err
    assert not killed.result.exists()


def test_a_finished_run_is_not_resumed_and_an_interrupted_one_not_tested(
    complete: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(complete, RUN.path)
    assert main(["fit", *SHORT, "--ckpt_path", "last"]) == Exit.USAGE
    assert "nothing to resume" in capsys.readouterr().err
    shutil.rmtree(RUN.path)
    stopped_at(2, SHORT)
    assert main(["test", *SHORT]) == Exit.DATA
    assert "its training has not ended; `fit --ckpt_path last` resumes it" in capsys.readouterr().err


def test_a_state_that_is_not_one_of_ours_is_refused_in_one_line(
    killed: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = torch.load(killed.last, weights_only=True)
    checkpoint["callbacks"]["Recorder"] = {"train": 1.0, "curve": "none"}
    torch.save(checkpoint, killed.last)
    capsys.readouterr()
    assert main(["test", *SHORT]) == Exit.DATA
    message = capsys.readouterr().err
    assert "does not hold the state of a run" in message
    assert message.count("\n") == 1


# damaged checkpoints


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_last_checkpoint_falls_back_to_the_best_one_and_says_so(
    complete: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped_at(1, SHORT)
    damage(RUN.last)
    assert open_checkpoint(RUN.best).epoch == 1
    capsys.readouterr()
    assert main(["fit", *SHORT, "--ckpt_path", "last"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert "last.ckpt is damaged" in said[0]
    assert said[0].endswith("resuming from best.ckpt, of epoch 2")
    assert same_weights(RUN.last, complete / "last.ckpt")
    assert same_weights(RUN.best, complete / "best.ckpt")


@pytest.mark.parametrize(
    "verb",
    [
        ["fit", *SHORT, "--ckpt_path", "last"],
        ["sweep", "mnist5k_linear", "--seeds", "1", "--override", OVERRIDES],
    ],
    ids=["fit", "sweep"],
)
def test_a_run_without_result_whose_last_checkpoint_is_damaged_is_trained_to_its_end(
    verb: list[str], killed: RunFolder, complete: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(monkeypatch)
    damage(killed.last)
    assert main(verb) == 0
    assert same_weights(RUN.best, complete / "best.ckpt")
    fits = [records.read(path / "result.json", RunRecord).fit for path in (killed.path, complete)]
    assert [(fit.val_accuracy, fit.best_epoch, fit.epochs, fit.steps) for fit in fits] == [
        (fits[1].val_accuracy, fits[1].best_epoch, 3, 12)
    ] * 2


def test_two_damaged_checkpoints_are_refused_by_the_name_of_the_newest(
    killed: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(killed.last)
    damage(killed.best)
    capsys.readouterr()
    assert main(["fit", *SHORT, "--ckpt_path", "last"]) == Exit.DATA
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "last.ckpt is damaged" in said


# where checkpoints are written


def test_checkpoints_need_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(FileNotFoundError):
        tempfile.mkstemp()  # else this test could not fail
    assert main(["fit", *SHORT]) == 0
    assert open_checkpoint(RUN.last).epoch == 2
    assert not list(RUN.path.glob(".*"))


def test_a_full_disk_leaves_the_earlier_checkpoint_and_says_so() -> None:
    target = Path("last.ckpt")
    AtomicCheckpointIO().save_checkpoint({"step": 1}, target)
    before = target.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # bytes in any file
    try:
        with pytest.raises(CnnbenchError, match=r"cannot write last\.ckpt: File too large") as refused:
            AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(1_000_000)}, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert refused.value.code == Exit.USAGE
    assert [path.name for path in Path().iterdir()] == ["last.ckpt"]
    assert target.read_bytes() == before


def test_what_a_killed_process_left_half_written_is_removed_by_the_next(complete: Path) -> None:
    stopped_at(2, SHORT)
    half = RUN.path / ".last-half.ckpt"
    half.write_bytes(b"PK")
    assert main(["fit", *SHORT, "--ckpt_path", "last"]) == 0
    assert not half.exists()
    assert same_weights(RUN.last, complete / "last.ckpt")


# one lock per run folder


@pytest.mark.parametrize("verb", ["fit", "test"])
def test_a_folder_that_another_process_uses_is_refused(
    verb: str, complete: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "LOCK_SECONDS", 0.1)
    shutil.copytree(complete, RUN.path)
    before = {path: path.read_bytes() for path in RUN.path.iterdir()}
    with locked(RUN):
        assert is_locked(RUN)
        capsys.readouterr()
        assert main([verb, *SHORT]) == Exit.USAGE
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert "seed1 is in use: another process is training or testing this run" in message
        assert main(["validate", *SHORT]) == 0  # which writes nothing
    assert not is_locked(RUN)
    assert {path: path.read_bytes() for path in RUN.path.iterdir()} == before


def test_a_failed_run_leaves_no_lock_and_no_folder() -> None:
    assert main(["fit", *SHORT, "--model.lr", "1e30"]) == Exit.USAGE
    assert not RUN.path.exists()
    assert not is_locked(RUN)


# the same with processes of their own, and SIGKILL


def fit(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cnnbench", "fit", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_run_loses_at_most_the_epoch_it_was_in_and_its_folder_is_free_again() -> None:
    long = [*LINEAR, "--model.lr", "1e-9", "--trainer.max_epochs", "2000"]
    first = fit(*long)
    try:
        assert first.stderr is not None
        for line in first.stderr:
            if line.startswith("epoch 40/"):
                break
        second = fit(*long)
        _, message = second.communicate(timeout=120)
        assert (second.returncode, message.count("\n")) == (2, 1)
        assert "is in use" in message
        first.kill()
        reached = max(int(line.split()[1].split("/")[0]) for line in ["epoch 40/", *first.stderr] if "epoch" in line)
    finally:
        first.kill()
        first.communicate()
    assert open_checkpoint(RUN.last).epoch + 1 >= reached - 1
    assert not is_locked(RUN)
    resumed = fit(*long, "--ckpt_path", "last")
    try:
        assert resumed.stderr is not None
        line = next(line for line in resumed.stderr if line.startswith("epoch"))
        assert int(line.split()[1].split("/")[0]) >= reached
    finally:
        resumed.kill()
        resumed.communicate()


@pytest.mark.slow
def test_a_run_that_sigkill_ends_before_its_result_is_finished(complete: Path) -> None:
    kill = "import os, signal, sys; from cnnbench.training import recorder; from cnnbench.__main__ import main; "
    kill += "recorder.write_result = lambda *_: os.kill(os.getpid(), signal.SIGKILL); main(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", kill, "fit", *SHORT], capture_output=True, check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL
    assert RUN.last.is_file()
    assert not RUN.result.exists()
    assert main(["fit", *SHORT, "--test"]) == 0
    record = records.read(RUN.result, RunRecord)
    assert timeless(record.fit) == timeless(records.read(complete / "result.json", RunRecord).fit)
    assert record.test is not None


def test_a_resumed_run_keeps_an_earlier_best_checkpoint() -> None:
    callback = BestAndLast(RUN, StopSignals())
    callback.best_accuracy = 0.75
    resumed = BestAndLast(RUN, StopSignals())
    resumed.load_state_dict(callback.state_dict())
    assert resumed.best_accuracy == 0.75
