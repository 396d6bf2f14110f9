import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cnnbench.__main__ import main
from cnnbench.training.trainer import EpochLines

LENET = ["--model.arch", "lenet5"]
SHORT = [*LENET, "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "3"]
TINY = ["--data.dataset", "folder", "--data.folder", "tiny"]
TWO_PROCESSES = ["--trainer.devices", "2", "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp"]


OF_THE_IMAGES = ("images: ", "augmentation: ", "tiny: ", "note: decoded images ", "[1/")


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    """Run a verb that must fail with `code` and one line on stderr, after what is said of the images; returns it."""
    capsys.readouterr()
    assert main(list(arguments)) == code
    seen = capsys.readouterr()
    assert seen.out == ""
    *said, line = seen.err.strip().splitlines()
    assert all(before.startswith(OF_THE_IMAGES) for before in said), seen.err
    assert line.startswith("cnnbench: ")
    return line


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cnnbench", *arguments]


def test_config_file_task_name_and_flags_mean_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    flags = [*LENET, "--data.dataset", "mnist5k", "--data.batch_size", "64", "--trainer.max_epochs", "15"]
    Path("own.yaml").write_text("model: {arch: lenet5}\ndata: {batch_size: 64}\ntrainer: {max_epochs: 15}\n")
    printed = []
    for arguments in (flags, ["--config", "own.yaml"], ["--config", "mnist5k_lenet5"], ["--config=mnist5k_lenet5"]):
        assert main(["fit", *arguments, "--print_config"]) == 0
        printed.append(capsys.readouterr().out)
    assert len(set(printed)) == 1
    assert main(["fit", "--config", "mnist5k_lenet5", "--model.lr", "0.05", "--print_config"]) == 0
    assert "lr: 0.05" in capsys.readouterr().out


def test_the_saved_config_repeats_the_run() -> None:
    assert main(["fit", *SHORT, "--model.lr", "0.05"]) == 0
    run = Path("runs/mnist5k_lenet5/seed1")
    assert main(["fit", "--config", str(run / "config.yaml"), "--runs-dir", "again"]) == 0
    repeated = torch.load("again/mnist5k_lenet5/seed1/last.ckpt", weights_only=True)["state_dict"]
    original = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(repeated[name], original[name]) for name in original)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--model.arch", "resnet81"], 2, ["unknown architecture 'resnet81'", "did you mean resnet18"]),
        ([*LENET, "--data.dataset", "mnist6k"], 2, ["unknown dataset 'mnist6k'", "did you mean mnist5k"]),
        ([*LENET, "--model.lrr", "1"], 2, ["--model.lrr", "did you mean --model.lr?"]),
        ([*LENET, "--print-config"], 2, ["--print-config", "did you mean --print_config?"]),
        ([*LENET, "--trainer.max_epochs", "many"], 2, ["max_epochs", "many"]),
        ([*LENET, "--trainer.accelerator", "abacus"], 2, ["abacus"]),
        ([*LENET, "--trainer.devices", "3", "--trainer.accelerator", "gpu"], 6, ["gpu"]),
        ([*LENET, "--trainer.devices", "999", "--trainer.accelerator", "cpu"], 2, ["devices is 999", "CPU cores"]),
        ([*LENET, "--model.lr", "-1"], 2, ["model.lr is -1", "expected a number from 0 on"]),
        ([*LENET, "--data.batch_size", "0"], 2, ["batch_size is 0", "at least 1"]),
        ([*LENET, "--config", "mnist5k_lenet"], 2, ["'mnist5k_lenet'", "did you mean mnist5k_lenet5"]),
        (
            [*LENET, "--data.dataset", "mnist", "--data.root", "nowhere"],
            3,
            ["nowhere/MNIST/raw", "`cnnbench download mnist --root nowhere`"],
        ),
        ([*LENET, "--data.dataset", "folder"], 3, ["--data.folder", "train/<class>/<image>"]),
        (["--model.arch", "inception_small", *TINY, "--data.size", "3"], 2, ["inception_small cannot take 3x3", "4x4"]),
        ([*LENET, "--runs-dir", "file/below"], 2, ["cannot write to file/below"]),
        ([*LENET, "--ckpt_path", "gone.ckpt"], 3, ["no checkpoint at gone.ckpt"]),
        ([*LENET, "--seed_everything", "false"], 2, ["seed_everything is false", "whole number"]),
        ([*LENET, "--seed_everything", "-3"], 2, ["seed_everything is -3", "from 0"]),
        ([*LENET, "--trainer.max_epochs", "0"], 2, ["max_epochs is 0", "at least 1"]),
        ([], 2, ["name an architecture", "cnnbench list"]),
    ],
)
def test_bad_input_to_fit_is_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    words: list[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path.cwd() / "cache"))
    Path("file").touch()
    _tiny_folder(Path("tiny"))
    line = refused(capsys, code, "fit", *arguments)
    for word in words:
        assert word in line
    assert not list(Path().glob("runs/*/*/*"))


