"""The golden images: the few inputs on which a file is compared with the network exactly, here and by every reader."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnnbench.datasets.splits import evenly_spaced
from cnnbench.types import SEED

TEST_IMAGES = 14
NOISE_IMAGES = 4


@dataclass(frozen=True)
class Golden:
    """Images `(N, H, W, C)` uint8, the telling kinds first, and of each its place in the test split, -1 for none."""

    pixels: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)


def golden_images(test: np.ndarray) -> Golden:
    """Up to 24 inputs: images of the test split over its length, noise, and those that show single weights.

    Noise, single pixels and checkerboards reach weights that no photo does: those of a border that is always black,
    say. All black and all white show what padding and saturation do.

    Args:
        test: Images `(N, H, W, C)` uint8.
    """
    chosen = evenly_spaced(len(test), TEST_IMAGES)
    return _arranged(test[chosen], chosen)


def as_made(golden: Golden, *, test_images: int) -> bool:
    """Whether images are those that `golden_images` makes from a test split of so many images, whatever these show."""
    own = golden.places >= 0
    chosen = evenly_spaced(test_images, TEST_IMAGES)
    if own.sum() != len(chosen):
        return False
    expected = _arranged(golden.pixels[own], chosen)
    return np.array_equal(golden.pixels, expected.pixels) and np.array_equal(golden.places, expected.places)


def _arranged(test: np.ndarray, places: np.ndarray) -> Golden:
    """Images of the test split `(K, H, W, C)` at `places`, and the others, in the order of all."""
    _, height, width, channels = test.shape
    noise = np.random.RandomState(SEED).randint(0, 256, (NOISE_IMAGES, height, width, channels)).astype(np.uint8)
    corner, centre = np.zeros((2, height, width, channels), np.uint8)
    corner[0, -1] = centre[height // 2, width // 2] = 255
    rows, columns = np.indices((height, width))
    fine, coarse = (np.uint8(255) * ((rows // size + columns // size) % 2)[..., None] for size in (1, 4))
    shape = (height, width, channels)
    made = [np.broadcast_to(image, shape).astype(np.uint8) for image in (fine, corner, coarse, centre)]
    flat = [np.full(shape, value, np.uint8) for value in (0, 255)]
    # a reader with little time looks at the first few
    pixels = np.stack([test[0], noise[0], *made[:2], *test[1:], *noise[1:], *made[2:], *flat])
    others = [-1] * (NOISE_IMAGES - 1 + len(made) - 2 + len(flat))
    return Golden(pixels, np.array([places[0], -1, -1, -1, *places[1:], *others], dtype=np.int32))
