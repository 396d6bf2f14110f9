"""Bundles that several tests of `export` look at, made once by the real verb."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from export_helpers import Colour, Forger, choice_of, one_block
from mutations import Table, ran
from PIL import Image

from cnnbench.__main__ import main
from cnnbench.bundles.bundle import ExportOptions, export_run
from cnnbench.bundles.parity import run as parity
from cnnbench.bundles.parity.child import Race
from cnnbench.bundles.quantise import PRECISIONS
from cnnbench.datasets import shapes
from cnnbench.datasets.choice import open_choice
from cnnbench.types import Dataset

Make = Callable[[Path], None]


@pytest.fixture(scope="session")
def three(run: Path, once: Callable[[str, Make], Path]) -> Path:
    """A bundle with fp32, fp16 and int8.

    Its times are given, so that every machine recommends the same file; and where a processor's 8-bit sums saturate,
    int8 loses more than a point of accuracy.
    """

    def make(folder: Path) -> None:
        options = ExportOptions(precisions=PRECISIONS, max_accuracy_loss=5)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parity, "_race", lambda *_: Race(fp32=(0.25, 0.5, 0.75), candidate=(0.125, 0.25, 0.5)))
            export_run(run, out=folder, options=options)

    return once("three", make) / "mnist5k_lenet5"


@pytest.fixture(scope="session")
def of_floats(run: Path, once: Callable[[str, Make], Path]) -> Path:
    """A bundle that takes floats and returns probabilities, too."""

    def make(folder: Path) -> None:
        assert main(["export", str(run), "--out", str(folder), "--input", "float", "--probabilities", "softmax"]) == 0

    return once("floats", make) / "mnist5k_lenet5"


@pytest.fixture(scope="session")
def data() -> Dataset:
    """The images that `run` was trained and tested on."""
    return open_choice(choice_of("mnist5k"))


@pytest.fixture
def earlier(bundle: Path, tmp_path: Path) -> Path:
    """A folder of bundles that already holds one of the task."""
    shutil.copytree(bundle, tmp_path / "exports" / bundle.name)
    return tmp_path / "exports"


@pytest.fixture(scope="session")
def colour(once: Callable[[str, Make], Path]) -> Colour:
    """One block of inception_small on some of the generated shapes, trained for one epoch."""
    place = once("colour", make_colour)
    task = "few_shapes_inception_small"
    return Colour(place / "images", place / "runs" / task / "seed1" / "best.ckpt", place / "exports" / task)


def make_colour(place: Path) -> None:
    """The images, the run and the bundle of `colour`, in folders of `place`."""
    for part, count in (("train", 400), ("test", 200)):
        drawn = shapes.draw(count, np.random.RandomState(count))
        for index, (image, label) in enumerate(zip(drawn.images, drawn.labels, strict=True)):
            file = place / "images" / part / list(shapes.SHAPES)[label] / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    data = ["--data.dataset", "folder", "--data.folder", str(place / "images"), "--data.size", "32"]
    common = [*data, "--model.arch", "inception_small", "--data.name", "few_shapes", "--runs-dir", str(place / "runs")]
    run = place / "runs" / "few_shapes_inception_small" / "seed1"
    with pytest.MonkeyPatch.context() as patch, one_block():
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        patch.setattr("sys.argv", ["cnnbench"])
        patch.chdir(place)
        assert main(["fit", *common, "--data.batch_size", "16", "--trainer.max_epochs", "1"]) == 0
        assert main(["test", *common]) == 0
        assert main(["export", str(run), "--out", str(place / "exports")]) == 0


@pytest.fixture
def forger(
    colour: Colour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Forger]:
    """A copy of the bundle, to be changed; at the end nothing that was planted there has been run."""
    if request.config.getoption("--mutants"):  # the table has the time of a child as users have it
        request.getfixturevalue("real_sandbox")
    monkeypatch.setenv("XDG_CACHE_HOME", str(colour.images.parent / "cache"))
    path = Path(shutil.copytree(colour.bundle, tmp_path / colour.bundle.name))
    yield Forger(path, colour.images)
    assert not ran(path).exists()


@pytest.fixture(scope="session")
def mutants(pytestconfig: pytest.Config) -> Iterator[Table]:
    """What became of each mutant; written to the file of --mutants."""
    table = Table(pytestconfig.getoption("--mutants"))
    yield table
    if table.path:
        table.write()
