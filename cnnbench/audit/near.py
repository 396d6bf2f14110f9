"""Images that look alike, by hashes of 64 bits that differ in few."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

MOST_BITS = 3
"""Bits in which the hashes of images that look alike differ at most."""
LARGEST_BUCKET = 2000
"""Images that share 16 bits of their hash; more of them are simple shapes, and all pairs would take too long."""


def pairs(looks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Places of every two hashes that differ in at most `MOST_BITS` bits, each pair once, the earlier place first.

    Of four quarters of two such hashes one is the same, so that only hashes with an equal quarter are compared.
    """
    hashes = np.array(looks, dtype=np.uint64)
    seen: set[tuple[int, int]] = set()
    for quarter in range(MOST_BITS + 1):
        buckets: dict[int, list[int]] = defaultdict(list)
        for place, bits in enumerate(((hashes >> np.uint64(16 * quarter)) & np.uint64(0xFFFF)).tolist()):
            buckets[bits].append(place)
        for bucket in buckets.values():
            if 1 < len(bucket) <= LARGEST_BUCKET:
                members = np.array(bucket)
                for position, place in enumerate(bucket[:-1]):
                    others = members[position + 1 :]
                    differing = np.bitwise_count(hashes[others] ^ hashes[place])
                    found = {(place, other) for other in others[differing <= MOST_BITS].tolist()}
                    yield from sorted(found - seen)
                    seen |= found
