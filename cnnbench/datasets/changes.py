"""What changed between two contents of the user's data: the files of each content are remembered in the cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from cnnbench import records
from cnnbench.cache import cache_folder
from cnnbench.datasets.layout import Listing
from cnnbench.types import CnnbenchError, one_line

NAMED = 3
"""Files that a line names of each kind."""


class File(msgspec.Struct, array_like=True, frozen=True):
    """One file of a content."""

    split: str
    name: str
    class_name: str
    sha256: str


def remember(listing: Listing) -> None:
    """Keep the names of what a content hash stands for; without room for them, a change is told by numbers alone."""
    path = _kept(listing.sha256)
    if path.exists():
        return
    contents = [
        File(split, entry.name, listing.class_names[entry.label], entry.sha256)
        for split, entries in listing.splits.items()
        for entry in entries
    ]
    with suppress(OSError, CnnbenchError), records.replacing(path) as partial:
        partial.write_bytes(msgspec.msgpack.encode(contents))


def what_changed(before: str, now: str) -> str:
    """The difference between two contents by their hashes, in words; empty where one of them is not remembered."""
    old, new = _contents(before), _contents(now)
    if old is None or new is None:
        return ""
    gone, more = _beyond(old, new), _beyond(new, old)
    both = gone.keys() & more.keys()
    moved = {key for key in both if gone[key].class_name != more[key].class_name}
    kinds = (
        ("more", more.keys() - both),
        ("gone", gone.keys() - both),
        ("of another class", moved),
        ("of another content", both - moved),
    )
    return one_line("; ".join(_told(kind, sorted(keys)) for kind, keys in kinds if keys))


def _beyond(these: Sequence[File], others: Sequence[File]) -> dict[tuple[str, str], File]:
    """The files, by split and name, whose content is not among the others: a new name alone is no change."""
    left = Counter((file.split, file.class_name, file.sha256) for file in others)
    beyond: dict[tuple[str, str], File] = {}
    for file in these:
        content = (file.split, file.class_name, file.sha256)
        left[content] -= 1
        if left[content] < 0:
            beyond[file.split, file.name] = file
    return beyond


def _told(kind: str, keys: Sequence[tuple[str, str]]) -> str:
    names = ", ".join(f"{name} ({split})" for split, name in keys[:NAMED])
    return f"{len(keys):,} {kind}: {names}{', ...' * (len(keys) > NAMED)}"


def _kept(sha256: str) -> Path:
    return cache_folder("folders") / f"{sha256}.files"


def _contents(sha256: str) -> list[File] | None:
    try:
        return msgspec.msgpack.decode(_kept(sha256).read_bytes(), type=list[File])
    except (OSError, msgspec.DecodeError):
        return None
