"""The script that runs a file in another environment gives the file's logits, whatever the batch."""

import subprocess
import sys
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "portability_run.py"


def test_logits_of_every_image_are_written_in_order(bundle: Path, tmp_path: Path) -> None:
    with np.load(bundle / "golden.npz") as golden:
        pixels, expected = golden["pixels"], golden["logits"]
    images = np.resize(pixels, (70, *pixels.shape[1:]))  # more than one batch
    np.save(tmp_path / "images.npy", images)
    arguments = ["onnxruntime", bundle / "model.onnx", tmp_path / "images.npy", tmp_path / "logits.npy"]
    subprocess.run([sys.executable, str(SCRIPT), *map(str, arguments)], check=True, timeout=60)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), np.resize(expected, (70, 10)), atol=1e-4)
