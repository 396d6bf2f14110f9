"""What is read from an operator's arguments."""

import pytest
import torch

from cnnbench.analysis.layer import pair, tensors_in


@pytest.mark.parametrize(
    ("argument", "expected"), [(3, (3, 3)), ([2], (2, 2)), ((1, 7), (1, 7)), (torch.Size([5, 3]), (5, 3))], ids=str
)
def test_an_argument_for_both_axes_is_a_pair(argument: object, expected: tuple[int, int]) -> None:
    assert pair(argument) == expected


def test_tensors_are_found_in_nested_arguments_in_order() -> None:
    a, b, c = (torch.empty(n) for n in (1, 2, 3))
    assert [len(t) for t in tensors_in(((a, [b, 4, None]), {"weight": c, "name": "x"}))] == [1, 2, 3]
