"""What images lie on: the level of their border, and the background that goes with it."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cnnbench.datasets.splits import evenly_spaced
from cnnbench.types import Preprocessing, Split

BLACK, WHITE = 0, 255
USUAL_SHIFT = 8
"""Of values of 16 bits, where no training image has any."""
SAMPLE = 100
"""Training images of which the border is looked at."""


def of_arrays(train: Split) -> Preprocessing | None:
    """What is chosen for a data set that came as arrays, from its training images; None where no file has its channels.

    As `decoding.choose` does where no image is transparent and none has 16 bits.
    """
    images = train.images[evenly_spaced(len(train), SAMPLE)]
    if images.shape[3] not in (1, 3):
        return None
    usual = Preprocessing(background=WHITE, shift=USUAL_SHIFT, border=WHITE, mode=mode_of(images.shape[3]))
    return with_border(usual, images)


def border_level(images: np.ndarray) -> int:
    """The mean gray level, rounded, of the outermost pixels of images `(N, H, W, C)` uint8."""
    inner = images[:, 1:-1, 1:-1]
    total = int(images.sum(dtype=np.int64)) - int(inner.sum(dtype=np.int64))
    return round(total / (images.size - inner.size))


def with_border(chosen: Preprocessing, images: np.ndarray, *, keep: bool = False) -> Preprocessing:
    """With the border of images `(N, H, W, C)` uint8; unless `keep`, the background is what is nearer to it."""
    border = border_level(images)
    background = chosen.background if keep else (BLACK if border < 128 else WHITE)
    return Preprocessing(background=background, shift=chosen.shift, border=border, mode=chosen.mode)


def mode_of(channels: int) -> Literal["L", "RGB"]:
    """Pillow's name of gray or colour."""
    return "RGB" if channels == 3 else "L"