def _tiny_folder(root: Path) -> None:
    for name in ("cats", "dogs"):
        (root / "train" / name).mkdir(parents=True)
        for index in range(12):
            Image.new("RGB", (5, 5), (index, 0, 0)).save(root / "train" / name / f"{index}.png")


def test_a_shared_config_cannot_name_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "canary_module.py").write_text("from pathlib import Path\nPath('canary').touch()\nclass C: pass\n")
    for key in ("callbacks", "logger", "plugins", "profiler", "strategy", "accelerator"):
        Path("evil.yaml").write_text(f"model: {{arch: lenet5}}\ntrainer: {{{key}: {{class_path: canary_module.C}}}}\n")
        refused(capsys, 2, "fit", "--config", "evil.yaml")
    Path("evil.yaml").write_text("model: {class_path: canary_module.C}\n")
    refused(capsys, 2, "fit", "--config", "evil.yaml")
    assert not Path("canary").exists()


def test_an_earlier_run_is_replaced_only_when_asked_and_only_by_a_finished_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["fit", *SHORT]) == 0
    folder = Path("runs/mnist5k_lenet5/seed1")
    before = (folder / "result.json").read_text()
    assert "already holds a run" in refused(capsys, 2, "fit", *SHORT)
    diverging = [*SHORT, "--model.lr", "1e30", "--overwrite"]
    assert "diverged" in refused(capsys, 2, "fit", *diverging)
    assert (folder / "result.json").read_text() == before
    assert main(["fit", *SHORT, "--model.lr", "0.01", "--overwrite"]) == 0
    assert (folder / "result.json").read_text() != before
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["seed1"]


def test_an_interrupted_run_goes_on_to_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--model.arch", "linear", "--trainer.max_epochs", "3", "--trainer.limit_train_batches", "5"]
    assert main(["fit", *arguments, "--runs-dir", "whole"]) == 0

    def stop(self: EpochLines, trainer: object, pl_module: object) -> None:
        if trainer.current_epoch == 1:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EpochLines, "on_train_epoch_end", stop)
        handler = signal.getsignal(signal.SIGINT)
        assert main(["fit", *arguments, "--runs-dir", "parts"]) == 130
        signal.signal(signal.SIGINT, handler)  # Lightning ignores Ctrl-C while it shuts down
    place = Path("mnist5k_linear/seed1")
    assert not (Path("parts") / place / "result.json").exists()
    assert main(["fit", *arguments, "--runs-dir", "parts", "--ckpt_path", "last"]) == 0
    whole, parts = (torch.load(Path(name) / place / "last.ckpt", weights_only=True) for name in ("whole", "parts"))
    assert whole["global_step"] == parts["global_step"] == 15
    logged, resumed = ((Path(name) / place / "metrics.csv").read_bytes() for name in ("whole", "parts"))
    assert logged == resumed
    assert [line.split(b",")[0] for line in logged.splitlines()] == [b"epoch", b"1", b"2", b"3"]
    for name, weights in whole["state_dict"].items():
        assert torch.equal(weights, parts["state_dict"][name]), name


