"""From image files to pixels: what is chosen once, from the training split, and how each file is then decoded.

The pixels are those of `runtime.predict`, whose copy in a bundle follows the same choices; see docs/folders.md.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from cnnbench.datasets.border import BLACK, SAMPLE, USUAL_SHIFT, WHITE, mode_of, with_border
from cnnbench.datasets.splits import evenly_spaced
from cnnbench.runtime import predict
from cnnbench.types import CnnbenchError, Exit, Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image

Item = str | Path | BinaryIO | Callable[[], BinaryIO]
"""An image file: where it lies, one that is open for reading, or what opens it."""


OF_PYTHON = re.compile(r" ?<_io\..*>", re.DOTALL)
"""What messages of Pillow call an open file."""


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


def choose(items: Sequence[Item], *, size: int, channels: int, order: Sequence[int] | None = None) -> Preprocessing:
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
        order: Their places in an order in which they are fast to read, which changes nothing else.
    """
    seen, order = _Seen(), range(len(items)) if order is None else order
    for place in order:
        _look(items[place], seen)
    shift = max(0, seen.largest.bit_length() - 8) if seen.largest else USUAL_SHIFT
    background = BLACK if 2 * seen.light > 255 * seen.alpha else WHITE
    chosen = Preprocessing(background=background, shift=shift, border=background, mode=mode_of(channels))
    sample = {*evenly_spaced(len(items), SAMPLE).tolist()}
    some = [items[place] for place in order if place in sample]
    images = [image for item in some if (image := _decoded(item, chosen, size)) is not None]
    return with_border(chosen, np.stack(images), keep=bool(seen.transparent)) if images else chosen


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
    """As `decode`, but raises OSError, which says why alone, in words."""
    channels = 3 if preprocessing.mode == "RGB" else 1
    try:
        with _opened(item) as file:
            return predict.decode(file, size, size, channels, rules=asdict(preprocessing))
    except OSError as error:
        raise OSError(OF_PYTHON.sub("", error.strerror or str(error))) from None


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
