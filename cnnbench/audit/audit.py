"""The audit of the user's images: counts, sizes, broken files, copies, leaks between splits, doubtful labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from cnnbench.audit import near
from cnnbench.audit.advice import Advice, advise
from cnnbench.audit.facts import Facts, Known, facts_of
from cnnbench.datasets.arrays import ARRAYS
from cnnbench.datasets.folder import parse_shares
from cnnbench.datasets.layout import Listing, read_listing
from cnnbench.datasets.splits import evenly_spaced
from cnnbench.datasets.tree import Skipped

MOST_NEAR = 1000
"""Pairs of images that look alike that are kept."""


@dataclass(frozen=True)
class Place:
    """One image of the data."""

    split: str
    name: str
    """Name of its file, below the folder."""
    class_name: str
    opened: Callable[[], BinaryIO] = field(repr=False, compare=False)
    """Opens the file."""


@dataclass(frozen=True)
class Copies:
    """Images that are the same pixel for pixel, at their own size, whatever the format of their files."""

    places: tuple[Place, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """That hold one of them."""
        return tuple(dict.fromkeys(place.split for place in self.places))

    @property
    def classes(self) -> tuple[str, ...]:
        """Their labels."""
        return tuple(dict.fromkeys(place.class_name for place in self.places))


@dataclass(frozen=True)
class Audit:
    """What was found. Counts are of images."""

    folder: str
    layout: str
    """In words."""
    drawn: tuple[str, ...]
    """Splits that are drawn from the training images."""
    undrawn: str
    """Why splits that are missing could not be drawn, so that `fit` refuses the data; empty where they could."""
    sha256: str
    """SHA-256 of the listing: (split, class, hash of the encoded file)."""
    counts: Mapping[str, Mapping[str, int]]
    """By split and class; broken ones are not counted."""
    sizes: Mapping[str, int]
    """By WIDTHxHEIGHT, the most frequent first."""
    modes: Mapping[str, int]
    """By format and mode, such as `PNG RGB`, the most frequent first."""
    broken: tuple[Skipped, ...]
    """That `fit` refuses."""
    skipped: tuple[Skipped, ...]
    """That are not read at all."""
    copies: tuple[Copies, ...]
    """All that there are several of, largest groups first."""
    near: tuple[tuple[Place, Place], ...] | None
    """Pairs in two splits that look alike; None where the package imagehash is not installed."""
    flat: tuple[Place, ...]
    """Images whose pixels are all alike."""
    majority: tuple[str, float]
    """The largest class of the training images, and its share: what always answering it would score."""
    advice: Advice
    images: tuple[Place, ...] = field(repr=False)
    """All that can be read."""

    def samples(self, count: int) -> dict[str, tuple[Place, ...]]:
        """Up to `count` training images of each class, evenly from the first to the last by content."""
        by_class: dict[str, list[Place]] = {name: [] for name in self.counts["train"]}
        for place in self.images:
            if place.split == "train":
                by_class[place.class_name].append(place)
        return {
            name: tuple(places[index] for index in evenly_spaced(len(places), min(count, len(places))))
            for name, places in by_class.items()
        }

    @property
    def leaks(self) -> tuple[Copies, ...]:
        """Copies in several splits: what was trained on is scored."""
        return tuple(copies for copies in self.copies if len(copies.splits) > 1)

    @property
    def contradictions(self) -> tuple[Copies, ...]:
        """Copies with several labels."""
        return tuple(copies for copies in self.copies if len(copies.classes) > 1)


def audit_folder(folder: str | Path, *, split: str | None = None) -> Audit:
    """Look at the user's images before anything is trained on them. Pixels are decoded once per content.

    Args:
        folder: A folder, a table or an archive, as for `--data.folder`.
        split: Percent of train, val and test where they are drawn, such as 70,15,15.

    Raises:
        CnnbenchError: There is nothing, or no layout that is known (exit 3); the shares are none (exit 2).
    """
    listing = read_listing(Path(folder).expanduser(), shares=parse_shares(split), undrawn=True)
    facts = facts_of([entry for entries in listing.splits.values() for entry in entries], root=listing.folder)
    read = [
        (Place(split, entry.name, listing.class_names[entry.label], entry.opened), facts[entry.sha256])
        for split, entries in listing.splits.items()
        for entry in entries
        if not facts[entry.sha256].error
    ]
    broken = [*listing.unreadable, *_broken(listing, facts)]
    counts = {split: dict.fromkeys(listing.class_names, 0) for split in listing.splits}
    for place, _ in read:
        counts[place.split][place.class_name] += 1
    trained = Counter(counts["train"])
    (largest, most), total = trained.most_common(1)[0], max(1, trained.total())
    return Audit(
        folder=str(listing.folder),
        layout=listing.layout,
        drawn=listing.drawn,
        undrawn=listing.undrawn,
        sha256=listing.sha256,
        counts=counts,
        sizes=_ranked(f"{found.width}x{found.height}" for _, found in read),
        modes=_ranked(f"{'array' if listing.layout == ARRAYS else found.format} {found.mode}" for _, found in read),
        broken=tuple(broken),
        skipped=listing.skipped,
        copies=_copies(read),
        near=_near(read),
        flat=tuple(place for place, found in read if found.flat),
        majority=(largest, most / total),
        advice=advise(listing, [found for _, found in read], broken=len(broken), counts=counts, split=split),
        images=tuple(place for place, _ in read),
    )


def _broken(listing: Listing, facts: Known) -> list[Skipped]:
    return [
        Skipped(entry.name, facts[entry.sha256].error)
        for entries in listing.splits.values()
        for entry in entries
        if facts[entry.sha256].error
    ]


def _ranked(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _copies(read: Sequence[tuple[Place, Facts]]) -> tuple[Copies, ...]:
    groups: dict[str, list[Place]] = defaultdict(list)
    for place, found in read:
        groups[found.pixels_sha256].append(place)
    several = [Copies(tuple(places)) for places in groups.values() if len(places) > 1]
    return tuple(sorted(several, key=lambda copies: -len(copies.places)))


def _near(read: Sequence[tuple[Place, Facts]]) -> tuple[tuple[Place, Place], ...] | None:
    """Pairs in two splits that look alike and are not the same; flat images all look alike."""
    if read and all(found.look is None for _, found in read):
        return None
    first: dict[tuple[str, str], tuple[Place, Facts]] = {}
    for place, found in read:  # one of each content and split
        if not found.flat:
            first.setdefault((place.split, found.pixels_sha256), (place, found))
    candidates = [(place, found, found.look) for place, found in first.values() if found.look is not None]
    alike = (
        (candidates[one][:2], candidates[other][:2]) for one, other in near.pairs([look for _, _, look in candidates])
    )
    across = (
        (one, other)
        for (one, first_facts), (other, other_facts) in alike
        if one.split != other.split and first_facts.pixels_sha256 != other_facts.pixels_sha256
    )
    return tuple(islice(across, MOST_NEAR))
