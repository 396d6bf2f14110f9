"""Which pixels each position of a tensor reads, along rows and along columns: the arithmetic of receptive fields.

Positions of a map repeat: each one reads as the one `period` positions before it, moved by `shift` pixels, so that a
map without borders is described by `period` intervals. A 3x3 convolution of stride 2 has one; a map that was upsampled
by 2 has two. Padding and borders change nothing: pixels outside the image count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

LONGEST_PERIOD = 64
"""Maps whose positions repeat more slowly (resized from 30 to 224) are not followed."""


class NotFollowedError(Exception):
    """No formula here says which pixels are read."""


@dataclass(frozen=True)
class Axis:
    """The pixels that positions along one side of the image read, from `low` to `high`, both included.

    Arrays `(period, *inner)`: positions along the side, and finer ones that were split off into other dimensions of the
    tensor, as space to depth does. `low` is above `high` where a position reads nothing.
    """

    low: np.ndarray
    high: np.ndarray
    shift: int = 1

    @staticmethod
    def pixels() -> Axis:
        """That of an image: each position reads its own pixel."""
        return Axis(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))

    @property
    def period(self) -> int:
        return len(self.low)

    @property
    def field(self) -> int:
        """Pixels from the first to the last that a position reads; the largest over all positions."""
        return max(1, int((self.high - self.low).max()) + 1)

    @property
    def jump(self) -> Fraction:
        """Pixels from one position's field to the next one's, on average."""
        return Fraction(self.shift, self.period)

    def read(self, positions: Callable[[int], Sequence[int]], *, period: int, advance: int) -> Axis:
        """A new axis, whose position i reads all of `positions(i)` of this one.

        Args:
            positions: From a new position to old ones.
            period, advance: `period` new positions later, everything is `advance` old positions later.
        """
        return self._apply(positions, period, advance, joined=True)

    def unfold(self, positions: Callable[[int], Sequence[int]], *, period: int, advance: int) -> Axis:
        """As `read`, with `positions(i)` side by side as a new, last inner axis."""
        return self._apply(positions, period, advance, joined=False)

    def _apply(self, positions: Callable[[int], Sequence[int]], period: int, advance: int, *, joined: bool) -> Axis:
        repeats = self.period // math.gcd(self.period, advance)
        if period * repeats > LONGEST_PERIOD:
            raise NotFollowedError
        parts = [self._at(positions(place), joined=joined) for place in range(period * repeats)]
        low, high = (np.stack([part[end] for part in parts]) for end in (0, 1))
        return Axis(low, high, self.shift * advance * repeats // self.period)._shortest()

    def _at(self, positions: Sequence[int], *, joined: bool) -> tuple[np.ndarray, np.ndarray]:
        if not positions:
            nothing = np.zeros(self.low.shape[1:], dtype=np.int64)
            return nothing + 10**9, nothing - 10**9
        places = np.array(positions)
        moved = (places // self.period * self.shift).reshape(-1, *[1] * (self.low.ndim - 1))
        low, high = (ends[places % self.period] + moved for ends in (self.low, self.high))
        return (low.min(axis=0), high.max(axis=0)) if joined else (np.moveaxis(low, 0, -1), np.moveaxis(high, 0, -1))

    def window(self, kernel: int, *, stride: int = 1, padding: int = 0, dilation: int = 1) -> Axis:
        """Under a window that slides: r += (k_eff - 1) * j, then j *= s (Araujo, Norris, Sim: Distill 2019)."""
        return self.read(
            lambda i: [i * stride - padding + dilation * t for t in range(kernel)], period=1, advance=stride
        )

    def spread(self, kernel: int, *, stride: int, padding: int, dilation: int) -> Axis:
        """Under a transposed convolution: position i is read by i * stride - padding + dilation * t."""
        return self.read(
            lambda i: [
                (i + padding - dilation * t) // stride
                for t in range(kernel)
                if (i + padding - dilation * t) % stride == 0
            ],
            period=stride,
            advance=1,
        )

    def resized(self, before: int, after: int, *, neighbours: Callable[[int], Sequence[int]]) -> Axis:
        """Resized from `before` to `after` positions; `neighbours(i)` are those that position i is made of."""
        step = math.gcd(before, after)
        return self.read(neighbours, period=after // step, advance=before // step)

    def split(self, size: int) -> Axis:
        """Every `size` positions as one, with the places among them as a new, last inner axis."""
        return self.unfold(lambda i: range(i * size, i * size + size), period=1, advance=size)

    def repeated(self, times: int) -> Axis:
        """Every position several times."""
        return self.read(lambda i: [i // times], period=times, advance=1)

    def merge(self, place: int) -> Axis:
        """The inner axis `place` as finer positions."""
        if self.period * self.low.shape[place] > LONGEST_PERIOD:
            raise NotFollowedError
        low, high = (np.moveaxis(ends, place, 1) for ends in (self.low, self.high))
        shape = (-1, *low.shape[2:])
        return Axis(low.reshape(shape), high.reshape(shape), self.shift)._shortest()

    def joined(self, place: int) -> Axis:
        """All along the inner axis `place` read by each position."""
        return Axis(self.low.min(axis=place), self.high.max(axis=place), self.shift)._shortest()

    def taken(self, place: int, indices: slice) -> Axis:
        """Some of the inner axis `place`."""
        chosen = (slice(None),) * place + (indices,)
        return Axis(self.low[chosen], self.high[chosen], self.shift)

    def divided(self, place: int, size: int) -> Axis:
        """The inner axis `place` as two, the first of `size`."""
        shape = (*self.low.shape[:place], size, -1, *self.low.shape[place + 1 :])
        return Axis(self.low.reshape(shape), self.high.reshape(shape), self.shift)

    def ordered(self, places: Sequence[int]) -> Axis:
        """Inner axes in another order."""
        order = (0, *places)
        return Axis(self.low.transpose(order), self.high.transpose(order), self.shift)

    def union(self, other: Axis) -> Axis:
        """Each position reads what it reads in either."""
        if self.jump != other.jump:  # positions that drift apart read ever more
            raise NotFollowedError
        period = math.lcm(self.period, other.period)
        if period > LONGEST_PERIOD:
            raise NotFollowedError
        a, b = (axis._repeated(period // axis.period) for axis in (self, other))
        return Axis(np.minimum(a.low, b.low), np.maximum(a.high, b.high), a.shift)._shortest()

    def _repeated(self, times: int) -> Axis:
        moved = [place * self.shift for place in range(times)]
        low, high = (np.concatenate([ends + by for by in moved]) for ends in (self.low, self.high))
        return Axis(low, high, self.shift * times)

    def _shortest(self) -> Axis:
        """The same with the shortest period."""
        for period in range(1, self.period):
            if self.period % period or self.shift * period % self.period:
                continue
            short = Axis(self.low[:period], self.high[:period], self.shift * period // self.period)
            long = short._repeated(self.period // period)
            if (long.low == self.low).all() and (long.high == self.high).all():
                return short
        return self
