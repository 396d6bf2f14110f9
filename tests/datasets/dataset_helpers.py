"""What several tests of datasets share."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from cnnbench.datasets import Decoded, Source
from cnnbench.datasets.choice import load
from cnnbench.types import CnnbenchError, Dataset, Exit


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
