"""Image files of many kinds as people have them: 20 of each, of any size and content, the same at every call."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

EACH = 20
LARGEST = 90
Draw = Callable[[np.random.RandomState], tuple[Image.Image, dict[str, Any]]]
"""An image, and how it is saved."""


def write_all(folder: Path) -> list[str]:
    """300 files in `folder`; their names begin with their kind."""
    folder.mkdir(parents=True)
    for kind, draw in KINDS.items():
        for index in range(EACH):
            random = np.random.RandomState(sum(kind.encode()) * EACH + index)
            image, options = draw(random)
            image.save(folder / f"{kind.replace(' ', '_')}_{index:02}.{kind.split()[-1]}", **options)
    return sorted(path.name for path in folder.iterdir())


def is_lossy(name: str) -> bool:
    return name.endswith(("jpg", "webp", "avif"))


def picture(random: np.random.RandomState, channels: int, side: int = 0) -> np.ndarray:
    """Waves and some noise, `(H, W, channels)` uint8."""
    height, width = (side, side) if side else random.randint(1, LARGEST, 2)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * random.rand() + y * random.rand() + 6 * random.rand()) for _ in range(channels)]
    values = np.stack(waves, axis=2) * 100 + 127 + random.randint(-20, 20, (height, width, channels))
    return np.clip(values, 0, 255).astype(np.uint8)


def gray(random: np.random.RandomState) -> Image.Image:
    return Image.fromarray(picture(random, 1)[..., 0])


def colour(random: np.random.RandomState) -> Image.Image:
    return Image.fromarray(picture(random, 3))


def deep(random: np.random.RandomState) -> Image.Image:
    return Image.fromarray(picture(random, 1)[..., 0].astype(np.uint16) * np.uint16(random.choice([1, 16, 257])))


def palette(random: np.random.RandomState) -> Image.Image:
    return colour(random).quantize(int(random.randint(2, 64)))


def turned(random: np.random.RandomState) -> dict[str, Any]:
    exif = Image.Exif()
    exif[0x0112] = int(random.randint(1, 9))
    return {"exif": exif}


def frames(random: np.random.RandomState) -> dict[str, Any]:
    side = int(random.randint(2, 40))
    more = [Image.fromarray(picture(random, 3, side)) for _ in range(3)]
    return {"save_all": True, "append_images": more}


def of_bytes(mode: str, pixels: np.ndarray) -> Image.Image:
    height, width = pixels.shape[:2]
    return Image.frombytes(mode, (width, height), pixels.tobytes())


KINDS: dict[str, Draw] = {
    "gray png": lambda random: (gray(random), {}),
    "colour png": lambda random: (colour(random), turned(random)),
    "alpha png": lambda random: (Image.fromarray(picture(random, 4)), {}),
    "gray with alpha png": lambda random: (of_bytes("LA", picture(random, 2)), {}),
    "palette bmp": lambda random: (palette(random), {}),
    "palette transparent png": lambda random: (palette(random), {"transparency": random.bytes(8)}),
    "deep png": lambda random: (deep(random), {**turned(random), "transparency": int(random.randint(100, 1000))}),
    "bits png": lambda random: (gray(random).convert("1"), {"transparency": int(random.randint(2))}),
    "turned jpg": lambda random: (colour(random), turned(random)),
    "cmyk jpg": lambda random: (colour(random).convert("CMYK"), {}),
    "lossy webp": lambda random: (Image.fromarray(picture(random, 4)), {}),
    "lossy avif": lambda random: (colour(random), {}),
    "animated gif": lambda random: (palette(random), {"transparency": 1, **frames(random)}),
    "pages tif": lambda random: (deep(random), frames(random)),
    "lab tif": lambda random: (of_bytes("LAB", picture(random, 3)), {}),
}
