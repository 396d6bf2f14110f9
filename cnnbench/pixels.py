"""From decoded images, uint8 `(N, H, W, C)`, to what networks take: float pixels in [0, 1], `(N, C, H, W)`.

The one place where this is written. `runtime/predict.py`, which travels alone in every bundle, and the exported graph
do the same; tests/test_pixels.py compares them with this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LEVELS = 255
"""The largest value of a pixel."""


def to_float(images: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Images `(N, H, W, C)` uint8 as float pixels `(N, C, H, W)` in [0, 1], float32 unless `dtype` says otherwise.

    The result lies in memory as the images do, channels last, which is the layout convolutions are fastest in.
    """
    planes = images.permute(0, 3, 1, 2)
    return (planes.float() if dtype is None else planes.to(dtype)).div_(LEVELS)


def to_graph_input(images: np.ndarray, dtype: str) -> np.ndarray:
    """Images `(N, H, W, C)` uint8 as a graph takes them: uint8 as they are, or float32 `(N, C, H, W)` in [0, 1]."""
    if dtype == "uint8":
        return np.ascontiguousarray(images)
    planes: np.ndarray = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(LEVELS)
    return planes
