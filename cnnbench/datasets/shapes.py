"""Ten coloured shapes on a coloured ground, drawn with integer arithmetic alone, so every machine draws the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from cnnbench.datasets import Decoded, Source, dataset
from cnnbench.types import Augment, ImageSpec, Split

SIDE = 32
TRAIN_IMAGES, TEST_IMAGES = 10_000, 2_000

Grid = np.ndarray
SHAPES: dict[str, Callable[[Grid, Grid, int], Grid]] = {
    # name: where the shape of radius r is, given the offsets (y, x) from its centre, each (SIDE, SIDE)
    "disc": lambda y, x, r: y * y + x * x <= r * r,
    "ring": lambda y, x, r: (y * y + x * x <= r * r) & (4 * (y * y + x * x) >= r * r),
    "square": lambda y, x, r: np.maximum(abs(y), abs(x)) <= r,
    "frame": lambda y, x, r: (np.maximum(abs(y), abs(x)) <= r) & (2 * np.maximum(abs(y), abs(x)) >= r),
    "diamond": lambda y, x, r: abs(y) + abs(x) <= r,
    "triangle up": lambda y, x, r: (abs(y) <= r) & (2 * abs(x) <= y + r),
    "triangle down": lambda y, x, r: (abs(y) <= r) & (2 * abs(x) <= r - y),
    "plus": lambda y, x, r: (np.maximum(abs(y), abs(x)) <= r) & (3 * np.minimum(abs(y), abs(x)) <= r),
    "cross": lambda y, x, r: (np.maximum(abs(y), abs(x)) <= r) & (3 * abs(abs(y) - abs(x)) <= r),
    "bar": lambda y, x, r: (abs(x) <= r) & (3 * abs(y) <= r),
}


@dataset(
    size="32x32x3",
    classes=10,
    sha256="718ebbbc2938d6d8853ac08c0450ef23a5c309d58089709ab97176ec44fb92b6",
    splits={"left-right": "a9b2119608e0b22bc4694fb56ecc20797d16aa1c8733ad04a234b083b280c762"},
)
def shapes(source: Source) -> Decoded:
    """12,000 generated shapes in 10 classes, 32 x 32 colour; no download.

    With the split left-right, objects lie wholly in the left half of the training images and in the right half of the
    test images; nothing else differs, and no crop moves them.
    """
    random = np.random.RandomState(1)  # a frozen stream (NEP 19): the hashes above must hold for ever
    spec = ImageSpec(SIDE, SIDE, 3, num_classes=10, mean=(0.498, 0.497, 0.500), std=(0.242, 0.241, 0.241))
    if source.split == "left-right":
        train, test = draw(TRAIN_IMAGES, random, half="left"), draw(TEST_IMAGES, random, half="right")
        return Decoded(spec, tuple(SHAPES), train, test)
    train, test = draw(TRAIN_IMAGES, random), draw(TEST_IMAGES, random)
    return Decoded(spec, tuple(SHAPES), train, test, augment=Augment(pad=2))


def draw(count: int, random: np.random.RandomState, *, half: Literal["left", "right"] | None = None) -> Split:
    """`count` images `(count, 32, 32, 3)`: size, place, both colours and noise are drawn for each.

    In a half, radii are 4 to 7 instead of 5 to 9: the largest that fit into 16 columns.
    """
    labels = np.arange(count, dtype=np.int64) % len(SHAPES)
    images = np.empty((count, SIDE, SIDE, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    masks = list(SHAPES.values())
    for index, label in enumerate(labels):
        if half is None:
            radius = random.randint(5, 10)
            top, left = random.randint(radius, SIDE - radius, size=2)
        else:
            radius = random.randint(4, 8)
            top, left = random.randint(radius, SIDE - radius), random.randint(radius, SIDE // 2 - radius)
            left += SIDE // 2 if half == "right" else 0
        ground = random.randint(30, 226, size=3)
        colour = (ground + random.randint(60, 197, size=3)) % 256  # at least 60 levels away in each channel
        inside = masks[label](rows - top, columns - left, radius)
        noise = random.randint(-20, 21, size=(SIDE, SIDE, 3))
        images[index] = np.clip(np.where(inside[..., None], colour, ground) + noise, 0, 255)
    return Split(images, labels)
