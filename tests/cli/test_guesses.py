"""What an engineer types in the first half hour, before reading: it works, or one line says what to type.

Nothing is trained: a command that would train is only parsed.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from cnnbench.__main__ import main
from cnnbench.cli import front, lightning, parser
from cnnbench.records.schema import RunConfig
from cnnbench.training import config

RUN = "runs/mnist5k_lenet5/seed1"

SAME: dict[str, str] = {
    # a command of `fit` and the three verbs that score a run: the same in dotted flags
    "fit lenet5": "fit --config mnist5k_lenet5",
    "fit mnist5k_lenet5": "fit --config mnist5k_lenet5",
    "fit mnist_lenet5": "fit --config mnist_lenet5",
    "fit mnist5k_resnet32": "fit --model.arch resnet32",
    "fit lenet5 --dataset mnist": "fit --config mnist_lenet5",
    "fit --dataset mnist lenet5": "fit --config mnist_lenet5",
    "fit --arch lenet5": "fit --model.arch lenet5",
    "fit --arch lenet5 --dataset mnist --epochs 3 --lr 0.1 --seed 2 --batch-size 128": "fit --model.arch lenet5 "
    "--data.dataset mnist --trainer.max_epochs 3 --model.lr 0.1 --seed_everything 2 --data.batch_size 128",
    "fit lenet5 --batch_size 32": "fit --config mnist5k_lenet5 --data.batch_size 32",
    "fit lenet5 --epochs=3": "fit --config mnist5k_lenet5 --trainer.max_epochs 3",
    "fit --epochs 3 lenet5": "fit --config mnist5k_lenet5 --trainer.max_epochs 3",
    "fit lenet5 --folder mine": "fit --model.arch lenet5 --data.folder mine",
    "fit lenet5 --dataset cifar10 --download": "fit --model.arch lenet5 --data.dataset cifar10 --data.download true",
    "fit lenet5 --devices 2": "fit --config mnist5k_lenet5 --trainer.devices 2",
    "fit lenet5 --precision 32-true": "fit --config mnist5k_lenet5 --trainer.precision 32-true",
    "fit torchvision/resnet18": "fit --model.arch torchvision/resnet18",
    "fit own.yaml": "fit --config own.yaml",
    f"fit {RUN}": f"fit --config {RUN}/config.yaml --runs-dir runs --ckpt_path last",
    f"test {RUN}": f"test --config {RUN}/config.yaml --runs-dir runs --ckpt_path {RUN}/best.ckpt",
    f"test {RUN}/best.ckpt": f"test --config {RUN}/config.yaml --runs-dir runs --ckpt_path {RUN}/best.ckpt",
    f"validate {RUN}/": f"validate --config {RUN}/config.yaml --runs-dir runs --ckpt_path {RUN}/best.ckpt",
    f"predict {RUN}": f"predict --config {RUN}/config.yaml --runs-dir runs --ckpt_path {RUN}/best.ckpt",
    f"test {RUN} --checkpoint last": f"test --config {RUN}/config.yaml --runs-dir runs --ckpt_path last",
    "test lenet5 --seed 2": "test --config mnist5k_lenet5 --seed_everything 2",
    "test --arch lenet5 --dataset mnist": "test --model.arch lenet5 --data.dataset mnist",
}

WORKS = (
    # commands of the other verbs
    "sweep lenet5 mlp --dataset mnist --epochs 3 --lr 0.1 --batch-size 128",
    "sweep lenet5,mlp",
    "sweep --arch lenet5,mlp --seeds 5",
    "sweep mnist5k_lenet5 --dry-run",
    f"export {RUN}",
    "export lenet5 --seed 1",
    "export --arch lenet5 --dataset mnist --seed 2",
    f"robustness {RUN}",
    "robustness lenet5",
    "explain resnet20",
    "list",
    "list datasets",
    "compare runs",
    "choose runs exports --min-accuracy 98% --max-bytes 1MB",
    "choose runs exports --min-accuracy 0.98 --max-latency 2ms",
    "bench exports/mnist5k_lenet5",
    "ship mine --budget 30m",
)

PRINTS: dict[str, str] = {
    # commands whose exit code is 0, and what they print
    "help": "usage: cnnbench",
    "help fit": "usage: cnnbench fit",
    "-h": "usage: cnnbench",
    "fit -h": "usage: cnnbench fit",
    "--version": "cnnbench ",
}

ANSWERS: dict[str, str] = {
    # commands that are refused with exit code 2, or 3 where a run is missing: the end of the line
    "train lenet5": "unknown verb 'train': `cnnbench fit` does that",
    "eval": "unknown verb 'eval': `cnnbench test` does that",
    "evaluate lenet5": "unknown verb 'evaluate': `cnnbench test` does that",
    "benchmark": "unknown verb 'benchmark': `cnnbench bench` does that",
    "convert lenet5": "unknown verb 'convert': `cnnbench export` does that",
    "summary lenet5": "unknown verb 'summary': `cnnbench explain` does that",
    "models": "unknown verb 'models': `cnnbench list` does that",
    "datasets": "unknown verb 'datasets': `cnnbench list datasets` does that",
    "lenet5": "it is an architecture: `cnnbench fit lenet5` trains it, `cnnbench explain lenet5` shows it",
    "mnist": "it is a data set: `cnnbench fit lenet5 --dataset mnist` trains on it",
    "exprot": "did you mean export?",
    "frobnicate": "unknown verb 'frobnicate': `cnnbench --help` lists the verbs",
    "help trian": "unknown verb 'trian': did you mean fit?",
    "fit": "name an architecture, a task or a run, such as `cnnbench fit lenet5` "
    "(`cnnbench list` names the architectures)",
    "test": "name an architecture, a task or a run, such as `cnnbench test lenet5` "
    "(`cnnbench list` names the architectures)",
    "fit resnet21": "did you mean resnet20?",
    "fit lenet-5": "did you mean lenet5?",
    "fit LeNet5": "did you mean lenet5?",
    "fit --arch resnet21": "did you mean resnet20?",
    "fit mnist": "mnist is a data set: name an architecture with it, such as lenet5 --dataset mnist",
    "fit lenet5 mnist": "one name is expected: `cnnbench fit lenet5 --dataset mnist`",
    "fit lenet5 mlp": "one name is expected, here are lenet5, mlp: `cnnbench sweep lenet5 mlp` trains several",
    "fit lenet5 --dataset mnist6k": "unknown dataset 'mnist6k': did you mean mnist5k or mnist or kmnist?",
    "fit lenet5 --trainer.epochs 3": "did you mean --epochs? (in full --trainer.max_epochs)",
    "fit lenet5 --model.learning_rate 0.1": "did you mean --lr? (in full --model.lr)",
    "fit lenet5 --learning-rate 0.1": "unknown option --learning-rate: did you mean --lr?",
    "fit lenet5 --num-epochs 3": "unknown option --num-epochs: did you mean --epochs?",
    "fit --model lenet5": "unknown option --model: did you mean --arch?",
    "fit lenet5 --data mnist": "unknown option --data: did you mean --dataset?",
    "fit lenet5 --resume": "unknown option --resume: did you mean --checkpoint last?",
    "fit lenet5 --gpus 1": "unknown option --gpus: did you mean --devices?",
    "fit lenet5 --bogus 1": "fit: unknown option --bogus: `cnnbench fit --help-all` lists all options",
    "fit lenet5 --epochs": "--epochs needs a value (see `cnnbench fit --help`)",
    "fit lenet5 --epochs three": "epochs is three: expected a whole number",
    "fit lenet5 --lr high": "lr is high: expected a number",
    "fit mine": "mine is a folder, and no run: for your own images name an architecture, such as lenet5 --folder mine",
    "test exports/mnist5k_lenet5": "exports/mnist5k_lenet5 is a bundle: expected the folder of a run, such as "
    f"{RUN}, or `cnnbench verify exports/mnist5k_lenet5`",
    "fit gone.yaml": "no file gone.yaml: expected a YAML file, the name of a task or an architecture",
    "test runs/gone/seed1": "nothing at runs/gone/seed1: expected the folder of a run, such as "
    f"{RUN}; other libraries' networks are torchvision/<name> and timm/<name>",
    "export runs/gone/seed1": f"no run at runs/gone/seed1: expected the folder of a run, such as {RUN}",
    "export mlp": "no run at runs/mnist5k_mlp: `cnnbench fit mnist5k_mlp` trains it",
    "export": f"name one run: its folder, such as {RUN}, or its task or architecture",
    "export lenet5 mlp": "export: 'mlp' is one word too many (see `cnnbench export --help`)",
    "explain resnet21": "unknown architecture 'resnet21': did you mean resnet20?",
    "sweep": "sweep: name architectures or tasks, such as `cnnbench sweep lenet5 mlp --dataset mnist`",
    "sweep lenet5 --seed 2": "unknown option --seed: did you mean --seeds? (see `cnnbench sweep --help`)",
    "sweep lenet5 --trainer.max_epochs 3": "did you mean --epochs? (see `cnnbench sweep --help`)",
    "sweep lenet5 --learning-rate 3": "did you mean --lr? (see `cnnbench sweep --help`)",
    "sweep lenet5 --trainer.precision 32-true": "write --override trainer.precision=VALUE "
    "(see `cnnbench sweep --help`)",
    "sweep resnet21": "did you mean resnet20?",
    "compare": "compare: PATHS is missing, such as `cnnbench compare runs`",
    "choose runs --min-accuracy 98": "98 is more than 1: expected 98% or 0.98 (see `cnnbench choose --help`)",
    "choose runs --max-bytes": "choose: --max-bytes needs a value, such as 1MB (see `cnnbench choose --help`)",
    "choose runs --max-latency 2": "2 has no unit: expected 2ms, 2s or 2m (see `cnnbench choose --help`)",
    "sweep lenet5 --dry-run=yes": "sweep: --dry-run takes no value (see `cnnbench sweep --help`)",
    "list models": "'models' is unknown: expected one of architectures, datasets, tasks (see `cnnbench list --help`)",
    "--verbose": "unknown option --verbose: `cnnbench --help-all` lists all options",
}


@pytest.fixture(autouse=True)
def _folders() -> None:
    """A run that was stopped, a bundle, a folder of images and a task."""
    Path("mine/train/cats").mkdir(parents=True)
    Path("exports/mnist5k_lenet5").mkdir(parents=True)
    Path("exports/mnist5k_lenet5/manifest.json").touch()
    Path("own.yaml").write_text("model: {arch: lenet5}\n")
    run = Path(RUN)
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("model: {arch: lenet5}\ntrainer: {max_epochs: 15}\n")
    for name in ("best.ckpt", "last.ckpt"):
        (run / name).touch()


def parsed(command: str) -> tuple[RunConfig, lightning.Options]:
    verb, *arguments = shlex.split(command)
    return lightning.parse(verb, arguments)


def test_there_are_at_least_sixty() -> None:
    assert len({*SAME, *WORKS, *PRINTS, *ANSWERS}) >= 60


@pytest.mark.parametrize("typed", SAME)
def test_a_short_command_is_the_long_one(typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightning.process, "prepare", lambda: None)
    assert parsed(typed) == parsed(SAME[typed])


@pytest.mark.parametrize("typed", WORKS)
def test_a_command_is_accepted(typed: str) -> None:
    verb, *arguments = shlex.split(typed)
    assert parser.parse(verb, front.entry(verb), arguments=arguments).arguments or not arguments


@pytest.mark.parametrize("typed", PRINTS)
def test_a_command_prints(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(typed)) == 0
    assert capsys.readouterr().out.startswith(PRINTS[typed])


@pytest.mark.parametrize("typed", ANSWERS)
def test_a_command_is_answered_in_one_line(
    typed: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lightning.process, "prepare", lambda: None)
    assert main(shlex.split(typed)) in (2, 3)
    seen = capsys.readouterr()
    *told, line = seen.err.splitlines()
    assert line.startswith("cnnbench: ")
    assert line.endswith(ANSWERS[typed])
    assert all(" stands for " in before for before in told)
    assert seen.out == ""


@pytest.mark.parametrize("typed", ["fit lenet5", "fit lenet5 --dataset mnist", "test lenet5"])
def test_what_a_bare_architecture_stands_for_is_said_first(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    configured, _ = parsed(typed)
    task = config.task_name(configured)
    assert capsys.readouterr().err.startswith(f"lenet5 stands for {task}: lenet5 on the data set ")
