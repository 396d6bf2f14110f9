"""From image files to pixels: what is chosen once, from the training split, and how each file is then decoded.

The pixels are those of `runtime.predict`, whose copy in a bundle follows the same choices; see docs/folders.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from cnnbench.datasets.splits import evenly_spaced
from cnnbench.runtime import predict
from cnnbench.types import CnnbenchError, Exit, Preprocessing, Split

if TYPE_CHECKING:
    from PIL.Image import Image

Item = str | Path | BinaryIO | Callable[[], BinaryIO]
"""An image file: where it lies, one that is open for reading, or what opens it."""

BLACK, WHITE = 0, 255
USUAL_SHIFT = 8
"""Of values of 16 bits, where no training image has any."""
SAMPLE = 100
"""Training images of which the border is looked at."""


@dataclass
class _Seen:
    """What the training files have told so far; whole numbers, so that their order does not matter."""

    largest: int = 0
    """Value of a gray image of 16 bits."""
    alpha: int = 0
    """Sum over the pixels of transparent images."""
    light: int = 0
    """Sum of their gray levels, each times its alpha."""
    transparent: int = 0
    """Images of which some pixel is."""


def choose(items: Sequence[Item], *, size: int, channels: int) -> Preprocessing:
    """What is chosen for all files of a data set, from those of its training split.

    - The shift of 16-bit values is the least after which the largest of them all is at most 255: 8 for values that fill
      16 bits, 4 for 12 bits, 0 for 8. Without 16-bit files it is 8.
    - The background is white; black where the visible pixels of the transparent images are brighter, on average, than
      mid gray. Where no image is transparent, it is black or white, whichever is nearer to the images' borders.

    Files that cannot be read are passed over: decoding names them.

    Args:
        items: The training files, in an order that is the same however they lie; open ones are wound back.
        size: Side in pixels of the decoded images.
        channels: 3 for colour, 1 for gray.
    """
    seen = _Seen()
    for item in items:
        _look(item, seen)
    shift = max(0, seen.largest.bit_length() - 8) if seen.largest else USUAL_SHIFT
    background = BLACK if 2 * seen.light > 255 * seen.alpha else WHITE
    chosen = Preprocessing(background=background, shift=shift, border=background, mode=_mode(channels))
    some = [items[index] for index in evenly_spaced(len(items), min(SAMPLE, len(items)))]
    images = [image for item in some if (image := _decoded(item, chosen, size)) is not None]
    return _with_border(chosen, np.stack(images), keep=bool(seen.transparent)) if images else chosen


def of_arrays(train: Split) -> Preprocessing | None:
    """What is chosen for a data set that came as arrays, from its training images; None where no file has its channels.

    As in `choose`, where no image is transparent and none has 16 bits.
    """
    images = train.images[evenly_spaced(len(train), min(SAMPLE, len(train)))]
    if images.shape[3] not in (1, 3):
        return None
    usual = Preprocessing(background=WHITE, shift=USUAL_SHIFT, border=WHITE, mode=_mode(images.shape[3]))
    return _with_border(usual, images, keep=False)


def decode(item: Item, preprocessing: Preprocessing, *, size: int, name: str = "") -> np.ndarray:
    """One image file as `(size, size, channels)` uint8, exactly as a bundle's predict.py reads it.

    Args:
        item: The file.
        preprocessing: How it is decoded.
        size: Side in pixels.
        name: What errors call it; by default its path.

    Raises:
        CnnbenchError: The file is not an image or is truncated (exit 3).
    """
    try:
        return pixels(item, preprocessing, size=size)
    except OSError as error:
        raise CnnbenchError(f"cannot read {name or item} as an image: {error}", Exit.DATA) from None


def pixels(item: Item, preprocessing: Preprocessing, *, size: int) -> np.ndarray:
    """As `decode`, but raises OSError, which says why alone."""
    channels = 3 if preprocessing.mode == "RGB" else 1
    with _opened(item) as file:
        return predict.decode(file, size, size, channels, rules=asdict(preprocessing))


def border_level(images: np.ndarray) -> int:
    """The mean gray level, rounded, of the outermost pixels of images `(N, H, W, C)` uint8."""
    inner = images[:, 1:-1, 1:-1]
    total = int(images.sum(dtype=np.int64)) - int(inner.sum(dtype=np.int64))
    return round(total / (images.size - inner.size))


def _with_border(chosen: Preprocessing, images: np.ndarray, *, keep: bool) -> Preprocessing:
    border = border_level(images)
    background = chosen.background if keep else (BLACK if border < 128 else WHITE)
    return Preprocessing(background=background, shift=chosen.shift, border=border, mode=chosen.mode)


def _mode(channels: int) -> Any:
    return "RGB" if channels == 3 else "L"


def _decoded(item: Item, chosen: Preprocessing, size: int) -> np.ndarray | None:
    try:
        return decode(item, chosen, size=size)
    except CnnbenchError:
        return None


@contextmanager
def _opened(item: Item) -> Iterator[str | Path | BinaryIO]:
    """What Pillow takes. A file that was open is wound back."""
    if isinstance(item, str | Path):
        yield item
    elif callable(item):
        with item() as file:
            yield file
    else:
        try:
            yield item
        finally:
            item.seek(0)


def _look(item: Item, seen: _Seen) -> None:
    """Note depth and transparency of one file; most are only opened, not decoded."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _opened(item) as file, Image.open(file) as image:
                image.filename = ""  # as in predict.decode
                if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
                    seen.largest = max(seen.largest, int(np.asarray(image).max()))
                elif image.has_transparency_data:
                    _look_through(image.convert("RGBA"), seen)
    except Exception:  # as in predict.decode; that one tells it
        pass


def _look_through(image: Image, seen: _Seen) -> None:
    """Note the visible pixels of an image `RGBA`, if one is transparent."""
    alpha = np.asarray(image.getchannel("A"), dtype=np.int64)
    if alpha.min() == 255:
        return
    seen.transparent += 1
    seen.alpha += int(alpha.sum())
    seen.light += int((alpha * np.asarray(image.convert("L"))).sum())
