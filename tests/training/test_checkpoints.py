"""Checkpoints are read whole or refused."""

import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import cnnbench
from cnnbench import records
from cnnbench.datasets.choice import open_recorded
from cnnbench.records.schema import RunRecord
from cnnbench.training.checkpoints import load_classifier
from cnnbench.training.stored import open_checkpoint
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
    """In the middle of the largest tensor: between the parts of a checkpoint are bytes that mean nothing."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda part: part.file_size)
    names = sum(struct.unpack("<HH", content[largest.header_offset + 26 : largest.header_offset + 30]))
    content[largest.header_offset + 30 + names + largest.file_size // 2] ^= 0x10
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_text(path: Path) -> None:
    path.write_text("not a checkpoint")


def write_foreign(path: Path) -> None:
    torch.save({"state_dict": {}}, path)


def write_tensor(path: Path) -> None:
    torch.save(torch.zeros(3), path)


def write_lightning_s(path: Path) -> None:
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["cnnbench"]
    torch.save(checkpoint, path)


def put_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_byte,
        truncate,
        write_text,
        write_foreign,
        write_tensor,
        write_lightning_s,
        put_a_folder,
        Path.unlink,
    ],
)
@pytest.mark.parametrize("read", [open_checkpoint, load_classifier, cnnbench.Classifier.load_from_checkpoint])
def test_a_damaged_foreign_or_missing_checkpoint_is_refused(
    run: Path, tmp_path: Path, damage: Callable[[Path], None], read: Callable[[Path], object]
) -> None:
    path = tmp_path / "best.ckpt"
    shutil.copyfile(run / "best.ckpt", path)
    damage(path)
    with pytest.raises(CnnbenchError) as refused:
        read(path)
    assert refused.value.code == 3
    assert str(path) in str(refused.value)
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


@pytest.mark.parametrize("read", [load_classifier, cnnbench.Classifier.load_from_checkpoint])
def test_weights_of_another_shape_are_refused(run: Path, tmp_path: Path, read: Callable[[Path], object]) -> None:
    checkpoint = torch.load(run / "best.ckpt", weights_only=True)
    weights = checkpoint["state_dict"]
    for change in (lambda: weights.update({"network.1.1.weight": torch.zeros(3)}), weights.clear):
        change()
        torch.save(checkpoint, tmp_path / "other.ckpt")
        with pytest.raises(CnnbenchError, match=r"the weights of lenet5: .*network\.1\.1\.weight") as refused:
            read(tmp_path / "other.ckpt")
        assert refused.value.code == 3
        assert "\n" not in str(refused.value)


def test_a_classifier_is_loaded_by_the_class_or_from_an_open_file(run: Path) -> None:
    loaded = cnnbench.Classifier.load_from_checkpoint(str(run / "best.ckpt"))
    with (run / "best.ckpt").open("rb") as file:
        again = cnnbench.Classifier.load_from_checkpoint(file, map_location="cpu")
    for name, weights in again.state_dict().items():
        assert torch.equal(weights, loaded.state_dict()[name])
    with pytest.raises(TypeError, match="cannot be called on an instance"):
        loaded.load_from_checkpoint(run / "best.ckpt")
