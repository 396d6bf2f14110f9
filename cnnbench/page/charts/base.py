"""What all charts share: colours, axes, tooltips, and how a chart becomes a picture.

Accuracies are drawn on a logarithmic axis of the error, labelled with the accuracy: from 99 to 99.5 % is as far as from
90 to 95 %, since both halve the mistakes. The page colours text, axes and grid, so that one drawing serves light and
dark.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
from altair.utils.schemapi import debug_mode

from cnnbench import pictures
from cnnbench.page.charts.still import svg_of
from cnnbench.page.section import LegendEntry, Picture

Point = Mapping[str, Any]
"""One mark: its position, the name that colours it, and the strings of its tooltip."""

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
class Palette:
    """One colour and shape per architecture on the whole page, or per family where there are many architectures."""

    groups: Mapping[str, str]
    """The name that is coloured, by architecture."""

    @property
    def names(self) -> list[str]:
        known = list(dict.fromkeys(self.groups.values()))
        families = list(FAMILIES.values())
        return sorted(known, key=families.index) if set(known) <= set(families) else known

    @property
    def legend(self) -> list[LegendEntry]:
        """An entry per name."""
        return [LegendEntry(*entry) for entry in zip(self.names, COLOURS, SHAPES, strict=False)]

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
    stem = entry.module.rpartition(".")[2] if entry and entry.ours else ""
    return FAMILIES.get(stem, FAMILIES[""])


def picture(
    chart: alt.LayerChart | alt.FacetChart, *, title: str, caption: str, size: tuple[int, int] = SIZE
) -> Picture:
    """Finish a chart: its size in pixels with all labels, its look, its still picture."""
    chart = chart.properties(width=size[0], height=size[1], autosize=alt.AutoSizeParams(type="fit", contains="padding"))
    spec = {**chart.to_dict(validate=False), "config": CONFIG}
    text = json.dumps(spec, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Picture(f"{title}. {caption}", title, caption, svg=svg_of(spec), spec=text)


# --- axes ---


def ladder(errors: Sequence[float]) -> list[float]:
    """Errors to label: 1-2-5 steps from below the smallest to above the largest, closer together where they are few."""
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
    scale, axis = accuracy_axis(errors)
    return alt.Y(f"{field}:Q", scale=scale, axis=axis)


def accuracy_axis(errors: Sequence[float]) -> tuple[alt.Scale, alt.Axis]:
    """Scale and axis for errors, logarithmic and upside down, labelled as accuracy in percent."""
    labels = ladder(errors)
    scale = alt.Scale(type="log", domain=[labels[-1], labels[0]], clamp=True, nice=False)
    return scale, alt.Axis(values=labels, labelExpr="format(100 * (1 - datum.value), '.7~g')", title=None)


def extent(points: Sequence[Point]) -> list[float]:
    """The errors that an axis spans: all marks, and intervals as far as four times the outermost marks.

    An interval that reaches down to no error at all would squeeze everything else; its bar runs to the edge.
    """
    errors = [point["error"] for point in points]
    ends = [point[key] for point in points for key in ("low_error", "high_error") if key in point]
    return [*errors, *(min(max(end, min(errors) / 4), max(errors) * 4) for end in ends)]


def error(accuracy: float) -> float:
    """The error as the axis shows it: no mistake at all is drawn as one in 100,000 images."""
    return max(1 - accuracy, 1e-5)


def log_x(field: str, values: Sequence[float], *, title: str) -> alt.X:
    """A logarithmic axis with round labels and room beside the outermost values."""
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


def chart_of(points: Sequence[Point]) -> alt.Chart:
    """A chart of these marks."""
    with debug_mode(False):  # of thousands of points, altair's own validation would take seconds
        return alt.Chart(alt.InlineData(values=list(points)))


def tooltip(**fields: str) -> list[alt.Tooltip]:
    """Fields of the points by heading."""
    return [alt.Tooltip(f"{field}:N", title=title.replace("_", " ")) for title, field in fields.items()]


def shortened(name: str, *, length: int = 26) -> str:
    """A name short enough to stand beside a mark."""
    return name if len(name) <= length else f"{name[: length - 3]}..."
