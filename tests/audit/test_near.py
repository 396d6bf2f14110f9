"""Every pair of hashes that differ in few bits is found, as by comparing all with all."""

from hypothesis import given
from hypothesis import strategies as st

from cnnbench.audit.near import MOST_BITS, pairs

BASE = 0x0F1E2D3C4B5A6978


@given(st.lists(st.lists(st.integers(0, 63), max_size=5), max_size=40))
def test_pairs_are_those_of_all_comparisons(flipped: list[list[int]]) -> None:
    looks = [BASE ^ sum({1 << bit for bit in bits}) for bits in flipped]
    expected = {
        (one, other)
        for one in range(len(looks))
        for other in range(one + 1, len(looks))
        if (looks[one] ^ looks[other]).bit_count() <= MOST_BITS
    }
    found = list(pairs(looks))
    assert len(found) == len(expected)
    assert set(found) == expected
