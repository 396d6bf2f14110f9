"""The charts of the report page: Vega-Lite by altair, each with a still picture for paper and where no script runs.

Accuracies stand on a logarithmic axis of the error, labelled with the accuracy: from 99 to 99.5 % is as far as from 90
to 95 %, since both halve the mistakes. Text, axes and grid are coloured by the page, so that one drawing serves light
and dark.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt

from cnnbench import pictures

Point = dict[str, Any]
"""One mark: its place, the name that colours it, and the strings that hovering shows."""

GREY = "#8a93a3"
COLOURS = (*pictures.COLOURS[:6], GREY)  # black would vanish on a dark page
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
MISTAKE = pictures.COLOURS[1]
FAMILIES = {
    "fc": "fully connected",
    "lenet": "LeNet",
    "alexnet": "AlexNet",
    "vgg": "VGG",
    "resnet": "residual",
    "inception": "Inception",
    "": "others",
}
"""The modules of `architectures` that are families, and how they are called."""
SIZE = (400, 290)  # pixels; about what a third of a page is wide
FONT = "system-ui, sans-serif"
CONFIG: dict[str, Any] = {
    "font": FONT,
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "grid": True,
        "gridOpacity": 1,
        "tickSize": 4,
        "labelPadding": 4,
        "domain": False,
    },
    "title": {"anchor": "start", "fontSize": 11, "fontWeight": "normal", "offset": 8, "frame": "group"},
}


@dataclass(frozen=True)
class Picture:
    """A chart as the page shows it."""

    spec: str
    """Vega-Lite as JSON that may stand inside a script element."""
    svg: str
    title: str
    caption: str
    """What it shows and how to read it; also what those hear who do not see it."""


@dataclass(frozen=True)
class Palette:
    """One colour and shape a name on the whole page: of each architecture, or of its family where they are many."""

    groups: Mapping[str, str]
    """Architecture -> the name that is coloured."""

    @property
    def names(self) -> list[str]:
        known = list(dict.fromkeys(self.groups.values()))
        families = list(FAMILIES.values())
        return sorted(known, key=families.index) if set(known) <= set(families) else known

    @property
    def legend(self) -> list[tuple[str, str, str]]:
        """(name, colour, shape)."""
        return list(zip(self.names, COLOURS, SHAPES, strict=False))

    @property
    def colour(self) -> alt.Color:
        return alt.Color("group:N", scale=alt.Scale(domain=self.names, range=list(COLOURS)), legend=None)

    @property
    def shape(self) -> alt.Shape:
        return alt.Shape("group:N", scale=alt.Scale(domain=self.names, range=list(SHAPES)), legend=None)


def palette(archs: Iterable[str]) -> Palette:
    """The palette for these architectures, in this order."""
    distinct = list(dict.fromkeys(archs))
    return Palette({arch: arch if len(distinct) <= len(COLOURS) else family(arch) for arch in distinct})


def family(arch: str) -> str:
    """The family that registers an architecture."""
    from cnnbench.architectures import architecture

    entry = architecture.entries.get(arch)
    stem = entry.module.rpartition(".")[2] if entry and entry.module.startswith("cnnbench.") else ""
    return FAMILIES.get(stem, FAMILIES[""])


def picture(chart: alt.LayerChart | alt.FacetChart, title: str, caption: str, size: tuple[int, int] = SIZE) -> Picture:
    """Finish a chart: its size with all labels, its look, its still picture."""
    import vl_convert

    chart = chart.properties(width=size[0], height=size[1], autosize=alt.AutoSizeParams(type="fit", contains="padding"))
    spec = {**chart.to_dict(), "config": CONFIG}
    text = json.dumps(spec, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Picture(text, vl_convert.vegalite_to_svg(spec), title, caption)


# --- axes ---


def ladder(errors: Sequence[float]) -> list[float]:
    """Errors to label, 1-2-5 steps from the one below the smallest to the one above the largest; closer where few."""
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        known = [step / 10**power for power in range(7, -1, -1) for step in steps]
        known = [step for step in known if step <= 1]
        below = max((step for step in known if step < min(errors)), default=known[0])
        above = min((step for step in known if step >= max(errors)), default=1.0)
        labelled = [step for step in known if below <= step <= above]
        if len(labelled) >= 4:
            break
    return labelled


def accuracy_y(errors: Sequence[float], field: str = "error") -> alt.Y:
    """The error, upside down and logarithmic, labelled as accuracy in percent."""
    scale, axis = _accuracy(errors)
    return alt.Y(f"{field}:Q", scale=scale, axis=axis)


def _accuracy(errors: Sequence[float]) -> tuple[alt.Scale, alt.Axis]:
    labels = ladder(errors)
    scale = alt.Scale(type="log", domain=[labels[-1], labels[0]], clamp=True, nice=False)
    return scale, alt.Axis(values=labels, labelExpr="format(100 * (1 - datum.value), '.7~g')", title=None)


def _extent(points: Sequence[Point]) -> list[float]:
    """What an axis of errors spans: all marks, and of intervals what lies within four times their distance.

    An interval that ends at no mistake at all would push everything else into a corner; its bar runs to the edge.
    """
    errors = [point["error"] for point in points]
    ends = [point[key] for point in points for key in ("low_error", "high_error") if key in point]
    return [*errors, *(min(max(end, min(errors) / 4), max(errors) * 4) for end in ends)]


def error(accuracy: float) -> float:
    """What the accuracy axis stands on; no mistake at all is drawn where one of 100,000 images would be."""
    return max(1 - accuracy, 1e-5)


def _log_x(field: str, title: str, values: Sequence[float]) -> alt.X:
    low, high = min(values), max(values)
    return alt.X(
        f"{field}:Q",
        scale=alt.Scale(type="log", domain=[low / 1.6, high * 1.6], nice=False),
        # SI prefixes for what is counted; 10m for 0.01 would be read as millions
        axis=alt.Axis(title=title, format="~s" if low >= 1 else "~g", values=decades(low / 1.6, high * 1.6)),
    )


def decades(low: float, high: float) -> list[float]:
    """Round values from `low` to `high` for a logarithmic axis: at most seven, in as wide steps as give three."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), range(1, 10), [tenths / 10 for tenths in range(10, 100)]):
        values = [step * 10.0**power for power in powers for step in steps]
        values = [float(f"{value:.2g}") for value in values if low <= value <= high]
        if len(values) >= 3:
            break
    return values[:: -(-len(values) // 7)]


def _data(points: Sequence[Point]) -> alt.InlineData:
    return alt.InlineData(values=list(points))


def _chart(points: Sequence[Point]) -> alt.Chart:
    return alt.Chart(_data(points))


def _hover(**fields: str) -> list[alt.Tooltip]:
    """What hovering shows, by heading; the strings are in the points."""
    return [alt.Tooltip(f"{field}:N", title=title.replace("_", " ")) for title, field in fields.items()]


# --- charts ---


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both cost and error, the cheapest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point["cost"], point["error"])):
        if not best or point["error"] < best[-1]["error"]:
            best.append(point)
    return best


