"""`export`: which checkpoints, records and images it takes, and that it refuses all others."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from export_helpers import choice_of, content, fails, untrained
from PIL import Image
from torch import nn

from cnnbench import records
from cnnbench.bundles.bundle import open_run
from cnnbench.records.schema import RunRecord


@pytest.fixture
def mine(run: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, to be damaged."""
    return Path(shutil.copytree(run, tmp_path / "runs" / "mnist5k_lenet5" / "seed1"))


def test_of_several_seeds_the_best_validation_accuracy_ships_whatever_the_test_says(mine: Path) -> None:
    record = records.read(mine / "result.json", RunRecord)
    assert record.test is not None
    for seed, val, test in ((1, 0.6, 0.99), (2, 0.9, 0.10), (3, 0.8, 0.95)):
        folder = mine.parent / f"seed{seed}"
        if seed > 1:
            shutil.copytree(mine, folder)
        scores = {
            "fit": records.replace(record.fit, val_accuracy=val),
            "test": records.replace(record.test, accuracy=test),
        }
        records.write(folder / "result.json", records.replace(record, seed=seed, **scores))
    assert open_run(mine.parent).record.seed == 2


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # within the weights, which are most of the file
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "a flipped byte": flip_a_byte,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "empty": lambda path: path.write_bytes(b""),
    "not a checkpoint": lambda path: path.write_text("weights, honestly\n"),
    "of another program": lambda path: torch.save({"state_dict": {}}, path),
    "an object": lambda path: torch.save(nn.Linear(2, 2), path),  # unpickling it would execute what it names
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_checkpoint_that_cannot_be_trusted_is_refused(
    name: str, mine: Path, earlier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(earlier)
    DAMAGE[name](mine / "best.ckpt")
    assert "checkpoint" in fails(capsys, 3, mine, "--out", earlier)
    assert content(earlier) == before


def test_a_record_that_is_missing_or_half_written_is_refused(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (mine / "result.json").read_text()
    (mine / "result.json").write_text(whole[: len(whole) // 2])
    assert "result.json" in fails(capsys, 3, mine)
    (mine / "result.json").unlink()
    assert "result.json" in fails(capsys, 3, mine)


def test_a_checkpoint_beside_another_run_s_record_is_refused(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = records.read(mine / "result.json", RunRecord)
    records.write(mine / "result.json", records.replace(record, arch="mlp"))
    assert "copied from another run" in fails(capsys, 3, mine, "--out", "exports")


def draw_folder(folder: Path) -> None:
    """Two classes of ten images of noise, 8 x 8."""
    random = np.random.RandomState(0)
    for name in ("a", "b"):
        (folder / "train" / name).mkdir(parents=True)
        for index in range(10):
            pixels = random.randint(0, 256, size=(8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "train" / name / f"{index}.png")


def test_images_changed_since_training_are_refused(
    run: Path, earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    draw_folder(tmp_path / "images")
    source = untrained(run, "mlp", choice_of("folder", tmp_path / "images"))
    assert open_run(source).data.name == "folder"
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "train" / "a" / "0.png")
    before = content(earlier)
    assert "not the images of the record" in fails(capsys, 3, source, "--out", earlier)
    assert content(earlier) == before


def test_a_checkpoint_that_was_not_the_one_tested_is_refused(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = torch.load(mine / "best.ckpt", weights_only=True)
    torch.save({**checkpoint, "epoch": 7}, mine / "best.ckpt")
    assert "is not the checkpoint" in fails(capsys, 3, mine)


def test_a_checkpoint_away_from_its_run_is_refused(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copyfile(mine / "best.ckpt", "loose.ckpt")
    assert "no result.json of its run beside it" in fails(capsys, 3, "loose.ckpt")
