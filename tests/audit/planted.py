"""A folder of images with planted faults."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("blue", "green", "red")
COUNTS = {"train": (12, 12, 40), "val": (4, 4, 4), "test": (5, 5, 5)}


def texture(seed: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    pixels = np.random.RandomState(seed).randint(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def clean(root: Path) -> Path:
    """Different images in all splits and classes."""
    seed = 0
    for split, counts in COUNTS.items():
        for name, count in zip(CLASSES, counts, strict=True):
            folder = root / split / name
            folder.mkdir(parents=True)
            for place in range(count):
                texture(seed).save(folder / f"{place}.png")
                seed += 1
    return root


def faulty(root: Path) -> Path:
    """With three leaks, one contradiction, copies, near copies, flat, broken and foreign files."""
    clean(root)
    train, test = root / "train", root / "test"
    shutil.copy(train / "red/0.png", test / "red/same bytes.png")
    Image.open(train / "green/1.png").save(test / "green/other format.bmp")
    turned = Image.open(train / "blue/2.png").transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 270 degrees, counterclockwise
    turned.save(root / "val/blue/turned.png", exif=exif)
    shutil.copy(train / "red/3.png", train / "green/wrong.png")
    shutil.copy(train / "red/4.png", train / "red/again.png")
    Image.open(train / "red/5.png").save(test / "red/recompressed.jpg", quality=95)
    Image.new("RGB", (40, 32), (9, 9, 9)).save(train / "green/flat.png")
    (train / "red/cut.png").write_bytes((train / "red/6.png").read_bytes()[:300])
    (train / "notes.txt").touch()
    return root
