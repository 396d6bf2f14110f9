"""A data set of others through the verbs, from training to a bundle."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnnbench
from cnnbench.__main__ import main
from cnnbench.datasets import dataset
from cnnbench.types import Exit


def twelve_channels(source: cnnbench.Source) -> cnnbench.Decoded:
    """Noise whose brightest channel, of the first three, is the class."""
    spec = cnnbench.ImageSpec(8, 7, 12, 3, mean=(0.3,) * 12, std=(0.2,) * 12)
    splits = []
    for count in (120, 30):
        random = np.random.RandomState(count)
        labels = np.arange(count) % 3
        images = random.randint(0, 128, (count, 8, 7, 12))
        images[np.arange(count), :, :, labels] += 100
        splits.append(cnnbench.Split(images.astype(np.uint8), labels))
    return cnnbench.Decoded(spec, ("a", "b", "c"), train=splits[0], test=splits[1])


@pytest.mark.slow
def test_twelve_channels_train_and_export_and_photos_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dataset, "entries", dict(dataset.entries))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cnnbench.register_dataset(size="8x7x12", classes=3)(twelve_channels)
    assert main(["explain", "lenet5", "--dataset", "twelve_channels"]) == 0
    flags = [
        "--model.arch",
        "mlp",
        "--data.dataset",
        "twelve_channels",
        "--trainer.max_epochs",
        "3",
        "--data.batch_size",
        "12",
    ]
    assert main(["fit", *flags, "--model.lr", "0.05", "--test"]) == 0
    assert json.loads(Path("runs/twelve_channels_mlp/seed1/result.json").read_text())["test"]["accuracy"] > 0.5
    assert main(["export", "runs/twelve_channels_mlp", "--provider", "cpu"]) == 0
    assert main(["verify", "exports/twelve_channels_mlp", "--rescore"]) == 0
    images = twelve_channels(cnnbench.Source(tmp_path)).test.images
    assert len(cnnbench.load("exports/twelve_channels_mlp").predict(images)) == 30
    Image.new("RGB", (7, 8)).save("photo.png")
    script = [sys.executable, "exports/twelve_channels_mlp/predict.py", "photo.png"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (Exit.DATA, "", 1)
    assert "the network takes 12 channels" in done.stderr
