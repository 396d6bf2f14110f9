"""The card's snippet, as a reader copies it, decodes files as predict.py does, on the oldest and the newest Pillow."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import image_kinds
import numpy as np
import pytest
from export_helpers import Colour, Forger
from isolated import BLOCKER, TORCH
from PIL import Image

from cnnbench import records

CHECKOUT = Path(__file__).parents[2]
OLDEST = CHECKOUT / ".venv-oldest" / ("Scripts" if os.name == "nt" else "bin") / "python"
LEVELS = 2
"""By which libraries of other versions may decode JPEG, WebP and AVIF otherwise, of 255."""

RUN = """
import runpy, sys
from pathlib import Path
import numpy as np
bundle, files, refused, out = sys.argv[1:]
sys.path.append(bundle)
snippet = runpy.run_path(bundle + "/snippet.py")
from predict import Model, as_input
model = Model(bundle)
found = {}
for path in sorted(Path(files).iterdir()):
    pixels, expected = snippet["read"](path), model.read(path)
    found[path.name] = expected
    assert np.array_equal(pixels, as_input(expected, model.manifest["contract"])), path.name
    (logits,) = snippet["session"].run(["logits"], {"pixels": pixels})
    assert np.array_equal(logits, model.logits(expected)), path.name
for path in Path(refused).iterdir():
    for read in (snippet["read"], model.read):
        try:
            read(path)
        except (ValueError, OSError) as error:
            assert "pixels" in str(error) and "expected 8 or 16 bits" in str(error), error
        else:
            raise AssertionError(f"{read} takes {path.name}")
assert np.array_equal(snippet["logits"], model.logits(model.read("image.png")))
np.savez(out, **found)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds") / "files"
    assert len(image_kinds.write_all(folder)) == 300
    assert len(image_kinds.KINDS) >= 12
    return folder


def snippet_of(path: Path) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (path / "README.md").read_text(), re.DOTALL)
    return str(code)


def refused(place: Path) -> Path:
    """Files whose range of values is unknown."""
    folder = place / "refused"
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.full((9, 9), 0.5, np.float32)).save(folder / "F.tif")
    Image.fromarray(np.full((9, 9), 70_000, np.int32)).save(folder / "I.tif")
    return folder


def decoded(python: Path | str, bundle: Path, files: Path, out: Path) -> dict[str, np.ndarray]:
    """What predict.py reads from each file there, once the snippet has agreed with it on all of them."""
    work = Path(shutil.copytree(bundle, out.with_suffix(".bundle")))
    (work / "snippet.py").write_text(snippet_of(bundle))
    Image.linear_gradient("L").save(work / "image.png")
    blocked = BLOCKER.format(blocked=(*TORCH, "cnnbench", "onnx"))
    command = [str(python), "-c", blocked + RUN, str(work), str(files), str(refused(out.parent)), str(out)]
    quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    quiet.pop("PYTHONPATH", None)
    done = subprocess.run(command, cwd=work, env=quiet, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with np.load(out) as found:
        return dict(found)


@pytest.fixture(scope="module", params=["gray", "of floats", "colour", "colour, other choices"])
def a_bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "gray":
        gray: Path = request.getfixturevalue("bundle")
        return gray
    if request.param == "of floats":
        floats: Path = request.getfixturevalue("of_floats")
        return floats
    made: Colour = request.getfixturevalue("colour")
    if request.param == "colour":
        return made.bundle
    copy = Path(shutil.copytree(made.bundle, tmp_path_factory.mktemp("chosen") / "copy"))
    forger = Forger(copy)
    assert forger.manifest.preprocessing
    chosen = replace(forger.manifest.preprocessing, background=77, shift=3)
    forger.claim(preprocessing=chosen, data=records.replace(forger.manifest.data, preprocessing=chosen))
    forger.sign()
    return copy


@pytest.mark.slow
def test_it_agrees_with_predict_py_on_every_file(a_bundle: Path, files: Path, tmp_path: Path) -> None:
    newest = decoded(sys.executable, a_bundle, files, tmp_path / "newest.npz")
    assert len(newest) == 300
    assert sum(len(np.unique(pixels)) > 1 for pixels in newest.values()) > 250  # the comparison can fail
    if not OLDEST.exists():
        pytest.skip("no environment with the oldest Pillow: `make .venv-oldest/ready` makes it")
    oldest = decoded(OLDEST, a_bundle, files, tmp_path / "oldest.npz")
    for name, pixels in newest.items():
        difference = int(np.abs(pixels.astype(int) - oldest[name]).max())
        assert difference <= (LEVELS if image_kinds.is_lossy(name) else 0), name
