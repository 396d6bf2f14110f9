"""The user's own images, in any layout that `layout` reads.

Images are decoded once, brought to one size and mode, and kept in a memory-mapped cache; what is known of a file is
known by the hash of its content.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import numpy as np

from cnnbench import records
from cnnbench.cache import cache_folder
from cnnbench.datasets import Decoded, Source, dataset
from cnnbench.datasets.changes import remember
from cnnbench.datasets.decoded import Files, Images, decoded, shown_bytes
from cnnbench.datasets.decoding import choose, pixels
from cnnbench.datasets.layout import EXPECTED, SHARES, Entry, Listing, read_listing, without
from cnnbench.datasets.splits import with_pixel_stats
from cnnbench.datasets.tree import Skipped, shown
from cnnbench.types import CnnbenchError, Exit, ImageSpec, Preprocessing, Split, listed, one_line

DECODER = 3  # counts up when `pixels` gives other pixels, so that no cache of the old ones is used
MOST_NAMED = 20
"""Files that one message names."""
FEW_NAMED = 3
"""Files that a line about files left out names."""


@dataset(uses=["folder", "size", "channels", "split", "skip_broken"])
def folder(source: Source) -> Decoded:
    """Your own images, --data.folder DIR: a folder per class, a table, arrays or an archive."""
    if source.folder is None:
        raise CnnbenchError(
            f"no folder of images given (--data.folder; for export and verify --folder); expected {EXPECTED}", Exit.DATA
        )
    if source.channels not in (1, 3) or source.size < 1:
        raise CnnbenchError(
            f"data.size {source.size}, data.channels {source.channels}: "
            "expected a size of at least 1, and 1 or 3 channels"
        )
    listing = read_listing(source.folder, shares=parse_shares(source.split))
    chosen = _chosen(listing.train, source)
    images = {split: decoded(_files(entries, source, chosen)) for split, entries in listing.splits.items()}
    if written := sum(part.written for part in images.values()):
        print(f"note: decoded images are kept in {cache_folder('folders')} ({shown_bytes(written)})", file=sys.stderr)
    unread = [*listing.unreadable]
    for split, part in images.items():
        unread += [Skipped(listing.splits[split][place].name, why) for place, why in part.broken.items()]
    if unread and not source.skip_broken:
        raise CnnbenchError(_refusal(unread, listing), Exit.DATA)
    kept = without(listing, (broken.name for broken in unread))
    if unread:
        _require_some(kept, unread)
    remember(kept)
    splits = {split: _split(kept.splits[split], images[split]) for split in images}
    spec = ImageSpec(source.size, source.size, source.channels, len(listing.class_names))
    return Decoded(
        with_pixel_stats(spec, splits["train"]) if len(splits["train"]) else spec,
        listing.class_names,
        splits["train"],
        splits["test"],
        splits["val"],
        preprocessing=chosen,
        sha256=kept.sha256,
        notes=_notes(kept, unread),
        broken=len(unread),
    )


def parse_shares(text: str | None) -> dict[str, float] | None:
    """The shares of train, val and test in `70,15,15`, in percent; None where nothing is said.

    Raises:
        CnnbenchError: They are not three numbers above 0 that sum to 100 (exit 2).
    """
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != len(SHARES) or not all(value > 0 for value in values) or abs(sum(values) - 100) > 1e-6:
        raise CnnbenchError(
            f"data.split is {text!r}: expected percent of train, val and test that sum to 100: 70,15,15"
        )
    return dict(zip(SHARES, values, strict=True))


def _split(entries: Sequence[Entry], images: Images) -> Split:
    labels = np.array([entry.label for entry in entries], dtype=np.int64)
    return Split(images.pixels, labels, np.array([entry.name for entry in entries], dtype=object))


def _chosen(train: Sequence[Entry], source: Source) -> Preprocessing:
    """How all files are decoded, from the cache if it was chosen for these before."""
    cache = cache_folder("folders") / f"{_key(train, source)}.json"
    try:
        return msgspec.json.decode(cache.read_bytes(), type=Preprocessing)
    except (OSError, msgspec.DecodeError):  # none there, or of another version
        fast = sorted(range(len(train)), key=lambda place: train[place].place)
        chosen = choose([entry.opened for entry in train], size=source.size, channels=source.channels, order=fast)
    with suppress(OSError, CnnbenchError), records.replacing(cache) as partial:  # without it, it is chosen again
        partial.write_bytes(msgspec.json.encode(chosen))
    return chosen


def _files(entries: Sequence[Entry], source: Source, chosen: Preprocessing) -> Files:
    def decode_at(place: int) -> np.ndarray:
        return pixels(entries[place].opened, chosen, size=source.size)

    return Files(
        _key(entries, source, chosen),
        len(entries),
        (source.size, source.size, source.channels),
        order=sorted(range(len(entries)), key=lambda place: entries[place].place),
        decode=decode_at,
    )


def _key(entries: Sequence[Entry], source: Source, chosen: Preprocessing | None = None) -> str:
    """Other where pixels may be: the libraries in Pillow decode JPEG with other rounding from version to version."""
    import PIL

    digest = hashlib.sha256(f"{DECODER} {PIL.__version__} {source.size} {source.channels} {chosen}".encode())
    for entry in entries:
        digest.update(entry.sha256.encode())
    return digest.hexdigest()[:32]


def _refusal(unread: Sequence[Skipped], listing: Listing) -> str:
    """One line that names every file that cannot be read."""
    remedy = "repair or remove, or leave such out with --data.skip_broken true"
    named = [f"{broken.name} ({broken.reason})" for broken in unread]
    if len(unread) == 1:
        return one_line(f"cannot read {listing.folder / unread[0].name} as an image: {unread[0].reason}; {remedy}")
    return one_line(
        f"cannot read {len(unread):,} files of {listing.folder} as images: {listed(named, MOST_NAMED)}; {remedy}"
    )


def _require_some(kept: Listing, unread: Sequence[Skipped]) -> None:
    """Refuse what `skip_broken` leaves nothing of.

    Raises:
        CnnbenchError: All files are broken, or all of a split, or all training files of a class (exit 3).
    """
    told = f"{len(unread):,} files cannot be read, the first {unread[0].name} ({unread[0].reason})"
    empty = [split for split, entries in kept.splits.items() if not entries]
    if len(empty) == len(kept.splits):
        raise CnnbenchError(one_line(f"all files of {kept.folder} are broken: {told}"), Exit.DATA)
    if empty:
        raise CnnbenchError(one_line(f"all {' and '.join(empty)} files of {kept.folder} are broken: {told}"), Exit.DATA)
    if absent := [name for name, count in kept.counts("train").items() if not count]:
        named = listed(absent, MOST_NAMED)
        raise CnnbenchError(one_line(f"all training files of {named} in {kept.folder} are broken: {told}"), Exit.DATA)


def _notes(listing: Listing, unread: Sequence[Skipped]) -> tuple[str, ...]:
    """What `fit` says of the images besides their numbers."""
    drawn = f"; {' and '.join(listing.drawn)} drawn here" if listing.drawn else ""
    lines = [f"{listing.folder}: {listing.layout}{drawn}"]
    by_reason: dict[str, list[str]] = {}
    for skipped in listing.skipped:
        by_reason.setdefault(skipped.reason, []).append(shown(skipped.name))
    if unread:
        by_reason["cannot be read"] = [broken.name for broken in unread]
    for reason, names in by_reason.items():
        lines.append(f"left out, {reason}: {len(names):,} ({listed(names, FEW_NAMED)})")
    for split in ("val", "test"):
        if absent := [name for name, count in listing.counts(split).items() if not count]:
            lines.append(f"no {split} image of {listed(absent, MOST_NAMED)}")
    return tuple(one_line(line) for line in lines)
