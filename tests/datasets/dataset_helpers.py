"""What several tests of datasets share."""

from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pytest
from PIL import Image

from cnnbench.datasets import Decoded, Source
from cnnbench.datasets.choice import load
from cnnbench.registry import LocalEntry
from cnnbench.types import CnnbenchError, Dataset, Exit, ImageSpec, Split

SPEC = ImageSpec(2, 2, 1, num_classes=3)


class OurEntry(LocalEntry):
    """A builder that tests define, trusted as ours are."""

    ours: ClassVar[bool] = True


class Loaded(NamedTuple):
    decoded: Decoded
    """What the builder returned, before validation is split off."""
    data: Dataset


def save_images(folder: Path, count: int, value: int = 0) -> None:
    """`count` one-coloured images in `folder`, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new("RGB", (8, 8), (value, index, 100)).save(folder / f"{index}.png")


def refusal(name: str, source: Source, code: Exit = Exit.DATA) -> str:
    """The one line with which `load` refuses."""
    with pytest.raises(CnnbenchError) as refused:
        load(name, source)
    assert refused.value.code == code
    assert "\n" not in str(refused.value)
    return str(refused.value)


def per_class(labels: np.ndarray) -> list[int]:
    return np.bincount(labels).tolist()


def fake(labels: list[int], shift: int = 0) -> Split:
    images = np.arange(len(labels) * 4, dtype=np.uint8).reshape(-1, 2, 2, 1) + shift
    return Split(images.astype(np.uint8), np.asarray(labels, dtype=np.int64))


DECODED = Decoded(SPEC, ("a", "b", "c"), train=fake([0, 1, 2] * 10), test=fake([0, 1, 2], shift=120))