def test_checkpoint_and_config_must_name_the_same_architecture(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    line = refused(capsys, 2, "test", "--model.arch", "mlp", "--ckpt_path", str(run / "best.ckpt"))
    assert "holds lenet5, but the config names mlp" in line


def test_checkpoint_and_data_must_agree(
    capsys: pytest.CaptureFixture[str], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path.cwd() / "cache"))
    _tiny_folder(Path("tiny"))
    arguments = [*LENET, *TINY, "--ckpt_path", str(run / "best.ckpt")]
    assert "trained on mnist5k" in refused(capsys, 2, "test", *arguments)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--model.lr", "0.07"], "model.lr 0.2, the config says 0.07"),
        (["--model.weight_decay", "0"], "model.weight_decay 0.0005, the config says 0.0"),
        (["--trainer.max_epochs", "3"], "trainer.max_epochs 2, the config says 3"),
        (["--data.batch_size", "64"], "data.batch_size 128, the config says 64"),
    ],
)
def test_going_on_with_other_figures_is_refused(
    runs_dir: Path, run: Path, capsys: pytest.CaptureFixture[str], change: list[str], words: str
) -> None:
    same = [*LENET, "--trainer.max_epochs", "2", "--runs-dir", str(runs_dir), "--ckpt_path", "last"]
    assert words in refused(capsys, 2, "fit", *same, *change)


@pytest.mark.slow
def test_a_moved_run_goes_on_and_keeps_its_best(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: EpochLines, trainer: object, pl_module: object) -> None:
        if trainer.current_epoch == 1:  # type: ignore[attr-defined]
            raise SystemExit(143)

    arguments = [*LENET, "--trainer.max_epochs", "4", "--trainer.limit_train_batches", "12"]
    with monkeypatch.context() as patch:
        patch.setattr(EpochLines, "on_train_epoch_end", stop)
        assert main(["fit", *arguments, "--runs-dir", "here"]) == 143
    Path("here").rename("there")
    assert main(["fit", *arguments, "--runs-dir", "there", "--ckpt_path", "last"]) == 0
    folder = Path("there/mnist5k_lenet5/seed1")
    assert sorted(path.name for path in folder.glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]
    best = torch.load(folder / "best.ckpt", weights_only=True)
    fit = json.loads((folder / "result.json").read_text())["fit"]
    assert fit["best_epoch"] == best["epoch"] > 1  # four epochs in, the second is not the best
    assert not Path("here").exists()


def test_going_on_with_another_runs_checkpoint_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not of this run" in refused(capsys, 2, "fit", *LENET, "--ckpt_path", str(run / "last.ckpt"))


def test_a_finished_run_is_not_gone_on_with(run: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir() if "tfevents" not in path.name}
    same = [*LENET, "--runs-dir", str(runs_dir), "--trainer.max_epochs", "2", "--ckpt_path", "last"]
    assert "the run is finished; nothing to resume" in refused(capsys, 2, "fit", *same)
    assert {path.name: path.read_bytes() for path in run.iterdir() if "tfevents" not in path.name} == before


def test_testing_another_checkpoint_leaves_the_record_alone(
    run: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "result.json").read_text()
    assert main(["test", *LENET, "--runs-dir", str(runs_dir), "--ckpt_path", "last"]) == 0
    assert "not recorded" in capsys.readouterr().err
    assert (run / "result.json").read_text() == before


