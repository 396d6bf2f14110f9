"""The oldest ONNX Runtime we state runs every file as it stands, in an environment with numpy and Pillow alone."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.bundles.contract import OLDEST_ONNXRUNTIME
from cnnbench.records.bundle import Manifest

CHECKOUT = Path(__file__).parents[2]
PYTHON = CHECKOUT / ".venv-oldest" / ("Scripts" if os.name == "nt" else "bin") / "python"
COMMITTED = sorted(path.parent for path in (CHECKOUT / "exports").glob("*/manifest.json"))

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="no environment with the oldest ONNX Runtime: `make .venv-oldest/ready` makes it"
)

LISTED = """
import importlib.metadata, json
print(json.dumps({found.name.lower(): found.version for found in importlib.metadata.distributions()}))
"""
GOLDEN = """
import sys
from pathlib import Path
import numpy as np
from predict import Model
with np.load("golden.npz") as golden:
    pixels, places, logits = golden["pixels"], golden["places"], golden["logits"]
    of_test = golden["logits_" + sys.argv[1]] if sys.argv[1] != "fp32" else None
model = Model(".", precision=sys.argv[1])
found = model.logits(pixels) if of_test is None else model.logits(pixels[places >= 0])
expected = logits if of_test is None else of_test
assert [model.logits(pixels[:1]).shape[0], model.logits(pixels[:7]).shape[0]] == [1, 7]
print(float(np.abs(found - expected).max()))
"""


def run(folder: Path, *arguments: object) -> str:
    command = [str(PYTHON), *map(str, arguments)]
    quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=quiet, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def trained(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue("run")  # the name is taken here
    return folder


def test_it_is_the_stated_one_and_the_environment_has_nothing_else(tmp_path: Path) -> None:
    found = json.loads(run(tmp_path, "-c", LISTED))
    assert found["onnxruntime"] in (CHECKOUT / "tests" / "oldest.txt").read_text()
    assert f"onnxruntime=={OLDEST_ONNXRUNTIME};" in (CHECKOUT / "tests" / "oldest.txt").read_text()
    assert not {"torch", "onnx", "cnnbench", "onnxruntime-gpu"} & {*found}


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_it_gives_the_golden_logits_of_every_committed_file(folder: Path) -> None:
    manifest = records.read(folder / "manifest.json", Manifest)
    for variant in manifest.kept:
        error = float(run(folder, "-c", GOLDEN, variant.precision))
        lower = 2 * max(found.max_abs_error for found in variant.passes)
        assert error <= (manifest.reference.error_bound if variant.precision == "fp32" else lower), variant.file


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_predict_py_names_the_class_of_an_image_file(folder: Path, tmp_path: Path) -> None:
    with np.load(folder / "golden.npz") as golden:
        pixels, logits = golden["pixels"], golden["logits"]
    Image.fromarray(pixels[0].squeeze()).save(tmp_path / "image.png")
    printed = run(folder, "predict.py", tmp_path / "image.png", "--top", "2").strip().split("\t")
    names = records.read(folder / "manifest.json", Manifest).class_names
    best = np.exp(logits[0]) / np.exp(logits[0]).sum()
    order = np.argsort(-best)[:2]
    assert printed[1:] == [f"{names[index]} {best[index]:.4f}" for index in order]


@pytest.mark.slow
def test_what_export_writes_now_runs_there_too(trained: Path, tmp_path: Path) -> None:
    """The other input and output, which the committed bundles do not have."""
    options = ["--input", "float", "--probabilities", "--precision", "fp32,fp16"]
    assert main(["export", str(trained), "--out", str(tmp_path), *options]) == 0
    (made,) = tmp_path.iterdir()
    assert (
        float(run(made, "-c", GOLDEN, "fp32")) <= records.read(made / "manifest.json", Manifest).reference.error_bound
    )
    assert float(run(made, "-c", GOLDEN, "fp16")) < 0.1
