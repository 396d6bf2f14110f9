"""What `fit` would do with the user's images, and what is suggested: size, channels, class weights."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from cnnbench.audit.facts import Facts
from cnnbench.datasets.layout import Listing
from cnnbench.types import SMALL_SIDE, listed

SIDES = (16, 24, 28, 32, 48, 64)
"""Sizes that are suggested; above, networks take the stems of their authors, and costs grow with the square."""
UNBALANCED = 2.0
"""Times its equal share from which on the largest class makes balanced weights a suggestion."""
STRETCHED = 1.1
"""Longer side over the shorter one, above which it is told that images are stretched."""
MOST_NAMED = 10

Counts = Mapping[str, Mapping[str, int]]
"""Images by split and class."""


@dataclass(frozen=True)
class Advice:
    """What `fit` would do, and with which flags."""

    size: int
    """Side in pixels: that of all images where they are small squares, else the largest of `SIDES` that enlarges at
    most half of them."""
    channels: int
    """1 where red, green and blue are equal in every image."""
    command: str
    """Empty where `fit` refuses the images whatever the flags."""
    remarks: tuple[str, ...]


def advise(
    listing: Listing, found: Sequence[Facts], *, broken: int, counts: Counts, split: str | None = None
) -> Advice:
    """From the facts of all files that can be read.

    Args:
        listing: Listing of the images.
        found: Facts of each image that can be read.
        broken: Images that cannot.
        counts: Numbers of those images.
        split: Percent of train, val and test that were asked for.
    """
    size, channels = _size(found), 1 if found and all(facts.gray for facts in found) else 3
    trained = counts["train"]
    uneven = max(trained.values()) * len(trained) >= UNBALANCED * sum(trained.values()) > 0
    flags = [
        "cnnbench fit --model.arch lenet5_relu",
        f"--data.folder {shlex.quote(str(listing.folder))} --data.size {size} --data.channels {channels}",
        *[f"--data.split {shlex.quote(split or '')}"] * bool(split),
        *["--model.class_weights balanced"] * uneven,
        *["--data.skip_broken true"] * bool(broken),
    ]
    remarks = _remarks(listing, found, size=size, broken=broken, counts=counts)
    refused = [*_refusals(listing, broken=broken, counts=counts)]
    return Advice(size, channels, "" if refused else " ".join(flags), (*refused, *([] if refused else remarks)))


def _size(found: Sequence[Facts]) -> int:
    sizes = {(facts.width, facts.height) for facts in found}
    if len(sizes) == 1:
        ((width, height),) = sizes
        if width == height <= SMALL_SIDE:
            return width
    shorter = median([min(facts.width, facts.height) for facts in found] or [SMALL_SIDE])
    return max((side for side in SIDES if side <= shorter), default=SIDES[0])


def _remarks(listing: Listing, found: Sequence[Facts], *, size: int, broken: int, counts: Counts) -> Iterator[str]:
    train, val, test = (f"{sum(counts[split].values()):,}" for split in ("train", "val", "test"))
    drawn = f"; {' and '.join(listing.drawn)} drawn, the same for every seed" if listing.drawn else ""
    yield f"fit trains on {train} images, chooses on {val} and tests on {test}{drawn}"
    if stretched := sum(max(f.width, f.height) > STRETCHED * min(f.width, f.height) for f in found):
        yield f"{stretched:,} images are not square: they are stretched to {size}x{size}"
    if enlarged := sum(min(facts.width, facts.height) < size for facts in found):
        yield f"{enlarged:,} images have less than {size} pixels a side: they are enlarged"
    if broken:
        yield f"fit refuses {broken:,} broken file{'s' * (broken > 1)}, or leaves them out with --data.skip_broken true"
    for split in ("val", "test"):
        if absent := [name for name, count in counts[split].items() if not count]:
            yield f"no {split} image of {listed(absent, MOST_NAMED)}"


def _refusals(listing: Listing, *, broken: int, counts: Counts) -> Iterator[str]:
    """Why `fit` refuses the data, even without the broken files."""
    if listing.undrawn:
        yield f"fit refuses these images: {listing.undrawn}"
    if not broken:
        return
    if not any(sum(of_class.values()) for of_class in counts.values()):
        yield f"fit has nothing to train on: all {broken:,} files are broken"
    elif absent := [name for name, count in counts["train"].items() if not count]:
        yield f"fit has no training image of {listed(absent, MOST_NAMED)}: all that there are are broken"
