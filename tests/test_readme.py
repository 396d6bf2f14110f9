"""The README: its commands and its Python run as they stand, and print what it shows.

What is put in the place of names and times: FOLDER, 200 digits of mnist5k in ten folders; seven.png, one of them;
images, three of them; the budget of `ship`, eight minutes for 30, and one small network. `pip install` and `make` are
looked at, not run: the environment of the tests is what they make.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnnbench
from cnnbench.__main__ import main
from cnnbench.datasets import Source, dataset

ROOT = Path(cnnbench.__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
FIGURE = re.compile(r"\d[\d,.]*(?:e-\d+)?")
PLACES = {"FOLDER": "digits", "--budget 30m": "--budget 8m --arch linear"}


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(README) if kind == language]


def commands() -> list[str]:
    """The lines of the blocks of commands, without what is said of them."""
    return [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 130


@pytest.mark.slow
def test_the_table_of_results_is_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(ROOT)
    assert main(["compare", "results", "--dataset", "mnist"]) == 0
    assert blocks("text")[0] in capsys.readouterr().out


def test_every_target_of_make_is_there() -> None:
    asked = {line.split()[1] for line in commands() if line.startswith("make ")}
    assert {"demo", "test"} <= asked
    for target in asked:
        assert re.search(rf"^{target}: ", (ROOT / "Makefile").read_text(), re.M)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the commands run: 200 digits in ten folders, and one that is a seven."""
    train = dataset["mnist5k"].load()(Source(root=tmp_path)).train
    for label in range(10):
        (tmp_path / "digits" / str(label)).mkdir(parents=True)
        for number, image in enumerate(train.images[train.labels == label][:20]):
            Image.fromarray(image[..., 0]).save(tmp_path / "digits" / str(label) / f"{number}.png")
    shutil.copy(tmp_path / "digits/7/0.png", tmp_path / "seven.png")
    np.save(tmp_path / "images.npy", train.images[:3])
    return tmp_path


def shape(line: str) -> str:
    """A line without its figures and the spaces that align them."""
    return " ".join(FIGURE.sub("#", line).split())


@pytest.mark.slow
def test_every_command_runs_and_prints_what_is_shown(folder: Path) -> None:
    environment = os.environ | {"COLUMNS": "100", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    printed: list[str] = []
    asked = [line for line in commands() if not line.startswith(("pip install ", "make ", "pip uninstall "))]
    assert sum(line.startswith("cnnbench ") for line in asked) >= 10
    for line in asked:
        for name, place in PLACES.items():
            line = line.replace(name, place)
        done = subprocess.run(line, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        printed += map(shape, done.stdout.splitlines())
    (code,) = blocks("python")
    code = code.replace("import cnnbench\n", 'import cnnbench, numpy\nimages = numpy.load("images.npy")\n')
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in blocks("text")[1].splitlines():
        assert shape(line) in printed
