"""Where names stand beside their marks: on no other name, mark or bar, as far as there is room."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import altair as alt

from cnnbench.page.charts.base import Point, chart_of, shortened

LETTER, LINE = 7.0, 14.0  # pixels of a letter of 11 pixels, and of a line
MARK = 6.0  # half the side of a mark
NEAR = 6.0  # pixels within which marks share a name
BORDER = 62.0  # what labels of the axes take of the width and of the height of a chart

Align = Literal["left", "right", "center"]


class Box(NamedTuple):
    """Pixels from the top left."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Square pixels that both cover."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(across, 0.0) * max(down, 0.0)


@dataclass(frozen=True)
class Spot:
    """Where a text stands beside its mark, in pixels."""

    align: Align
    dx: float
    dy: float

    def box(self, x: float, y: float, *, text: str) -> Box:
        """What a text covers there."""
        wide = LETTER * len(text)
        left = x + self.dx - {"left": 0.0, "center": wide / 2, "right": wide}[self.align]
        return Box(left, y + self.dy - LINE / 2, left + wide, y + self.dy + LINE / 2)


SPOTS = (
    Spot("left", 9, 0),
    Spot("right", -9, 0),
    Spot("left", 6, -12),
    Spot("right", -6, -12),
    Spot("left", 6, 12),
    Spot("right", -6, 12),
    *(Spot(align, 0, dy) for dy in (-15, 15, -29, 29, -43, 43) for align in ("center", "left", "right")),
)
"""In the order of preference."""


LINE_SPOTS = tuple(Spot(align, dx, dy) for dx in (-6, 6) for dy in (-9, 10) for align in ("right", "left"))
"""Places of the text of a line, at one of its ends."""


@dataclass(frozen=True)
class Scale:
    """A logarithmic axis: its ends, and the pixels of them."""

    ends: tuple[float, float]
    pixels: tuple[float, float]

    def at(self, value: float) -> float:
        low, high = map(math.log, self.ends)
        share = (math.log(value) - low) / (high - low)
        return self.pixels[0] + share * (self.pixels[1] - self.pixels[0])


@dataclass(frozen=True)
class LimitLine:
    """A limit that a chart shows as a line from edge to edge: across at an error, or down at a cost."""

    text: str
    error: float | None = None
    cost: float | None = None

    def ends(self, x: alt.X, y: alt.Y) -> list[Point]:
        """The two ends of the line."""
        if self.error is not None:
            return [{"cost": cost, "error": self.error} for cost in _domain(x)]
        return [{"cost": self.cost, "error": error} for error in _domain(y)]


def names(
    points: Sequence[Point],
    *,
    x: alt.X,
    y: alt.Y,
    size: tuple[int, int],
    limits: Sequence[LimitLine] = (),
    most: int = 14,
) -> list[alt.Chart]:
    """The names of marks and of limits as layers of a chart with two logarithmic axes.

    Args:
        points: `cost`, `error`, `name`; with `low_error` and `high_error` there is a bar. The first have precedence.
        x: Axis of the chart, with its domain.
        y: Axis of the chart, with its domain.
        size: Size of the narrowest chart in pixels, labels of its axes included: what fits there fits on a wider one.
        limits: Lines of the chart.
        most: Names; more would cover each other.
    """
    plan = _Plan.of(x, y, size=size)
    plan.taken.extend(plan.bar(point) for point in points)
    plan.taken.extend(plan.mark(point) for point in points)
    texts: list[tuple[Point, Spot]] = []
    for limit in limits:
        ends = [{**end, "name": limit.text} for end in limit.ends(x, y)]
        texts.append(plan.put([(end, spot) for end in ends for spot in LINE_SPOTS]))
    plan.taken.extend(plan.between(*limit.ends(x, y)) for limit in limits)
    for point, name in list(_shared(points, plan))[:most]:
        mark = {"cost": point["cost"], "error": point["error"], "name": name}
        texts.append(plan.put([(mark, spot) for spot in SPOTS]))
    return [
        chart_of([mark for mark, at in texts if at == spot])
        .mark_text(align=spot.align, baseline="middle", dx=spot.dx, dy=spot.dy, fontSize=11, fontWeight="bold")
        .encode(x=x, y=y, text="name:N")
        for spot in dict.fromkeys(spot for _, spot in texts)
    ]


@dataclass(frozen=True)
class _Plan:
    """What is where in a picture, in pixels."""

    across: Scale
    down: Scale
    room: Box
    taken: list[Box]

    @classmethod
    def of(cls, x: alt.X, y: alt.Y, *, size: tuple[int, int]) -> _Plan:
        left, right, bottom = BORDER - 10.0, size[0] - 10.0, size[1] - BORDER
        across, down = Scale(_domain(x), (left, right)), Scale(_domain(y), (bottom, 20.0))
        return cls(across, down, Box(left, 8.0, right + 8, bottom - 4), [])

    def at(self, point: Point) -> tuple[float, float]:
        low, high = sorted(self.down.ends)
        return self.across.at(point["cost"]), self.down.at(min(max(point["error"], low), high))

    def between(self, first: Point, last: Point) -> Box:
        (left, low), (right, high) = self.at(first), self.at(last)
        return Box(min(left, right) - 1, min(low, high) - 1, max(left, right) + 1, max(low, high) + 1)

    def mark(self, point: Point) -> Box:
        left, top = self.at(point)
        return Box(left - MARK, top - MARK, left + MARK, top + MARK)

    def bar(self, point: Point) -> Box:
        """The interval of a mark; nothing where it has none."""
        ends = [{**point, "error": point.get(key, point["error"])} for key in ("low_error", "high_error")]
        return self.between(*ends)

    def put(self, places: Sequence[tuple[Point, Spot]]) -> tuple[Point, Spot]:
        """The place where the text of a mark covers least; it is taken then."""
        boxes = [spot.box(*self.at(mark), text=mark["name"]) for mark, spot in places]
        best = min(range(len(places)), key=lambda place: _covered(boxes[place], self.taken, self.room))
        self.taken.append(boxes[best])
        return places[best]


def _covered(box: Box, taken: Sequence[Box], room: Box) -> float:
    """What a text would cover, and by how much it would leave the picture."""
    outside = (box.right - box.left) * (box.bottom - box.top) - box.overlap(room)
    return round(sum(box.overlap(other) for other in taken) + 4 * outside, 3)


def _domain(channel: alt.X | alt.Y) -> tuple[float, float]:
    scale: dict[str, Any] = channel.to_dict()["scale"]  # type: ignore[call-overload]
    low, high = scale["domain"]
    return low, high


def _shared(points: Sequence[Point], plan: _Plan) -> Iterator[tuple[Point, str]]:
    """Each mark with its name; of marks in one place the first, with the names of all."""
    left = [(point, plan.at(point)) for point in points]
    while left:
        point, here = left[0]
        near = [each for each in left if math.dist(each[1], here) <= NEAR]
        left = [each for each in left if each not in near]
        yield point, _joined([shortened(each["name"]) for each, _ in near])


def _joined(found: Sequence[str]) -> str:
    """`lenet5 fp32, fp16` of `lenet5 fp32` and `lenet5 fp16`."""
    stems = list(dict.fromkeys(name.rpartition(" ")[0] or name for name in found))
    ends = {stem: [name.rpartition(" ")[2] for name in found if name.rpartition(" ")[0] == stem] for stem in stems}
    return "; ".join(f"{stem} {', '.join(ends[stem])}".strip() for stem in stems)
