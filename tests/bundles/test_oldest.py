"""The oldest ONNX Runtime and Pillow we state run every file as it stands, in an environment with numpy alone."""

import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import image_files
import numpy as np
import onnxruntime
import pytest
import small_networks
import torch
from PIL import Image

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.bundles import graph, quantise
from cnnbench.bundles.contract import OLDEST_ONNXRUNTIME
from cnnbench.records.bundle import Manifest
from cnnbench.runtime import predict

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
LOGITS = """
import json
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
print(json.dumps(session.run(["logits"], {"pixels": np.load("pixels.npy")})[0].tolist()))
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
    pillow = f"pillow=={found['pillow']}"
    assert pillow in (CHECKOUT / "tests" / "oldest.txt").read_text().splitlines()
    assert not {"torch", "onnx", "cnnbench", "onnxruntime-gpu"} & {*found}


def test_the_oldest_pillow_is_the_lower_bound_of_ours_and_of_the_card() -> None:
    (pinned,) = (line for line in (CHECKOUT / "tests/oldest.txt").read_text().splitlines() if "pillow" in line)
    version = pinned.removeprefix("pillow==").removesuffix(".0")
    ours = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"pillow>={version}" in ours
    assert f'"pillow>={version}"' in (CHECKOUT / "cnnbench/bundles/card.md").read_text()


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


def predicted(names: list[str], folder: Path) -> tuple[list[str], list[str]]:
    """Which files this version's predict.py answers for there, and which it refuses."""
    script = Path(shutil.copytree(COMMITTED[0], folder.parent / "bundle")) / "predict.py"
    shutil.copy(predict.__file__, script)
    command = [str(PYTHON), str(script), *names]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 3, done.returncode
    refused = [line.removeprefix("cannot read ").split(" as an image: ")[0] for line in done.stderr.splitlines()]
    return [line.split("\t")[0] for line in done.stdout.splitlines()], refused


def test_a_header_that_ended_pillow_11_3_is_refused(tmp_path: Path) -> None:
    """A stride below 0 in a file that Pillow maps into memory: a segmentation fault there."""
    header = [*image_files.intact()["MCIDAS"]]
    header[4 * 14 : 4 * 15] = [0x94, 0, 0, 0]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/area").write_bytes(bytes(header))
    assert predicted(["area"], tmp_path / "in") == ([], ["area"])


@pytest.mark.slow
def test_damaged_files_of_every_format_are_a_line_each_there_too(tmp_path: Path) -> None:
    names = image_files.write_damaged(tmp_path / "damaged")
    answered, refused = predicted(names, tmp_path / "damaged")
    assert sorted(answered + refused) == sorted(names)


@pytest.mark.slow
def test_what_export_writes_now_runs_there_too(trained: Path, tmp_path: Path) -> None:
    """The other input and output, which the committed bundles do not have."""
    options = ["--input", "float", "--probabilities", "softmax", "--precision", "fp32,fp16"]
    assert main(["export", str(trained), "--out", str(tmp_path), *options]) == 0
    (made,) = tmp_path.iterdir()
    assert (
        float(run(made, "-c", GOLDEN, "fp32")) <= records.read(made / "manifest.json", Manifest).reference.error_bound
    )
    assert float(run(made, "-c", GOLDEN, "fp16")) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("precision", quantise.PRECISIONS)
def test_a_transformer_runs_there_too(precision: quantise.Precision, tmp_path: Path) -> None:
    spec = small_networks.SPEC
    torch.manual_seed(0)
    images = np.random.RandomState(0).randint(0, 256, (7, spec.height, spec.width, 1), dtype=np.uint8)
    fp32 = graph.to_onnx(small_networks.vision_transformer().eval(), spec, metadata={}).model
    graph.save(quantise.make(precision, fp32, images=images, dtype="uint8"), tmp_path / "model.onnx")
    np.save(tmp_path / "pixels.npy", images)
    (expected,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(["logits"], {"pixels": images})
    logits = np.array(json.loads(run(tmp_path, "-c", LOGITS)))
    assert np.abs(logits - expected).max() <= 0.02 * np.abs(expected).max()