def pareto(points: Sequence[Point], colours: Palette, axis: str, title: str, caption: str) -> Picture:
    """Accuracy against a cost.

    Args:
        points: `cost`, `error`, `name`, `group`, `accuracy` and `figure` (what hovering shows); `low_error` and
            `high_error` where there is an interval.
        colours: Of the page.
        axis: Title of the cost's axis.
        title: Of the picture.
        caption: Of the picture.
    """
    errors = _extent(points)
    x, y = _log_x("cost", axis, [point["cost"] for point in points]), accuracy_y(errors)
    best = front(points)
    line = _chart(best).mark_line(interpolate="step-after", strokeWidth=1.5, strokeDash=[4, 3], color=GREY)
    bars = _chart([point for point in points if "low_error" in point]).mark_rule(strokeWidth=1.5)
    dots = _chart(points).mark_point(filled=True, size=90, opacity=1)
    layers = [
        line.encode(x=x, y=y),
        bars.encode(x=x, y=accuracy_y(errors, "low_error"), y2="high_error", color=colours.colour),
        dots.encode(
            x=x,
            y=y,
            color=colours.colour,
            shape=colours.shape,
            tooltip=_hover(run="name", accuracy="accuracy", cost="figure"),
        ),
        *_names(best, x, y),
    ]
    return picture(alt.layer(*layers, title="test accuracy, %"), title, caption)