def test_validate_and_predict(run: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = [*LENET, "--runs-dir", str(runs_dir), "--format", "json"]
    capsys.readouterr()
    assert main(["validate", *common]) == 0
    validated = json.loads(capsys.readouterr().out)
    result = json.loads((run / "result.json").read_text())
    assert validated["accuracy"] == pytest.approx(result["fit"]["val_accuracy"])
    assert validated["images"] == 500
    assert main(["predict", *common]) == 0
    predicted = json.loads(capsys.readouterr().out)
    assert predicted["images"] == 500
    assert Path(predicted["predictions"]).read_bytes()[:4] == b"PAR1"


def test_own_images_are_trained_tested_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path.cwd() / "cache"))
    _tiny_folder(Path("mine"))
    Path("mine/train/cats/broken.png").write_bytes(b"broken")
    arguments = [*LENET, "--data.folder", "mine", "--data.name", "pets", "--data.skip_broken", "true"]
    capsys.readouterr()
    assert main(["fit", *arguments, "--trainer.max_epochs", "1"]) == 0
    said = capsys.readouterr().err
    assert "left out, cannot be read: 1 (train/cats/broken.png)" in said
    assert "images: train 16 (cats 8, dogs 8); val 4 (cats 2, dogs 2); test 4 (cats 2, dogs 2)" in said
    assert main(["test", *arguments]) == 0
    result = json.loads(Path("runs/pets_lenet5/seed1/result.json").read_text())
    assert result["data"]["name"] == "pets"
    assert result["spec"]["num_classes"] == 2
    assert result["test"]["images"] == 4  # 15 % of 12 images of each of two classes
    assert result["class_names"] == ["cats", "dogs"]
    assert (result["data"]["broken"], result["data"]["skip_broken"]) == (1, True)
    table = pq.read_table("runs/pets_lenet5/seed1/predictions.parquet").to_pydict()
    for file, label in zip(table["file"], table["label"], strict=True):
        assert file.startswith(f"train/{('cats', 'dogs')[label]}/")
        assert (Path("mine") / file).is_file()
    assert pq.read_table("runs/pets_lenet5/seed1/val_predictions.parquet")["file"].to_pylist()


def test_a_folder_that_changed_since_fit_is_refused_with_what_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path.cwd() / "cache"))
    _tiny_folder(Path("mine"))
    for index in range(3):
        for name in ("cats", "dogs"):
            path = Path("mine") / "test" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (5, 5), (index, 99, 10 * ("cats", "dogs").index(name))).save(path)
    arguments = [*LENET, "--data.folder", "mine"]
    assert main(["fit", *arguments, "--trainer.max_epochs", "1"]) == 0
    changes: tuple[tuple[Callable[[], object], str | None], ...] = (
        (lambda: Path("mine/test/cats/2.png").rename("mine/test/cats/9.png"), None),  # the same images
        (lambda: Path("mine/test/cats/1.png").unlink(), "1 gone: test/cats/1.png (test)"),
        (lambda: Image.new("RGB", (5, 5)).save("mine/test/cats/0.png"), "1 of another content: test/cats/0.png (test)"),
        (
            lambda: Path("mine/test/dogs/0.png").rename("mine/test/cats/7.png"),
            "1 of another class: test/cats/7.png (test)",
        ),
    )
    for change, told in changes:
        change()
        for verb in ("test", "validate", "predict"):
            if told is None:
                assert main([verb, *arguments]) == 0
            else:
                said = refused(capsys, 3, verb, *arguments)
                assert "these are not the images of the record" in said
                assert told in said
    shutil.rmtree("cache")
    said = refused(capsys, 3, "test", *arguments)
    assert (
        "here are 20 training, 4 validation and 5 test images; the record has 20 training, 4 validation and 6" in said
    )


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_one_line_of_ours_alone() -> None:
    """torchmetrics imports Matplotlib, which would tell of its own cache, too."""
    _tiny_folder(Path("mine"))
    Path("cache").touch()
    place = {**os.environ, "XDG_CACHE_HOME": str(Path.cwd() / "cache")}
    arguments = command("fit", *LENET, "--data.folder", "mine")
    done = subprocess.run(arguments, env=place, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"cnnbench: cannot write {Path.cwd() / 'cache'}/cnnbench/folders/")


def test_a_relative_folder_that_is_not_here_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path.cwd() / "cache"))
    _tiny_folder(Path("mine"))
    assert main(["fit", *LENET, "--data.folder", "mine", "--trainer.max_epochs", "1", "--test"]) == 0
    run = Path("runs/folder_lenet5/seed1").resolve()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    said = refused(capsys, 3, "export", str(run))
    assert f"no mine in {Path.cwd()}; a record may name one relative to where `fit` ran" in said


