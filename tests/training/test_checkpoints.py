"""Checkpoints are read whole or refused."""

import shutil
from pathlib import Path

import pytest
import torch

from cnnbench import records
from cnnbench.datasets.choice import open_recorded
from cnnbench.records.schema import RunRecord
from cnnbench.training.checkpoints import load_classifier, open_checkpoint
from cnnbench.types import CnnbenchError


def test_the_loaded_classifier_scores_what_the_run_recorded(run: Path) -> None:
    record = records.read(run / "result.json", RunRecord)
    test = open_recorded(record.data).test
    classifier = load_classifier(run / "best.ckpt")
    with torch.inference_mode():
        logits = classifier(torch.from_numpy(test.images).permute(0, 3, 1, 2).float() / 255)
    assert record.test is not None
    assert int((logits.argmax(1).numpy() == test.labels).sum()) == record.test.correct


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_text(path: Path) -> None:
    path.write_text("not a checkpoint")


def write_foreign(path: Path) -> None:
    torch.save({"state_dict": {}}, path)


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, write_text, write_foreign, Path.unlink])
def test_a_damaged_foreign_or_missing_checkpoint_is_refused(run: Path, tmp_path: Path, damage: object) -> None:
    path = tmp_path / "best.ckpt"
    shutil.copyfile(run / "best.ckpt", path)
    damage(path)  # type: ignore[operator]
    with pytest.raises(CnnbenchError) as refused:
        open_checkpoint(path)
    assert refused.value.code == 3
    assert "\n" not in str(refused.value)


def test_a_hostile_checkpoint_is_refused_without_running_it(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Hostile:
        def __reduce__(self) -> object:
            return (Path.touch, (canary,))

    torch.save({"state_dict": Hostile()}, tmp_path / "hostile.ckpt")
    with pytest.raises(CnnbenchError) as refused:
        open_checkpoint(tmp_path / "hostile.ckpt")
    assert refused.value.code == 3
    assert not canary.exists()


def test_weights_of_another_shape_are_refused(run: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(run / "best.ckpt", weights_only=True)
    del checkpoint["state_dict"]["network.1.1.weight"]
    torch.save(checkpoint, tmp_path / "lacking.ckpt")
    with pytest.raises(CnnbenchError, match="does not hold the weights of lenet5"):
        load_classifier(tmp_path / "lacking.ckpt")
