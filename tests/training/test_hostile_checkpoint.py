"""A checkpoint is data: code that one carries is never run, whatever verb is given the file, wherever it hides."""

import io
import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from cnnbench.__main__ import main

CANARY = "canary"


class System:
    """Unpickled, it runs a command."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {Path(CANARY).absolute()}",)


class Touch:
    """Unpickled, it calls a method of a class that looks harmless."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path(CANARY).absolute(),)


class Evaluated:
    """Unpickled, it evaluates text."""

    def __reduce__(self) -> Any:
        return eval, (f"open({str(Path(CANARY).absolute())!r}, 'w').close()",)


Checkpoint = dict[str, Any]


def in_weights(checkpoint: Checkpoint, payload: object) -> None:
    name = next(iter(checkpoint["state_dict"]))
    checkpoint["state_dict"][name] = payload


def beside_weights(checkpoint: Checkpoint, payload: object) -> None:
    checkpoint["state_dict"]["network.extra"] = payload


def in_hyperparameters(checkpoint: Checkpoint, payload: object) -> None:
    checkpoint["hyper_parameters"] = {"arch": "lenet5", "lr": payload}


def in_callbacks(checkpoint: Checkpoint, payload: object) -> None:
    checkpoint["callbacks"] = {"BestAndLast": payload}


def in_optimizer(checkpoint: Checkpoint, payload: object) -> None:
    checkpoint["optimizer_states"] = [payload]


def in_our_part(checkpoint: Checkpoint, payload: object) -> None:
    checkpoint["cnnbench"]["class_names"] = payload


def in_a_new_key(checkpoint: Checkpoint, payload: object) -> None:
    checkpoint["note"] = payload


PLACES = (in_weights, beside_weights, in_hyperparameters, in_callbacks, in_optimizer, in_our_part, in_a_new_key)


@pytest.fixture
def mine(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "runs" / "mnist5k_lenet5" / "seed1"))


def poison(run: Path, place: Callable[[Checkpoint, object], None], payload: object) -> None:
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint = torch.load(run / name, weights_only=True)
        place(checkpoint, payload)
        torch.save(checkpoint, run / name)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
    """Exit 3, in one line, and the canary is not there."""
    code = main([*arguments])
    printed = capsys.readouterr()
    assert not Path(CANARY).exists(), "code of the checkpoint was run"
    assert code == 3, printed.err
    assert printed.err.startswith("cnnbench: ")
    assert printed.err.count("\n") == 1


COMMON = ["--model.arch", "lenet5", "--runs-dir", "runs"]
VERBS = {
    "validate": ["validate", *COMMON],
    "test": ["test", *COMMON],
    "predict": ["predict", *COMMON],
    "test of a file": ["test", *COMMON, "--ckpt_path", "runs/mnist5k_lenet5/seed1/last.ckpt"],
    "fit that goes on": ["fit", *COMMON, "--ckpt_path", "last", "--trainer.max_epochs", "3"],
    "export": ["export", "runs/mnist5k_lenet5/seed1"],
    "export of a file": ["export", "runs/mnist5k_lenet5/seed1/last.ckpt"],
    "export of a task": ["export", "runs/mnist5k_lenet5"],
}


@pytest.mark.parametrize("payload", [System, Touch, Evaluated])
def test_the_canary_would_sing(payload: type) -> None:
    """Else the tests below could not fail."""
    data = io.BytesIO()
    torch.save({"state_dict": payload()}, data)
    data.seek(0)
    torch.load(data, weights_only=False)
    assert Path(CANARY).exists()


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_runs_what_a_checkpoint_carries(verb: str, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    poison(mine, in_weights, System())
    refused(capsys, *VERBS[verb])
    assert not Path("exports").exists()


@pytest.mark.parametrize("payload", [System, Touch, Evaluated])
@pytest.mark.parametrize("place", PLACES)
def test_code_is_found_wherever_it_hides(
    place: Callable[[Checkpoint, object], None], payload: type, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poison(mine, place, payload())
    refused(capsys, *VERBS["export"])


@pytest.mark.parametrize("place", [in_callbacks, in_hyperparameters, in_optimizer])
def test_what_only_training_would_read_is_not_run_either(
    place: Callable[[Checkpoint, object], None], mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poison(mine, place, Touch())
    refused(capsys, *VERBS["fit that goes on"])
    refused(capsys, *VERBS["test"])


def bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Touch()))


def legacy_format(path: Path) -> None:
    """As torch before 1.6 wrote: no archive, pickles one after the other."""
    torch.save({"state_dict": Touch()}, path, _use_new_zipfile_serialization=False)


def two_pickles(last: bool, path: Path) -> None:
    """An archive with two `data.pkl`, of which one reader takes the first and another the last."""
    with zipfile.ZipFile(path) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    name = next(name for name, _ in entries if name.endswith("data.pkl"))
    hostile = (name, pickle.dumps(Touch(), protocol=2))
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "w") as archive:
        for entry, content in [*entries, hostile] if last else [hostile, *entries]:
            archive.writestr(entry, content)


def torchscript(path: Path) -> None:
    """An archive that torch would hand to its own loader of programs."""
    with zipfile.ZipFile(path, "a") as archive:
        folder = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{folder}/constants.pkl", pickle.dumps(Touch(), protocol=2))


@pytest.mark.parametrize(
    "make", [bare_pickle, legacy_format, partial(two_pickles, True), partial(two_pickles, False), torchscript]
)
@pytest.mark.parametrize("verb", ["test", "export"])
def test_other_formats_are_no_way_in(
    make: Callable[[Path], None], verb: str, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(mine / "best.ckpt")
    refused(capsys, *VERBS[verb])
