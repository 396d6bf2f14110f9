"""`sweep` from the command line.

Runs are done in this process, which saves the seconds that Python, torch and Lightning take to start; processes of
their own are tested in tests/training, and by the slow test here.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sweeping import in_this_process

from cnnbench.__main__ import main
from cnnbench.types import Exit

TWO = ["mnist5k_linear", "mnist5k_mlp"]
SHORT = ["--override", "trainer.max_epochs=1"]
JSON = ["--format", "json"]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The runs that were started, in this process."""
    return in_this_process(monkeypatch)


Rows = list[dict[str, Any]]


@pytest.fixture
def swept(commands: list[list[str]], capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Rows, str]]:
    """Runs a sweep; its exit code, its rows, and what it said on the way."""

    def run(*arguments: str) -> tuple[int, Rows, str]:
        capsys.readouterr()
        code = main(["sweep", *arguments, *JSON])
        said = capsys.readouterr()
        return code, json.loads(said.out), said.err

    return run


Sweep = Callable[..., tuple[int, Rows, str]]


def files(folder: str = "runs") -> dict[str, tuple[int, bytes]]:
    """Every file with its time and content."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def timeless(result: Path) -> dict[str, Any]:
    record = json.loads(result.read_text())
    curve = [{**epoch, "train_seconds": 0} for epoch in record["fit"]["curve"]]
    parts = {key: record["fit"][key] for key in ("epochs", "steps", "best_epoch", "val_accuracy")}
    test = {**record["test"], "checkpoint_sha256": ""}  # a checkpoint holds times
    return {"identity": record["identity"], "curve": curve, "fit": parts, "test": test}


@pytest.mark.slow
def test_a_sweep_does_what_fit_and_test_do_and_does_it_once(swept: Sweep, commands: list[list[str]]) -> None:
    code, rows, said = swept(*TWO, "--seeds", "2", *SHORT)
    assert code == Exit.OK
    place = [(row["task"], row["seed"], row["state"]) for row in rows]
    assert place == [(task, seed, "done") for task in TWO for seed in (1, 2)]
    timing, to_do, *steps = said.splitlines()
    assert (timing[:6], to_do[:12]) == ("timing", "4 runs to do")
    assert [line.split(" ")[0] for line in steps] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert all(" left" in line for line in steps[:3])
    assert " left" not in steps[3]

    alone = ["--config", "mnist5k_mlp", "--trainer.max_epochs", "1", "--seed_everything", "2", "--runs-dir", "alone"]
    assert main(["fit", *alone]) == 0
    assert main(["test", *alone]) == 0
    results = [Path(folder, "mnist5k_mlp/seed2/result.json") for folder in ("runs", "alone")]
    assert timeless(results[0]) == timeless(results[1])
    assert rows[3]["accuracy"] == timeless(results[1])["test"]["accuracy"]
    ours, theirs = (torch.load(path.with_name("best.ckpt"), weights_only=True)["state_dict"] for path in results)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    before = files()
    commands.clear()
    code, again, said = swept(*TWO, "--seeds", "2", *SHORT)
    assert (code, commands, said) == (Exit.OK, [], "")
    assert [row["state"] for row in again] == ["was done"] * 4
    assert [row["accuracy"] for row in again] == [row["accuracy"] for row in rows]
    assert files() == before

    code, more, _ = swept(*TWO, "--seeds", "3", *SHORT)
    assert code == Exit.OK
    assert [row["state"] for row in more] == ["was done", "was done", "done"] * 2
    assert len(commands) == 2
    assert {name: value for name, value in files().items() if name in before} == before


def test_a_run_that_diverges_is_a_row_with_its_reason_and_a_later_success_removes_it(
    swept: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    code, rows, said = swept("mnist5k_linear", "--seeds", "1", *SHORT, "--override", "model.lr=1e6")
    assert code == Exit.SWEEP == 7
    assert (rows[0]["state"], rows[0]["accuracy"]) == ("failed", None)
    assert "linear diverged in epoch 1" in rows[0]["reason"]
    assert "[1/1] mnist5k_linear seed 1: failed: linear diverged" in said
    assert said.splitlines()[-1] == "cnnbench: 1 of 1 runs failed; the same command tries them again"
    failure = Path("runs/mnist5k_linear/seed1/failure.json")
    assert json.loads(failure.read_text())["reason"] == rows[0]["reason"]
    assert not failure.with_name("result.json").exists()

    assert main(["compare", "runs", *JSON]) == Exit.OK
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["task"], row["accuracy"]) == ("mnist5k_linear", None)
    assert "linear diverged" in row["failures"][0]

    code, rows, _ = swept("mnist5k_linear", "--seeds", "1", *SHORT)
    assert (code, rows[0]["state"]) == (Exit.OK, "done")
    assert not failure.exists()


def test_one_failure_leaves_the_other_runs_alone(swept: Sweep) -> None:
    Path("hot.yaml").write_text("model: {arch: linear, lr: 1000000.0}\ntask: hot\n")
    code, rows, said = swept("hot.yaml", "mnist5k_linear", "--seeds", "1", *SHORT)
    assert code == Exit.SWEEP
    assert [(row["task"], row["state"]) for row in rows] == [("hot", "failed"), ("mnist5k_linear", "done")]
    assert "1 of 2 runs failed" in said


@pytest.mark.slow
def test_a_run_of_something_else_is_refused_before_anything_starts_and_replaced_when_asked(
    swept: Sweep, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert swept("mnist5k_linear", "--seeds", "1", *SHORT)[0] == Exit.OK
    before = files()
    commands.clear()
    changed = [*TWO, "--seeds", "1", *SHORT, "--override", "model.lr=0.05"]
    capsys.readouterr()
    assert main(["sweep", *changed]) == Exit.USAGE
    timing, said = capsys.readouterr().err.splitlines()
    assert timing.startswith("timing")
    assert "seed1 holds a run of another configuration, data or code (1 such): give --overwrite" in said
    assert commands == []
    assert files() == before

    code, rows, _ = swept(*changed, "--overwrite")
    assert (code, [row["state"] for row in rows]) == (Exit.OK, ["done", "done"])
    record = json.loads(Path("runs/mnist5k_linear/seed1/result.json").read_text())
    assert record["config"]["model"]["lr"] == 0.05


def test_the_dry_run_counts_and_starts_nothing(
    swept: Sweep, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert swept("mnist5k_linear", "--seeds", "1", *SHORT)[0] == Exit.OK
    before = files()
    commands.clear()
    _, rows, _ = swept(*TWO, "--seeds", "3", *SHORT, "--dry-run")
    counted = [(row["task"], row["arch"], row["seeds"], row["epochs"], row["to_do"], row["done"]) for row in rows]
    assert counted == [("mnist5k_linear", "linear", 3, 1, 2, 1), ("mnist5k_mlp", "mlp", 3, 1, 3, 0)]
    assert all(row["minutes"] > 0 and row["bytes"] > 0 for row in rows)
    _, rows, _ = swept("mnist5k_linear", "--seeds", "2", *SHORT, "--override", "model.lr=0.05", "--dry-run")
    assert (rows[0]["to_do"], rows[0]["done"], rows[0]["outdated"]) == (1, 0, 1)
    assert main(["sweep", *TWO, "--seeds", "3", *SHORT, "--dry-run"]) == Exit.OK
    assert "5 of 6 runs to do: about" in capsys.readouterr().out
    assert commands == []
    assert files() == before


@pytest.mark.slow
def test_pairs_of_datasets_and_architectures_with_fewer_images(swept: Sweep) -> None:
    pairs = ["--dataset", "mnist5k", "--arch", "linear,resnet32", "--train-images", "100,300", "--seeds", "1"]
    _, rows, _ = swept(*pairs, "--dry-run")
    tasks = [f"mnist5k_{arch}_n{count}" for arch in ("linear", "resnet32") for count in (100, 300)]
    assert [row["task"] for row in rows] == tasks
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "name architectures or tasks, such as `cnnbench sweep lenet5 mlp --dataset mnist`"),
        (["mnist5k_linear", "--dataset", "mnist5k", "--arch", "mlp"], 2, "name architectures once"),
        (["--dataset", "mnist5k"], 2, "such as `cnnbench sweep lenet5 mlp --dataset mnist5k`"),
        (["mnist5k_linear", "--seeds", "0"], 2, "--seeds 0"),
        (["mnist5k_linear", "--jobs", "0"], 2, "--jobs 0"),
        (["mnist5k_linear", "--executor", "abacus"], 2, "'abacus' is unknown: expected"),
        (["mnist5k_linear", "--executor-options", "num_cpus"], 2, "--executor-options num_cpus: expected KEY=VALUE"),
        (["mnist5k_linear", "--executor-options", "num_cpus=2"], 2, "runs on this machine take --jobs"),
        (["mnist5k_linaer"], 2, "did you mean linear"),
        (["--dataset", "mnist5k", "--arch", "linear,resnet81"], 2, "did you mean resnet18"),
        (["mnist5k_linear", "--override", "model.lrr=1"], 2, "did you mean --model.lr?"),
        (["mnist5k_linear", "--train-images", "many"], 2, "'many' is not a whole number"),
        (["mnist5k_linear", "--train-images", "100,"], 2, "has an empty item"),
        (["mnist5k_linear", "--train-images", "100,0"], 2, "--train-images 0: expected at least 1"),
        (["mnist5k_linear", "--train-images", "4001"], 2, "data.train_images is 4001: expected 10"),
        (["mnist5k_linear", "--runs-dir", "file/below"], 2, "cannot write to file/below"),
        (["mnist_linear", "--override", "data.root=nowhere"], 3, "nowhere"),
        (["mnist5k_linear", "--override", "a=1", "b=2"], 2, "separate several values by commas"),
        (["mnist5k_linear", "--sedes", "2"], 2, "did you mean --seeds"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], code: int, words: str, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").touch()
    capsys.readouterr()
    assert main(["sweep", *arguments]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("cnnbench: ")
    assert said.err.count("\n") == 1
    assert words in said.err
    assert commands == []


@pytest.mark.slow
def test_two_jobs_in_processes_of_their_own_give_what_one_gives_in_this_one(
    swept: Sweep, commands: list[list[str]]
) -> None:
    assert swept(*TWO, "--seeds", "2", *SHORT, "--runs-dir", "one")[0] == Exit.OK
    command = [sys.executable, "-m", "cnnbench", "sweep", *TWO, "--seeds", "2", *SHORT, *JSON, "--jobs", "2"]
    done = subprocess.run([*command, "--runs-dir", "two"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert [row["state"] for row in json.loads(done.stdout)] == ["done"] * 4
    for task in TWO:
        for seed in (1, 2):
            one, two = (timeless(Path(folder, task, f"seed{seed}", "result.json")) for folder in ("one", "two"))
            assert one == two
            assert Path("two", task, f"seed{seed}.log").read_text().count("test accuracy") == 1