def test_fit_with_test_is_fit_and_then_test(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["fit", *SHORT, "--runs-dir", "one", "--test", "--format", "json"]) == 0
    said = json.loads(capsys.readouterr().out)  # one document
    assert main(["fit", *SHORT, "--runs-dir", "two"]) == 0
    assert main(["test", *SHORT, "--runs-dir", "two"]) == 0
    one, two = (json.loads(Path(f"{name}/mnist5k_lenet5/seed1/result.json").read_text()) for name in ("one", "two"))
    assert _timeless(said) == _timeless(one)
    assert one["test"]["images"] == 500
    assert _timeless(one) == _timeless(two)
    tables = [pq.read_table(f"{name}/mnist5k_lenet5/seed1/predictions.parquet") for name in ("one", "two")]
    assert tables[0].equals(tables[1])


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    """A record without times, what was measured besides, and the hash of a checkpoint, which holds times."""
    fit = {key: value for key, value in record["fit"].items() if key not in ("resources", "curve", "train_seconds")}
    fit["curve"] = [{**epoch, "train_seconds": 0} for epoch in record["fit"]["curve"]]
    val, test = ({**record[split], "checkpoint_sha256": ""} for split in ("val", "test"))
    return {**record, "fit": {**fit, "validation_seconds": 0}, "val": val, "test": test, "seal": ""}


def test_a_failed_fit_is_not_tested_and_leaves_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    diverging = [*SHORT, "--model.lr", "1e30", "--test", "--format", "json"]
    assert "lenet5 diverged" in refused(capsys, 2, "fit", *diverging)
    assert not list(Path().rglob("result.json"))


def test_a_fit_that_succeeds_removes_the_failure_before_it() -> None:
    failure = Path("runs/mnist5k_lenet5/seed1/failure.json")
    failure.parent.mkdir(parents=True)
    failure.write_text("{}")
    assert main(["fit", *SHORT]) == 0
    assert not failure.exists()
    assert (failure.parent / "result.json").is_file()


def test_the_config_of_a_run_that_was_never_saved_is_not_kept() -> None:
    folder = Path("runs/mnist5k_lenet5/seed1")
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("model: {arch: lenet5, lr: 0.7}\n")  # of a run that was killed in epoch 1
    assert main(["fit", *SHORT, "--model.lr", "0.05"]) == 0
    assert "lr: 0.05" in (folder / "config.yaml").read_text()


def test_fast_dev_run_writes_nothing() -> None:
    assert main(["fit", *LENET, "--trainer.fast_dev_run", "true", "--test"]) == 0
    assert not Path("runs").exists()


@pytest.mark.slow
def test_two_processes_train_and_count_every_test_image_once(runs_dir: Path, run: Path) -> None:
    trained = subprocess.run(
        command("fit", *SHORT, *TWO_PROCESSES, "--test"), capture_output=True, text=True, timeout=300
    )
    assert trained.returncode == 0, trained.stderr
    result = json.loads(Path("runs/mnist5k_lenet5/seed1/result.json").read_text())
    assert (result["environment"]["processes"], result["test"]["images"]) == (2, 500)
    alone = json.loads((run / "result.json").read_text())["test"]
    shared = ["test", *LENET, *TWO_PROCESSES, "--runs-dir", str(runs_dir), "--format", "json"]
    tested = subprocess.run(command(*shared), capture_output=True, text=True, timeout=300)
    assert tested.returncode == 0, tested.stderr
    together = json.loads(tested.stdout)["test"]
    assert together["images"] == 500
    assert (together["correct"], together["accuracy"]) == (alone["correct"], alone["accuracy"])
    assert together["loss"] == pytest.approx(alone["loss"], rel=1e-5)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.slow
def test_signals_end_a_run_with_their_code(sent: signal.Signals, code: int) -> None:
    process = subprocess.Popen(
        command("fit", *LENET, "--trainer.max_epochs", "500"),
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts its background jobs with Ctrl-C ignored, and the tests may be one
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stderr is not None
        while (line := process.stderr.readline()).startswith(OF_THE_IMAGES):
            pass
        assert line.startswith("epoch 1/")
        os.kill(process.pid, sent)
        started = time.monotonic()
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert time.monotonic() - started < 30
    assert not Path("runs/mnist5k_lenet5/seed1/result.json").exists()
