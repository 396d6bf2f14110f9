"""Which images are chosen out of many."""

from cnnbench.datasets.splits import evenly_spaced


def test_indices_are_evenly_spaced_from_the_first_to_the_last() -> None:
    assert evenly_spaced(10_000, 5).tolist() == [0, 2499, 4999, 7499, 9999]
    assert evenly_spaced(3, 16).tolist() == [0, 1, 2]
