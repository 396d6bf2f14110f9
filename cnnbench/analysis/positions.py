"""Where in a tensor the rows and columns of the image lie, and what each of its positions reads.

A dimension of a tensor is a product of factors, the slowest first: plain ones (images, channels), and positions along
the rows or the columns. Tokens are one dimension of rows times columns; space to depth splits rows and columns and
leaves the finer factors with the channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from cnnbench.analysis.layer import Field, field_of
from cnnbench.analysis.reach import Axis, NotFollowedError

PLAIN = -1


@dataclass(frozen=True)
class Factor:
    """A factor of a dimension."""

    size: int
    axis: int = PLAIN
    """0 for rows, 1 for columns."""
    place: int = 0
    """0 for positions along the side, else the inner axis of `Axis`."""


Dimension = tuple[Factor, ...]


@dataclass(frozen=True)
class Positions:
    """What the positions of a tensor read."""

    dims: tuple[Dimension, ...]
    axes: tuple[Axis | None, Axis | None]
    """Rows and columns; None where the tensor has no positions along them any more."""
    wholes: tuple[bool, bool] = (False, False)
    """Whether every position reads all rows, and all columns."""

    @staticmethod
    def everywhere(shape: Sequence[int]) -> Positions:
        """Those of a tensor of which every element reads the whole image."""
        return Positions(tuple((Factor(size),) for size in shape), (None, None), (True, True))

    @staticmethod
    def of_image(shape: Sequence[int]) -> Positions:
        """Those of a batch of images `(N, C, H, W)`."""
        images, channels, height, width = shape
        dims = ((Factor(images),), (Factor(channels),), (Factor(height, 0),), (Factor(width, 1),))
        return Positions(dims, (Axis.pixels(), Axis.pixels()))

    @property
    def field(self) -> Field:
        """The receptive field."""
        rows, columns = (1 if axis is None else axis.field for axis in self.axes)
        return field_of("image" if self.wholes[0] else rows, "image" if self.wholes[1] else columns)

    @property
    def jump(self) -> tuple[float, float]:
        """Pixels from one position's field to the next one's; 0 where there are no positions."""
        rows, columns = (
            0.0 if axis is None else int(axis.jump) if axis.jump.denominator == 1 else float(axis.jump)
            for axis in self.axes
        )
        return (rows, columns)

    def dimension(self, axis: int) -> int | None:
        """The dimension that is the positions along the side `axis` and nothing else; None where there is none."""
        whole_side = [d for d, factors in enumerate(self.dims) if [(f.axis, f.place) for f in factors] == [(axis, 0)]]
        return whole_side[0] if whole_side else None

    def sides(self, dim: int) -> list[Factor]:
        """Factors of a dimension that are positions along a whole side."""
        return [factor for factor in self.dims[dim] if factor.axis != PLAIN and factor.place == 0]

    def is_plain(self, dim: int) -> bool:
        return all(factor.axis == PLAIN for factor in self.dims[dim])

    def with_axis(self, axis: int, value: Axis | None) -> Positions:
        rows, columns = self.axes
        axes = (value, columns) if axis == 0 else (rows, value)
        return replace(self, axes=axes)

    def with_dim(self, dim: int, factors: Iterable[Factor]) -> Positions:
        dims = [*self.dims]
        dims[dim] = tuple(factors)
        return replace(self, dims=tuple(dims))

    def along(self, dim: int, change: Callable[[Axis], Axis], *, size: int) -> Positions:
        """With `change` done to the positions of a dimension that has nothing but them, or is plain."""
        if self.is_plain(dim):
            return self.with_dim(dim, [Factor(size)])
        (factor, *more) = self.dims[dim]
        axis = self.axes[factor.axis]
        if more or factor.place or axis is None:
            raise NotFollowedError
        return self.with_axis(factor.axis, change(axis)).with_dim(dim, [Factor(size, factor.axis)])

    def joined(self, dim: int, size: int | None = None) -> Positions:
        """Every position reads what all along dimension `dim` read; the dimension is a plain one of `size`."""
        result, size = self, math.prod(f.size for f in self.dims[dim]) if size is None else size
        places = sorted(self.dims[dim], key=lambda factor: -factor.place)  # inner axes from the last one on
        for factor in places:
            if factor.axis == PLAIN:
                continue
            axis = result.axes[factor.axis]
            if factor.place == 0 or axis is None:
                result = result._without(factor.axis)
            else:
                result = result._inner_joined(factor.axis, axis, factor.place)
        return result.with_dim(dim, [Factor(size)]).ordered()

    def _without(self, axis: int) -> Positions:
        """All of the side `axis` read everywhere: its factors say nothing any more."""
        plain = tuple(tuple(Factor(f.size) if f.axis == axis else f for f in factors) for factors in self.dims)
        wholes = (True, self.wholes[1]) if axis == 0 else (self.wholes[0], True)
        return replace(self, dims=plain, wholes=wholes).with_axis(axis, None)

    def _inner_joined(self, side: int, axis: Axis, gone: int) -> Positions:
        """Without the inner axis `gone` of `axis`: each position reads all along it."""
        places = {place: place - (place > gone) for place in range(axis.low.ndim) if place != gone}
        return self.with_axis(side, axis.joined(gone))._renumbered(side, places)

    def _renumbered(self, axis: int, places: dict[int, int]) -> Positions:
        """Factors of `axis` at other places, from old to new; those without become plain."""

        def renumber(factor: Factor) -> Factor:
            if factor.axis != axis:
                return factor
            return replace(factor, place=places[factor.place]) if factor.place in places else Factor(factor.size)

        return replace(self, dims=tuple(tuple(map(renumber, factors)) for factors in self.dims))

    def ordered(self) -> Positions:
        """The same with finer positions taken into coarser ones beside them, and inner axes in the order of `dims`."""
        result = self
        for dim in range(len(self.dims)):
            result = result._merged(dim)
        for axis in (0, 1):
            value = result.axes[axis]
            present = {f.place for factors in result.dims for f in factors if f.axis == axis}
            for place in reversed(range(1, 1 if value is None else value.low.ndim)):
                if place not in present:
                    result = result._inner_joined(axis, result.axes[axis] or value, place)  # type: ignore[arg-type]
            places = [f.place for factors in result.dims for f in factors if f.axis == axis and f.place]
            if (value := result.axes[axis]) is not None and places != sorted(places):
                new = {0: 0} | {old: index for index, old in enumerate(places, 1)}
                result = result.with_axis(axis, value.ordered(places))._renumbered(axis, new)
        return result

    def _merged(self, dim: int) -> Positions:
        """Positions along a side followed by finer ones, or by plain ones that repeat each, as one factor."""
        result = self.with_dim(dim, [f for f in self.dims[dim] if f.size > 1 or f.axis != PLAIN] or [Factor(1)])
        while len(result.dims[dim]) > 1:
            first, second, *_ = result.dims[dim]
            axis = None if first.axis == PLAIN or first.place else result.axes[first.axis]
            if axis is None or second.axis not in (PLAIN, first.axis):
                break
            try:
                if second.axis == PLAIN:
                    result = result.with_axis(first.axis, axis.repeated(second.size))
                else:
                    gone = second.place
                    places = {place: place - (place > gone) for place in range(axis.low.ndim)}
                    result = result.with_axis(first.axis, axis.merge(gone))._renumbered(first.axis, places)
            except NotFollowedError:  # two factors say the same
                break
            more = result.dims[dim][2:]
            result = result.with_dim(dim, [Factor(first.size * second.size, first.axis), *more])
        return result

    def viewed(self, shape: Sequence[int]) -> Positions:
        """As a tensor of another shape with the same elements in the same order."""
        factors = tuple(f for dimension in self.dims for f in dimension if f.size > 1 or f.axis != PLAIN)
        result, ends, place = replace(self, dims=(factors,)), [0], 0
        for size in shape:
            missing = size
            if size == 1 and place < len(factors_of := result.dims[0]) and factors_of[place].size == 1:
                place += 1
            while place < len(result.dims[0]) and missing > 1:
                if missing % result.dims[0][place].size:
                    result = result._split(place, missing)
                missing //= result.dims[0][place].size
                place += 1
            ends.append(place)
        ends[-1] = len(result.dims[0])
        dims = [result.dims[0][start:end] or (Factor(1),) for start, end in pairwise(ends)]
        return replace(result, dims=tuple(dims)).ordered()

    def _split(self, place: int, size: int) -> Positions:
        """The factor `place` of the only dimension as one of `size` and the rest."""
        factor = self.dims[0][place]
        if factor.size % size:
            raise NotFollowedError
        rest, axis = factor.size // size, None if factor.axis == PLAIN else self.axes[factor.axis]
        if axis is None:
            result, parts = self, (Factor(size), Factor(rest))
        elif factor.place == 0:
            inner = axis.low.ndim
            result = self.with_axis(factor.axis, axis.split(rest))
            parts = (Factor(size, factor.axis), Factor(rest, factor.axis, inner))
        else:
            at = factor.place
            result = self.with_axis(factor.axis, axis.divided(at, size))
            result = result._renumbered(factor.axis, {other: other + (other > at) for other in range(axis.low.ndim)})
            parts = (Factor(size, factor.axis, at), Factor(rest, factor.axis, at + 1))
        dims = result.dims[0]
        return replace(result, dims=((*dims[:place], *parts, *dims[place + 1 :]),))

    def union(self, other: Positions) -> Positions:
        """Each position reads what it reads in either tensor; both have the same shape."""
        a, b = self, other
        for dim in range(len(a.dims)):
            if a._says_nothing(dim, beside=b):
                a = a.with_dim(dim, b.dims[dim])
            elif b._says_nothing(dim, beside=a):
                b = b.with_dim(dim, a.dims[dim])
            elif a.dims[dim] != b.dims[dim] and not a.sides(dim) and not b.sides(dim):
                a, b = a.joined(dim), b.joined(dim)
        if a.dims != b.dims:
            raise NotFollowedError
        for axis, (first, second) in enumerate(zip(a.axes, b.axes, strict=True)):
            if first is None or second is None:
                a = a.with_axis(axis, first or second)
            else:
                a = a.with_axis(axis, first.union(second))
        return replace(a, wholes=(self.wholes[0] or other.wholes[0], self.wholes[1] or other.wholes[1]))

    def _says_nothing(self, dim: int, *, beside: Positions) -> bool:
        """Whether all along a dimension the same is read, all of the sides that `beside` has there."""
        sides = {factor.axis for factor in beside.dims[dim] if factor.axis != PLAIN}
        return bool(sides) and self.is_plain(dim) and all(self.axes[a] is None and self.wholes[a] for a in sides)

    def broadcast(self, shape: Sequence[int]) -> Positions:
        """Repeated along dimensions of size 1, or new ones in front."""
        dims: list[Dimension] = [(Factor(1),)] * (len(shape) - len(self.dims)) + [*self.dims]
        sizes = [math.prod(f.size for f in factors) for factors in dims]
        grown = [
            (Factor(new),) if old != new else factors for factors, old, new in zip(dims, sizes, shape, strict=True)
        ]
        return replace(self, dims=tuple(grown))
