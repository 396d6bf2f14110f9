"""What reading decides on folders of images: arrows, icons and MNIST as files, as they were read before and are now.

    python benchmarks/folders.py [--seeds 1,2]

Each row is `lenet5_relu`, trained and tested by `cnnbench.fit`. Before: images of folders were always mirrored, padded
by an eighth of their side and cropped, which `--data.flip true --data.pad N` does; and what lies under transparent
pixels was seen, which files without their alpha channel give. `mnist5k` is the same digits from arrays.
"""

import argparse
import contextlib
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from rounds import table

import cnnbench
from cnnbench.types import CnnbenchError

PER_CLASS = {"train": 200, "val": 20, "test": 20}
SIDE = 28
Draw = Callable[[ImageDraw.ImageDraw, int, int, int], None]
"""Draws an object around (x, y), of half a width."""


def _arrow(direction: int) -> Draw:
    def draw(on: ImageDraw.ImageDraw, x: int, y: int, half: int) -> None:
        points = [(-half, -8), (0, -8), (0, -half), (half, 0), (0, half), (0, 8), (-half, 8)]  # to the right
        turned = {0: lambda a, b: (a, b), 1: lambda a, b: (-a, b), 2: lambda a, b: (b, -a)}[direction]
        on.polygon([(x + a, y + b) for a, b in (turned(*point) for point in points)], fill=0)

    return draw


def _square(on: ImageDraw.ImageDraw, x: int, y: int, half: int) -> None:
    on.rectangle((x - half, y - half, x + half, y + half), fill=0)


def _circle(on: ImageDraw.ImageDraw, x: int, y: int, half: int) -> None:
    on.ellipse((x - half, y - half, x + half, y + half), fill=0)


def _cross(on: ImageDraw.ImageDraw, x: int, y: int, half: int) -> None:
    on.line((x - half, y - half, x + half, y + half), fill=0, width=16)
    on.line((x - half, y + half, x + half, y - half), fill=0, width=16)


ARROWS: dict[str, Draw] = {"right": _arrow(0), "left": _arrow(1), "up": _arrow(2)}
ICONS: dict[str, Draw] = {"square": _square, "circle": _circle, "cross": _cross}


def drawn(folder: Path, kinds: dict[str, Draw], finish: Callable[[Image.Image], Image.Image]) -> None:
    """Dark objects on white, anywhere, of any size and shade, each changed by `finish` before it is saved.

    They are drawn four times as large, so that hardly two are alike: an image of the test is none of the training.
    """
    random = np.random.RandomState(0)
    for split, count in PER_CLASS.items():
        for name, draw in kinds.items():
            for index in range(count):
                image = Image.new("L", (4 * SIDE, 4 * SIDE), 255)
                x, y = random.randint(44, 4 * SIDE - 44, 2)
                draw(ImageDraw.Draw(image), int(x), int(y), int(random.randint(24, 40)))
                shade = int(random.randint(100))
                image = image.point(lambda level, shade=shade: level or shade).resize((SIDE, SIDE))
                _save(finish(image), folder / split / name / f"{index}.png")


def cut_out(shape: Image.Image) -> Image.Image:
    """Black everywhere, with the shape in its alpha channel alone."""
    black = Image.new("L", shape.size, 0)
    return Image.merge("RGBA", (black, black, black, shape.point(lambda level: 255 - level)))


def digits(folder: Path) -> None:
    """The images and splits of mnist5k as files."""
    from cnnbench.datasets.choice import open_choice
    from cnnbench.records.schema import DataChoice

    data = open_choice(DataChoice(dataset="mnist5k"))
    for split in ("train", "val", "test"):
        part = getattr(data, split)
        for index, (image, label) in enumerate(zip(part.images, part.labels, strict=True)):
            _save(Image.fromarray(image[..., 0]), folder / split / str(label) / f"{index}.png")


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def scored(seeds: list[int], **options: str | int | bool) -> str:
    """The test accuracy of each seed, in percent, or why there is none."""
    found = []
    for seed in seeds:
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                record = cnnbench.fit(arch="lenet5_relu", seed=seed, test=True, overwrite=True, **options)
        except CnnbenchError as error:
            return f"refused: {error}"
        assert record
        assert record.test
        found.append(f"{100 * record.test.correct / record.test.images:.2f}")
    return ", ".join(found)


def main() -> None:
    """Train on each, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2", help="of the runs (default 1,2)")
    seeds = [int(seed) for seed in parser.parse_args().seeds.split(",")]
    before = {"flip": True, "pad": SIDE // 8}
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        drawn(Path("arrows"), ARROWS, lambda image: image)
        drawn(Path("icons"), ICONS, cut_out)
        drawn(Path("icons_opaque"), ICONS, lambda image: cut_out(image).convert("RGB"))
        digits(Path("digits"))
        small = {"dataset": "folder", "size": SIDE, "max_epochs": 80, "batch_size": 64}
        mnist = {"max_epochs": 15, "batch_size": 64}
        files = {**mnist, "dataset": "folder", "folder": "digits", "size": SIDE, "channels": 1}
        sides = [
            ("arrows left, right, up", "before: mirrored, padded by 3", {**small, "folder": "arrows", **before}),
            ("arrows left, right, up", "now", {**small, "folder": "arrows"}),
            ("icons, the shape in alpha", "before: alpha ignored", {**small, "folder": "icons_opaque", **before}),
            ("icons, the shape in alpha", "now: on white", {**small, "folder": "icons"}),
            ("mnist5k as a folder", "before: mirrored, padded by 3", {**files, **before}),
            ("mnist5k as a folder", "now", files),
            ("mnist5k as a folder", "now, `--data.pad 2`", {**files, "pad": 2}),
            ("mnist5k", "its own padding by 2", {**mnist, "dataset": "mnist5k"}),
        ]
        rows = [["images", "read", f"test accuracy, %, seeds {', '.join(map(str, seeds))}"]]
        for images, read, options in sides:
            rows.append([images, read, scored(seeds, **options)])
            print(*rows[-1], sep="; ", flush=True)
    table(rows)


if __name__ == "__main__":
    main()
