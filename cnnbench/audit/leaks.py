"""Whether images that are scored were trained on, as the network sees them: what `fit` warns of."""

from __future__ import annotations

import hashlib
from contextlib import suppress

import msgspec
import numpy as np

from cnnbench import records
from cnnbench.cache import cache_folder
from cnnbench.types import CnnbenchError, Dataset, Split


class Leaks(msgspec.Struct, frozen=True):
    """Images of other splits that are training images too, pixel for pixel at the size of the network."""

    val: int
    test: int


def leaks_of(data: Dataset) -> Leaks:
    """Count them; the counts are kept by the hash of the images, so that a data set is looked at once."""
    spec, sizes = data.spec, [len(split) for split in (data.train, data.val, data.test)]
    key = hashlib.sha256(f"{data.sha256} {spec.size} {sizes} {data.preprocessing}".encode()).hexdigest()[:32]
    cache = cache_folder("checks") / f"{key}.leaks"
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(cache.read_bytes(), type=Leaks)
    trained = set(_hashes(data.train))
    found = Leaks(*(sum(digest in trained for digest in _hashes(split)) for split in (data.val, data.test)))
    with suppress(OSError, CnnbenchError), records.replacing(cache) as partial:
        partial.write_bytes(msgspec.json.encode(found))
    return found


def warning(leaks: Leaks, data: Dataset) -> str:
    """One line; empty where there is none."""
    counts = [
        f"{count:,} of {len(split):,} {name} images"
        for name, count, split in (("validation", leaks.val, data.val), ("test", leaks.test, data.test))
        if count
    ]
    if not counts:
        return ""
    return (
        f"{' and '.join(counts)} are training images too, pixel for pixel at {data.spec.size}: their scores are too "
        "good; `cnnbench audit FOLDER` names them"
    )


def _hashes(split: Split) -> list[bytes]:
    return [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in split.images]
