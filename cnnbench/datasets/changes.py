"""What changed between two contents of the user's data: the files of each content are remembered in the cache."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from cnnbench import records
from cnnbench.cache import cache_folder
from cnnbench.datasets.layout import Listing
from cnnbench.types import CnnbenchError, listed, one_line

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
    """The difference between two contents by their hashes, in words; empty where one of them is not remembered.

    Real changes come first: where one image is gone, others may be drawn into another split for it. A new name alone
    is no change.
    """
    old, new = _contents(before), _contents(now)
    if old is None or new is None:
        return ""
    old, new, _ = _matched(old, new, lambda file: (file.split, file.class_name, file.sha256))
    old, new, elsewhere = _matched(old, new, lambda file: (file.class_name, file.sha256))
    old, new, relabelled = _matched(old, new, lambda file: (file.sha256,))
    old, new, rewritten = _matched(old, new, lambda file: (file.name,))
    kinds = (
        ("gone", old),
        ("more", new),
        ("of another content", rewritten),
        ("of another class", relabelled),
        ("in another split", elsewhere),
    )
    return one_line("; ".join(_told(kind, files) for kind, files in kinds if files))


Files = list[File]


def _matched(old: Files, new: Files, key: Callable[[File], tuple[str, ...]]) -> tuple[Files, Files, Files]:
    """What of `old` and `new` has no partner of an equal key, and what of `new` has one."""
    waiting: dict[tuple[str, ...], Files] = defaultdict(list)
    for file in old:
        waiting[key(file)].append(file)
    unmatched, matched = [], []
    for file in new:
        partners = waiting[key(file)]
        if partners:
            partners.pop(0)
            matched.append(file)
        else:
            unmatched.append(file)
    return [file for files in waiting.values() for file in files], unmatched, matched


def _told(kind: str, files: Files) -> str:
    named = [f"{name} ({split})" for split, name in sorted((file.split, file.name) for file in files)]
    return f"{len(files):,} {kind}: {listed(named, NAMED)}"


def _kept(sha256: str) -> Path:
    return cache_folder("folders") / f"{sha256}.files"


def _contents(sha256: str) -> list[File] | None:
    try:
        return msgspec.msgpack.decode(_kept(sha256).read_bytes(), type=list[File])
    except (OSError, msgspec.DecodeError):
        return None