def _names(best: Sequence[Point], x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Names on the front, up and to the left, where by definition no point is; the leftmost ones to the right."""
    if not best:
        return []
    middle = (best[0]["cost"] * best[-1]["cost"]) ** 0.5
    shown = [{**point, "name": shortened(point["name"])} for point in best[-8:]]  # more would cover each other
    sides: dict[Literal["left", "right"], list[Point]] = {
        "left": [point for point in shown if point["cost"] < middle or len(shown) == 1]
    }
    sides["right"] = [point for point in shown if point not in sides["left"]]
    return [
        _chart(points)
        .mark_text(align=align, dx=-7 if align == "right" else 5, dy=-10, fontSize=11, fontWeight=600)
        .encode(x=x, y=y, text="name:N")
        for align, points in sides.items()
        if points
    ]


def shortened(name: str, length: int = 26) -> str:
    """A name that fits beside a mark."""
    return name if len(name) <= length else f"{name[: length - 3]}..."


def seeds(points: Sequence[Point], means: Sequence[Point], colours: Palette, title: str, caption: str) -> Picture:
    """Every seed a dot in the row of its network; a tick is the mean, a bar its interval.

    Args:
        points: `name`, `group`, `error`, `seed`, `accuracy`.
        means: `name`, `group`, `error`, `accuracy`; `low_error` and `high_error` where there is an interval.
        colours: Of the page.
        title: Of the picture.
        caption: Of the picture.
    """
    order = [point["name"] for point in means]
    scale, axis = _accuracy(_extent([*points, *means]))

    def x(field: str = "error") -> alt.X:
        return alt.X(f"{field}:Q", scale=scale, axis=axis)

    y = alt.Y("name:N", sort=order, axis=alt.Axis(title=None, labelLimit=170, grid=False, ticks=False))
    ranged = [point for point in means if "low_error" in point]
    layers = [
        _chart(ranged)
        .mark_rule(strokeWidth=7, opacity=0.28)
        .encode(x=x("low_error"), x2="high_error", y=y, color=colours.colour),
        _chart(points)
        .mark_circle(size=46, opacity=0.75)
        .encode(x=x(), y=y, color=colours.colour, tooltip=_hover(run="name", seed="seed", accuracy="accuracy")),
        _chart(means)
        .mark_tick(thickness=2.5, size=17)
        .encode(x=x(), y=y, color=colours.colour, tooltip=_hover(run="name", mean="accuracy")),
    ]
    size = (2 * SIZE[0], 60 + 30 * len(order))
    return picture(alt.layer(*layers, title="test accuracy, %"), title, caption, size)


def curves(points: Sequence[Point], colours: Palette, axis: str, log: bool, title: str, caption: str) -> Picture:
    """Validation accuracy as training goes on, one line a run.

    Args:
        points: `run` (one a line), `name`, `group`, `spent`, `error`, `accuracy`, `when`.
        colours: Of the page.
        axis: Title of the axis of `spent`.
        log: Whether that axis is logarithmic.
        title: Of the picture.
        caption: Of the picture.
    """
    spent = [point["spent"] for point in points]
    plain = alt.X("spent:Q", scale=alt.Scale(domain=[0, max(spent)]), axis=alt.Axis(title=axis, tickMinStep=1))
    x, y = _log_x("spent", axis, spent) if log else plain, accuracy_y([point["error"] for point in points])
    base = _chart(points).encode(x=x, y=y, color=colours.colour)
    lines = base.mark_line(strokeWidth=1.6, opacity=0.7).encode(detail="run:N")
    dots = base.mark_circle(size=42, opacity=0).encode(
        tooltip=_hover(run="name", validation_accuracy="accuracy", after="when")
    )
    return picture(alt.layer(lines, dots, title="validation accuracy, %"), title, caption)


def efficiency(points: Sequence[Point], colours: Palette, title: str, caption: str) -> Picture:
    """Test accuracy against the number of training images, one line an architecture.

    Args:
        points: `name`, `group`, `images`, `error`, `accuracy`.
        colours: Of the page.
        title: Of the picture.
        caption: Of the picture.
    """
    x = _log_x("images", "training images", [point["images"] for point in points])
    base = _chart(points).encode(
        x=x,
        y=accuracy_y([point["error"] for point in points]),
        color=colours.colour,
        tooltip=_hover(run="name", accuracy="accuracy", training_images="figure"),
    )
    layers = [
        base.mark_line(strokeWidth=2).encode(detail="arch:N"),
        base.mark_point(filled=True, size=80, opacity=1).encode(shape=colours.shape),
    ]
    return picture(alt.layer(*layers, title="test accuracy, %"), title, caption)


def shift_map(points: Sequence[Point], domain: tuple[float, float], title: str, caption: str) -> Picture:
    """Accuracy at every shift: `dx` to the right, `dy` down, `value`, `accuracy`; one scale for all maps of a page."""

    def axis(title: str) -> alt.Axis:
        return alt.Axis(title=title, values=[-4, 0, 4], grid=False, labelAngle=0, ticks=False)

    chart = (
        _chart(points)
        .mark_rect()
        .encode(
            x=alt.X("dx:O", axis=axis("pixels to the right")),
            y=alt.Y("dy:O", axis=axis("pixels down")),
            color=alt.Color("value:Q", scale=alt.Scale(domain=list(domain), scheme="viridis"), legend=None),
            tooltip=_hover(run="name", right="dx", down="dy", accuracy="accuracy"),
        )
    )
    return picture(alt.layer(chart), title, caption, (230, 230))


def confusion(points: Sequence[Point], classes: Sequence[str], title: str, caption: str) -> Picture:
    """Mistakes by class: `true`, `predicted`, `count`, `share` of the class's images; right answers are muted.

    Args:
        points: The cells that are not empty.
        classes: Names, in order.
        title: Of the picture.
        caption: Of the picture.
    """
    names = list(classes)

    def axis(title: str, angle: int) -> alt.Axis:
        return alt.Axis(title=title, grid=False, ticks=False, labelAngle=angle, labelLimit=70)

    crowded = len(names) > 12 or max(map(len, names)) > 2
    base = _chart(points).encode(
        x=alt.X("predicted:N", sort=names, scale=alt.Scale(domain=names), axis=axis("predicted", -45 * crowded)),
        y=alt.Y("true:N", sort=names, scale=alt.Scale(domain=names), axis=axis("true", 0)),
        tooltip=_hover(run="name", true="true", predicted="predicted", images="count", of_the_class="told"),
    )
    wrong = alt.datum.true != alt.datum.predicted
    most = max([point["share"] for point in points if point["true"] != point["predicted"]], default=1.0)
    opacity = alt.Opacity("share:Q", scale=alt.Scale(type="sqrt", domain=[0, most], range=[0.12, 1]), legend=None)
    layers = [
        base.transform_filter(alt.datum.true == alt.datum.predicted).mark_rect(color=GREY, opacity=0.22),
        base.transform_filter(wrong).mark_rect(color=MISTAKE).encode(opacity=opacity),
    ]
    if len(names) <= 12:
        layers.append(base.transform_filter(wrong).mark_text(fontSize=10).encode(text="count:N"))
    return picture(alt.layer(*layers), title, caption, (350, 350))


def per_class(
    points: Sequence[Point], classes: Sequence[str], order: Sequence[str], title: str, caption: str
) -> Picture:
    """Errors of each class (across) in each network (down): `name`, `class`, `share`, `told`, `accuracy`."""
    x = alt.X(
        "class:N", sort=list(classes), axis=alt.Axis(title="true class", labelAngle=0, grid=False, orient="bottom")
    )
    y = alt.Y("name:N", sort=list(order), axis=alt.Axis(title=None, labelLimit=170, grid=False, ticks=False))
    base = _chart(points).encode(x=x, y=y, tooltip=_hover(run="name", **{"class": "class"}, accuracy="accuracy"))
    most = max(point["share"] for point in points) or 1.0
    opacity = alt.Opacity("share:Q", scale=alt.Scale(type="sqrt", domain=[0, most], range=[0.05, 0.85]), legend=None)
    layers = [base.mark_rect(color=MISTAKE).encode(opacity=opacity)]
    if len(classes) <= 12:
        layers.append(base.mark_text(fontSize=11).encode(text="told:N"))
    return picture(alt.layer(*layers), title, caption, (2 * SIZE[0], 70 + 30 * len(order)))


def reliability(points: Sequence[Point], colours: Palette, title: str, caption: str) -> Picture:
    """Accuracy against confidence: `run`, `name`, `group`, `confidence`, `accuracy`, `told`, `images`; ideal dashed."""
    scale = alt.Scale(domain=[0, 1])
    axis = alt.Axis(format="%", tickCount=5)
    diagonal = _chart([{"x": 0, "y": 0}, {"x": 1, "y": 1}]).mark_line(strokeDash=[4, 3], color=GREY, strokeWidth=1.5)
    base = _chart(points).encode(
        x=alt.X("confidence:Q", scale=scale, axis=alt.Axis(format="%", tickCount=5, title="confidence")),
        y=alt.Y("accuracy:Q", scale=scale, axis=alt.Axis(format="%", tickCount=5, title=None)),
        color=colours.colour,
    )
    size = alt.Size("images:Q", scale=alt.Scale(type="sqrt", range=[12, 160]), legend=None)
    layers = [
        diagonal.encode(x=alt.X("x:Q", scale=scale, axis=axis), y=alt.Y("y:Q", scale=scale, axis=axis)),
        base.mark_line(strokeWidth=1.6, opacity=0.8).encode(detail="run:N"),
        base.mark_circle(opacity=0.9).encode(size=size, tooltip=_hover(run="name", bin="told", images="shown")),
    ]
    return picture(alt.layer(*layers, title="accuracy of the bin"), title, caption)


def latency(
    points: Sequence[Point], marks: Sequence[Point], engines: Sequence[str], title: str, caption: str
) -> Picture:
    """Share of calls that took at most so long: a curve an engine, its percentiles marked.

    Args:
        points: `engine`, `ms`, `share`, in order.
        marks: `engine`, `ms`, `share`, `told`: the percentiles that have enough samples.
        engines: All engines of the page, in order, so that a colour means the same everywhere.
        title: Of the picture.
        caption: Of the picture.
    """
    times = [point["ms"] for point in (*points, *marks)]
    colour = alt.Color("engine:N", scale=alt.Scale(domain=list(engines), range=list(COLOURS)), legend=None)
    x = alt.X(
        "ms:Q",
        scale=alt.Scale(type="log", domain=[min(times) / 1.1, max(times) * 1.1], nice=False),
        axis=alt.Axis(title="ms a call", format="~g", values=decades(min(times) / 1.1, max(times) * 1.1)),
    )
    y = alt.Y(
        "share:Q",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format="%", values=[0, 0.5, 0.9, 0.99], title=None, labelOverlap=True),
    )
    lines = _chart(points).mark_line(strokeWidth=2).encode(x=x, y=y, color=colour, detail="engine:N")
    dots = (
        _chart(marks)
        .mark_circle(size=80, opacity=1)
        .encode(x=x, y=y, color=colour, tooltip=_hover(engine="engine", percentile="told"))
    )
    return picture(alt.layer(lines, dots, title="share of calls that took at most this long"), title, caption)
