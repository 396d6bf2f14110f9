"""The still picture of a chart: the part of Vega-Lite that the charts use, drawn by matplotlib as SVG.

Vega itself would need V8, which reserves more address space than `ulimit -v` often leaves.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cnnbench import pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, GRID, LINE = "#010101", "#020202", "#030303", "#040404"
"""Drawn instead of the page's own colours, which differ in light and dark."""
PAGE_COLOURS = {INK: "var(--ink)", SOFT: "var(--soft)", GRID: "var(--grid)", LINE: "var(--line)"}
MARKERS = {
    "circle": "o",
    "square": "s",
    "triangle-up": "^",
    "diamond": "D",
    "cross": "P",
    "triangle-down": "v",
    "triangle-right": ">",
}
FONT = 11
LETTER = 6.2  # mean width of a letter at FONT, in pixels
TESTS = {"===": operator.eq, "==": operator.eq, "!==": operator.ne, "!=": operator.ne}
Datum = Mapping[str, Any]


def svg_of(spec: Mapping[str, Any]) -> str:
    """The picture of a layered chart, of its own size, for a page: its text and grid have the page's colours.

    Args:
        spec: As altair writes it, with `width` and `height` in pixels, labels included.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(spec["width"] / 72, spec["height"] / 72), dpi=72)  # a point is a pixel
    axes = figure.add_subplot()
    layers = [Layer.of(layer, spec) for layer in spec["layer"]]
    x, y = (Position.of(channel, layers) for channel in "xy")
    _frame(figure, axes, x, y, title=spec.get("title", ""))
    for order, layer in enumerate(layers, 3):
        DRAW[layer.mark["type"]](axes, layer, x, y, order)
    text = pictures.svg(figure)
    for drawn, shown in PAGE_COLOURS.items():
        text = text.replace(drawn, shown)
    return text


# --- what a chart says ---


@dataclass(frozen=True)
class Layer:
    """Marks of one kind."""

    mark: Mapping[str, Any]
    encoding: Mapping[str, Mapping[str, Any]]
    data: Sequence[Datum]

    @classmethod
    def of(cls, layer: Mapping[str, Any], spec: Mapping[str, Any]) -> Layer:
        """A layer with the points that its filters leave."""
        mark = layer["mark"] if isinstance(layer["mark"], Mapping) else {"type": layer["mark"]}
        source = layer.get("data") or spec.get("data") or {}
        points = source["values"] if "values" in source else spec["datasets"][source["name"]]
        for transform in layer.get("transform", ()):
            points = [point for point in points if _passes(transform["filter"], point)]
        return cls(mark, layer.get("encoding", {}), points)

    def values(self, channel: str) -> list[Any]:
        """What a channel shows of each point."""
        field = self.encoding[channel]["field"]
        return [point[field] for point in self.data]

    @cached_property
    def colours(self) -> list[str]:
        """Colours of each point."""
        colour = self.encoding.get("color")
        if not colour:
            return [self.mark.get("color", INK)] * len(self.data)
        scale, values = colour["scale"], self.values("color")
        if "scheme" in scale:
            from matplotlib import colormaps
            from matplotlib.colors import Normalize, to_hex

            shade, scheme = Normalize(scale["domain"][0], scale["domain"][1], clip=True), colormaps[scale["scheme"]]
            return [to_hex(scheme(shade(value))) for value in values]
        by_name = dict(zip(scale["domain"], scale["range"], strict=False))
        return [by_name.get(value, INK) for value in values]

    @cached_property
    def opacities(self) -> list[float]:
        """Opacities of each point, in [0, 1]."""
        return self._scaled("opacity", 1.0)

    @cached_property
    def areas(self) -> list[float]:
        """Areas of each point, in square pixels."""
        return self._scaled("size", 30.0)

    def _scaled(self, channel: str, usual: float) -> list[float]:
        """A scale of square roots, as areas are seen, or what the mark says of all points."""
        if channel not in self.encoding:
            return [float(self.mark.get(channel, usual))] * len(self.data)
        scale, values = self.encoding[channel]["scale"], self.values(channel)
        low, high = scale.get("domain", (0, max(values, default=1) or 1))
        least, most = scale["range"]
        shares = [(max(0.0, value - low) / ((high - low) or 1)) ** 0.5 for value in values]
        return [least + (most - least) * min(1.0, share) for share in shares]


def _passes(test: str, point: Datum) -> bool:
    """A filter such as (datum.true === datum.predicted)."""
    left, sign, right = re.fullmatch(r"\(?datum\.(\w+) ([!=]==?) datum\.(\w+)\)?", test).groups()  # type: ignore[union-attr]
    return bool(TESTS[sign](point[left], point[right]))


@dataclass(frozen=True)
class Position:
    """The axis of x or of y, shared by all layers."""

    encoding: Mapping[str, Any]
    names: Sequence[str]
    """In their order, of an axis of names; else empty."""
    span: tuple[float, float]

    @classmethod
    def of(cls, channel: str, layers: Sequence[Layer]) -> Position:
        """From the first layer, whose axis is that of all; names are those of all layers."""
        encoding = next(layer.encoding[channel] for layer in layers if channel in layer.encoding)
        known = [layer.values(channel) for layer in layers if channel in layer.encoding]
        values = list(dict.fromkeys(value for each in known for value in each))
        if encoding["type"] in ("nominal", "ordinal"):
            given = encoding.get("scale", {}).get("domain") or encoding.get("sort")
            names = given if isinstance(given, list) else sorted(values)
            return cls(encoding, names, (-0.5, max(len(names), 1) - 0.5))
        low, high = encoding.get("scale", {}).get("domain") or (min(values, default=0), max(values, default=1))
        return cls(encoding, [], (low, high) if low != high else (low - 0.5, high + 0.5))

    @property
    def axis(self) -> Mapping[str, Any]:
        return self.encoding.get("axis") or {}

    @property
    def title(self) -> str:
        return self.axis.get("title") or ""

    @property
    def is_log(self) -> bool:
        return bool(self.encoding.get("scale", {}).get("type") == "log")

    def at(self, values: Sequence[Any]) -> list[float]:
        """Where values stand; a scale is not left."""
        if self.names:
            places = {name: float(place) for place, name in enumerate(self.names)}
            return [places[value] for value in values]
        low, high = min(self.span), max(self.span)
        return [min(max(float(value), low), high) for value in values]

    @cached_property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and labels."""
        if self.names:
            shown = self.axis.get("values")
            letters = max(2, int(self.axis.get("labelLimit", 180) / LETTER))
            named = [(place, name) for place, name in enumerate(self.names) if shown is None or name in shown]
            return [(float(place), _cut(str(name), letters)) for place, name in named]
        from matplotlib.ticker import MaxNLocator

        low, high = min(self.span), max(self.span)
        whole = MaxNLocator(self.axis.get("tickCount", 6), integer=self.axis.get("tickMinStep") == 1)
        values = self.axis.get("values") or whole.tick_values(low, high)
        return [(float(value), self._label(float(value))) for value in values if low <= value <= high]

    def _label(self, value: float) -> str:
        if "labelExpr" in self.axis:  # an error that is labelled as the accuracy: see `base.accuracy_axis`
            return f"{100 * (1 - value):.7g}"
        if self.axis.get("format") == "%":
            return f"{100 * value:.3g}%"
        if self.axis.get("format") == "~s":
            power = min(max(int(math.log10(value) // 3), 0), 4) if value > 0 else 0
            return f"{value / 1000**power:g}{['', 'k', 'M', 'G', 'T'][power]}"
        return f"{value:,g}"


def _cut(name: str, letters: int) -> str:
    return name if len(name) <= letters else f"{name[: letters - 1]}\u2026"


# --- the frame ---


def _frame(figure: Figure, axes: Axes, x: Position, y: Position, *, title: str) -> None:
    """Axes with their grid and labels; the rest of the figure is theirs."""
    axes.spines[:].set_visible(False)
    axes.patch.set_visible(False)
    figure.patch.set_visible(False)
    angle = -float(x.axis.get("labelAngle", 0))
    for axis, position, turned in ((axes.xaxis, x, angle), (axes.yaxis, y, 0.0)):
        limits = axes.set_xlim if position is x else axes.set_ylim
        if position.is_log:
            (axes.set_xscale if position is x else axes.set_yscale)("log")
            axis.minorticks_off()
        low, high = position.span
        limits((high, low) if position is y and position.names else (low, high))
        axis.set_ticks([place for place, _ in position.ticks], [label for _, label in position.ticks])
        length = 4 * position.axis.get("ticks", True)
        axis.set_tick_params(length=length, color=LINE, labelcolor=SOFT, labelsize=FONT, width=1, labelrotation=turned)
        if position.axis.get("grid", True):
            axis.grid(True, color=GRID, linewidth=1)
    for label in axes.get_xticklabels() if angle else ():
        label.set(ha="right", va="top", rotation_mode="anchor")
    axes.set_axisbelow(True)
    left = 12 + LETTER * max((len(label) for _, label in y.ticks), default=0) + 16 * bool(y.title)
    lowest = max((len(label) for _, label in x.ticks), default=0) * LETTER * abs(math.sin(math.radians(angle)))
    bottom, top = 22 + lowest + 20 * bool(x.title), 26 * bool(title) or 8
    width, height = figure.get_size_inches() * 72
    axes.set_position((left / width, bottom / height, (width - left - 14) / width, (height - bottom - top) / height))
    plain: dict[str, Any] = {"color": SOFT, "fontsize": FONT}
    axes.set_xlabel(x.title, **plain)
    axes.set_ylabel(y.title, **plain)
    figure.text(0, 1 - 12 / height, title, **plain)


# --- marks ---


def _lines(axes: Axes, layer: Layer, x: Position, y: Position, order: int) -> None:
    """A line for each run, or one through all points, from left to right."""
    group = layer.encoding.get("detail", {}).get("field")
    lines: dict[Any, list[int]] = {}
    for place, point in enumerate(layer.data):
        lines.setdefault(point[group] if group else None, []).append(place)
    across, up = x.at(layer.values("x")), y.at(layer.values("y"))
    dashes = layer.mark.get("strokeDash")
    for places in lines.values():
        places.sort(key=lambda place: across[place])
        axes.plot(
            [across[place] for place in places],
            [up[place] for place in places],
            color=layer.colours[places[0]],
            linewidth=layer.mark.get("strokeWidth", 2),
            alpha=layer.mark.get("opacity", 1),
            linestyle=(0, [length / layer.mark.get("strokeWidth", 2) for length in dashes]) if dashes else "-",
            drawstyle="steps-post" if layer.mark.get("interpolate") == "step-after" else "default",
            zorder=order,
        )


def _rules(axes: Axes, layer: Layer, x: Position, y: Position, order: int) -> None:
    """Bars from x to x2, or from y to y2."""
    across, up = x.at(layer.values("x")), y.at(layer.values("y"))
    look = {
        "colors": layer.colours,
        "linewidth": layer.mark.get("strokeWidth", 1),
        "alpha": layer.mark.get("opacity", 1),
    }
    if "x2" in layer.encoding:
        axes.hlines(up, across, x.at(layer.values("x2")), zorder=order, **look)
    else:
        axes.vlines(across, up, y.at(layer.values("y2")), zorder=order, **look)


def _points(axes: Axes, layer: Layer, x: Position, y: Position, order: int) -> None:
    if not layer.mark.get("opacity", 1):
        return  # they only carry tooltips
    shapes = ["circle"] * len(layer.data)
    if "shape" in layer.encoding:
        scale = layer.encoding["shape"]["scale"]
        by_name = dict(zip(scale["domain"], scale["range"], strict=False))
        shapes = [by_name.get(value, "circle") for value in layer.values("shape")]
    across, up = x.at(layer.values("x")), y.at(layer.values("y"))
    for shape in dict.fromkeys(shapes):
        places = [place for place, each in enumerate(shapes) if each == shape]
        axes.scatter(
            [across[place] for place in places],
            [up[place] for place in places],
            s=[layer.areas[place] * 4 / math.pi for place in places],  # matplotlib's is the square around the disc
            c=[layer.colours[place] for place in places],
            marker=MARKERS[shape],
            alpha=layer.mark.get("opacity", 0.7),
            linewidths=0,
            zorder=order,
            clip_on=False,
        )


def _ticks(axes: Axes, layer: Layer, x: Position, y: Position, order: int) -> None:
    axes.scatter(
        x.at(layer.values("x")),
        y.at(layer.values("y")),
        s=[area**2 for area in layer.areas],  # the length of a tick
        c=layer.colours,
        marker="|",
        linewidths=layer.mark.get("thickness", 1),
        zorder=order,
    )


def _rectangles(axes: Axes, layer: Layer, x: Position, y: Position, order: int) -> None:
    """Cells of a table of names."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    cells = [
        ((left - 0.5, top - 0.5), (left + 0.5, top - 0.5), (left + 0.5, top + 0.5), (left - 0.5, top + 0.5))
        for left, top in zip(x.at(layer.values("x")), y.at(layer.values("y")), strict=True)
    ]
    colours = [to_rgba(colour, alpha) for colour, alpha in zip(layer.colours, layer.opacities, strict=True)]
    edge = layer.mark.get("stroke", "none")
    axes.add_collection(PolyCollection(cells, facecolors=colours, edgecolors=edge, linewidths=1, zorder=order))


def _texts(axes: Axes, layer: Layer, x: Position, y: Position, order: int) -> None:
    for text, left, up in zip(layer.values("text"), *_places(layer, x, y), strict=True):
        axes.annotate(
            str(text),
            (left, up),
            xytext=(layer.mark.get("dx", 0), -layer.mark.get("dy", 0)),
            textcoords="offset points",
            ha=layer.mark.get("align", "center"),
            va="center",
            color=layer.mark.get("color", INK),
            fontsize=layer.mark.get("fontSize", FONT),
            fontweight=layer.mark.get("fontWeight", "normal"),
            zorder=order,
            annotation_clip=False,
        )


def _places(layer: Layer, x: Position, y: Position) -> Iterator[list[float]]:
    yield x.at(layer.values("x"))
    yield y.at(layer.values("y"))


DRAW = {
    "line": _lines,
    "rule": _rules,
    "point": _points,
    "circle": _points,
    "tick": _ticks,
    "rect": _rectangles,
    "text": _texts,
}
