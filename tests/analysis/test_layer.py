"""The arithmetic of receptive fields, and what is read from an operator's arguments."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.analysis.layer import Field, Layer, largest_field, pair, tensors_in, windowed

SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(field=SIDES, jump=SIDES, kernel=SIDES, stride=SIDES, dilation=SIDES)
def test_a_window_grows_field_and_jump_as_araujo_norris_and_sim_have_it(
    field: tuple[int, int],
    jump: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    before = Layer("", "", (3, 99, 99), (3, 9, 9), field=field, jump=jump)
    after = windowed(before, "convolution", kernel=kernel, stride=stride, dilation=dilation)
    effective = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    assert after.field == tuple(r + (k - 1) * j for r, k, j in zip(field, effective, jump, strict=True))
    assert after.jump == tuple(j * s for j, s in zip(jump, stride, strict=True))
    assert (after.kind, after.kernel, after.stride, after.padding) == ("convolution", kernel, stride, (0, 0))


@pytest.mark.parametrize("field", ["image", None])
def test_a_window_over_what_sees_the_image_or_is_not_followed_changes_no_field(field: Field) -> None:
    before = Layer("", "", (3, 9, 9), (3, 7, 7), field=field)
    assert windowed(before, "max pool", kernel=(3, 3), stride=(1, 1)).field == field


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([(3, 3)], (3, 3)),
        ([(1, 9), (5, 2)], (5, 9)),
        ([(3, 3), "image"], "image"),
        ([(3, 3), "image", None], None),
    ],
    ids=str,
)
def test_the_field_behind_branches_is_the_largest_for_each_axis(fields: list[Field], expected: Field) -> None:
    assert largest_field(fields) == expected


@pytest.mark.parametrize(
    ("argument", "expected"), [(3, (3, 3)), ([2], (2, 2)), ((1, 7), (1, 7)), (torch.Size([5, 3]), (5, 3))], ids=str
)
def test_an_argument_for_both_axes_is_a_pair(argument: object, expected: tuple[int, int]) -> None:
    assert pair(argument) == expected


def test_tensors_are_found_in_nested_arguments_in_order() -> None:
    a, b, c = (torch.empty(n) for n in (1, 2, 3))
    assert [len(t) for t in tensors_in(((a, [b, 4, None]), {"weight": c, "name": "x"}))] == [1, 2, 3]
