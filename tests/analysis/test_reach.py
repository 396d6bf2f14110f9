"""The arithmetic of receptive fields."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.analysis.positions import Positions
from cnnbench.analysis.reach import LONGEST_PERIOD, Axis, NotFollowedError

SIZES = st.integers(1, 9)
WINDOW = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))
"""Kernel, stride and dilation."""


@given(windows=st.lists(WINDOW, min_size=1, max_size=5))
def test_windows_grow_field_and_jump_as_araujo_norris_and_sim_have_it(windows: list[tuple[int, int, int]]) -> None:
    axis, field, jump = Axis.pixels(), 1, 1
    for kernel, stride, dilation in windows:
        axis = axis.window(kernel, stride=stride, padding=kernel // 2, dilation=dilation)
        field, jump = field + dilation * (kernel - 1) * jump, jump * stride
        assert (axis.field, axis.jump, axis.period) == (field, jump, 1)


@given(size=st.integers(2, 6), kernel=st.integers(1, 7))
def test_positions_that_were_split_off_merge_to_what_they_were(size: int, kernel: int) -> None:
    axis = Axis.pixels().window(kernel).repeated(3)
    again = axis.split(size).merge(1)
    assert (again.low == axis.low).all()
    assert (again.high == axis.high).all()
    assert again.shift == axis.shift


def test_every_position_of_an_upsampled_map_reads_as_one_of_its_period() -> None:
    axis = Axis.pixels().repeated(2).window(2)
    assert (axis.period, axis.shift, axis.jump) == (2, 1, 0.5)
    assert sorted(axis.high - axis.low) == [0, 1]
    assert axis.field == 2


def test_positions_that_drift_apart_are_not_joined() -> None:
    with pytest.raises(NotFollowedError):
        Axis.pixels().union(Axis.pixels().window(1, stride=2))


def test_a_period_has_a_limit() -> None:
    with pytest.raises(NotFollowedError):
        Axis.pixels().repeated(LONGEST_PERIOD + 1)


def test_a_position_that_reads_nothing_is_no_field() -> None:
    """A kernel of 1 spread with stride 2 leaves holes."""
    axis = Axis.pixels().spread(1, stride=2, padding=0, dilation=1)
    assert (axis.period, axis.field) == (2, 1)


@given(rows=SIZES, columns=SIZES, by=st.integers(1, 3))
def test_a_view_there_and_back_changes_nothing(rows: int, columns: int, by: int) -> None:
    image = Positions.of_image((2, 3, rows * by, columns))
    split = image.viewed((2, 3, rows, by, columns))
    assert split.viewed((2, 3, rows * by, columns)).dims == image.dims
    tokens = image.viewed((2, 3, rows * by * columns))
    assert tokens.viewed((2, 3, rows * by, columns)).dims == image.dims


def test_what_joins_all_positions_reads_the_whole_image() -> None:
    image = Positions.of_image((1, 3, 8, 8))
    assert image.joined(2).field == ("image", 1)
    assert image.joined(2).joined(3).field == "image"
    gated = image.union(image.joined(2, 1).joined(3, 1).broadcast((1, 3, 8, 8)))
    assert (gated.field, gated.jump) == ("image", (1, 1)), "a gate changes what is read and not where"


def test_intervals_are_integers() -> None:
    assert Axis.pixels().low.dtype == np.int64
