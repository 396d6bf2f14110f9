"""What an image file shows once it is decoded at its own size; computed once per content."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec
import numpy as np

from cnnbench import records
from cnnbench.cache import cache_folder
from cnnbench.datasets import decoding
from cnnbench.datasets.layout import Entry
from cnnbench.types import CnnbenchError, Preprocessing

VERSION = 2  # counts up when facts of the same file are others
ANY = Preprocessing(background=255, shift=8, border=255, mode="RGB")
"""What `fit` chooses decides how files look, not whether they can be read."""
WIDE_MODES = ("I", "F")
"""First letters of Pillow's modes with more than 8 bits a channel."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of one file, upright. Where it cannot be read, only `error` is of use."""

    format: str = ""
    """Pillow's name of it."""
    mode: str = ""
    """Pillow's name of its pixels."""
    width: int = 0
    height: int = 0
    pixels_sha256: str = ""
    """SHA-256 of size and pixels, whatever the format: equal for a PNG and a BMP of one image."""
    flat: bool = False
    """Whether all pixels are alike."""
    gray: bool = False
    """Whether red, green and blue are equal everywhere."""
    look: int | None = None
    """64 bits that are nearly the same for images that look alike; None without the package imagehash."""
    error: str = ""


_reading = Lock()
"""Held while a file is read: the members of an archive share one handle."""
Known = dict[str, Facts]
"""By the hash of the encoded file."""


def facts_of(entries: Sequence[Entry], *, root: Path) -> Known:
    """The facts of every content, from the cache where they were found before.

    Args:
        entries: Entries of a listing.
        root: The folder, table or archive, by which the cache is named.
    """
    import PIL

    looks = _hasher() is not None
    name = hashlib.sha256(f"{VERSION} {PIL.__version__} {looks} {root.resolve()!r}".encode()).hexdigest()[:32]
    cache = cache_folder("folders") / f"{name}.facts"
    known = _read(cache)
    contents = {entry.sha256: entry for entry in entries}
    new = [entry for digest, entry in contents.items() if digest not in known]
    new.sort(key=lambda entry: entry.place)  # a compressed archive is read from its beginning for each step back
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding leaves Python's lock
        known |= dict(zip((entry.sha256 for entry in new), pool.map(look_at, new), strict=True))
    found = {digest: known[digest] for digest in contents}
    if new:
        with suppress(OSError, CnnbenchError), records.replacing(cache) as partial:  # else they are found again
            partial.write_bytes(msgspec.msgpack.encode(found))
    return found


def look_at(entry: Entry) -> Facts:
    """Decode one file; whatever is wrong with it is in its facts."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _reading, entry.opened() as file:
                content = file.read()
            decoding.pixels(io.BytesIO(content), ANY, size=1)  # what `fit` refuses is refused here, in the same words
            with Image.open(io.BytesIO(content)) as image:
                image.filename = ""  # as in predict.decode
                kind = {"format": image.format or "", "mode": image.mode}
                upright = ImageOps.exif_transpose(image)
                pixels = _pixels(upright)
                look = _look(upright)
    except Exception as error:  # of damaged files Pillow raises all kinds
        return Facts(error=getattr(error, "strerror", None) or str(error) or type(error).__name__)
    digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return Facts(
        **kind,
        width=pixels.shape[1],
        height=pixels.shape[0],
        pixels_sha256=digest.hexdigest(),
        flat=bool((pixels == pixels[:1, :1]).all()),
        gray=pixels.ndim == 2 or bool((pixels[..., :1] == pixels[..., :3]).all()),
        look=look,
    )


def _read(cache: Path) -> Known:
    try:
        return msgspec.msgpack.decode(cache.read_bytes(), type=Known)
    except (OSError, msgspec.DecodeError):  # none yet, or damaged
        return {}


def _pixels(image: Any) -> np.ndarray:
    """`(H, W, 4)` uint8 with transparency, or `(H, W)` of more bits as they are; colour that no one sees is 0."""
    if image.mode.startswith(WIDE_MODES):
        return np.asarray(image)
    if image.mode == "LAB":
        image = image.convert("RGB")  # the only mode that Pillow brings it to
    pixels = np.array(image.convert("RGBA"))
    pixels[pixels[..., 3] == 0] = 0
    return pixels


def _hasher() -> Any:
    """The function of the package imagehash; None where it is not installed."""
    try:
        from imagehash import phash
    except ImportError:
        return None
    return phash


def _look(image: Any) -> int | None:
    """Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", by discrete cosines."""
    hasher = _hasher()
    if hasher is None:
        return None
    bits = hasher(image if image.mode in ("L", "RGB") else image.convert("RGB")).hash
    return int.from_bytes(np.packbits(bits).tobytes())
