"""Charts of what networks do with images: shifts, confusions, mistakes by class, calibration."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from cnnbench.page.charts.base import GREY, MISTAKE, SIZE, Palette, Point, chart_of, picture, tooltip
from cnnbench.page.section import Picture


def shift_map(points: Sequence[Point], *, domain: tuple[float, float], title: str, caption: str) -> Picture:
    """Accuracy at every shift: `dx` to the right, `dy` down, `value` (its colour), `accuracy` and `shown` (its text).

    `domain` is the scale of all maps of a page.
    """

    def axis(title: str) -> alt.Axis:
        return alt.Axis(title=title, values=[-4, 0, 4], grid=False, labelAngle=0, ticks=False)

    base = chart_of(points).encode(
        x=alt.X("dx:O", axis=axis("pixels to the right")), y=alt.Y("dy:O", axis=axis("pixels down"))
    )
    cells = base.mark_rect().encode(
        color=alt.Color("value:Q", scale=alt.Scale(domain=list(domain), scheme="viridis"), legend=None),
        tooltip=tooltip(run="name", right="dx", down="dy", accuracy="accuracy"),
    )
    middle = (domain[0] + domain[1]) / 2
    texts = [
        chart_of([point for point in points if point["shown"] and (point["value"] > middle) == bright])
        .mark_text(fontSize=10, color=colour)
        .encode(x="dx:O", y="dy:O", text="shown:N")
        for bright, colour in ((True, "#000000"), (False, "#ffffff"))
    ]
    return picture(alt.layer(cells, *texts), title=title, caption=caption, size=(230, 230))


READABLE = 12
"""Classes up to which cells have figures and headings are upright."""


def confusion(points: Sequence[Point], classes: Sequence[str], *, full: float, title: str, caption: str) -> Picture:
    """Errors by class; right answers are muted.

    Args:
        points: The cells that are not empty: `name`, `true`, `predicted`, `count`, `share` of the class, `percent`.
        classes: Names, in order.
        full: The share of a class that has the full colour.
        title: Title of the picture.
        caption: Caption of the picture.
    """
    names = list(classes)

    def axis(title: str, angle: int) -> alt.Axis:
        return alt.Axis(title=title, grid=False, ticks=False, labelAngle=angle, labelLimit=70)

    crowded = len(names) > READABLE or max(map(len, names)) > 2
    angle = -90 if len(names) > READABLE else -45 * crowded
    side = 350 if len(names) <= READABLE else 110 + 15 * len(names)  # a line of text a class
    base = chart_of(points).encode(
        x=alt.X(
            "predicted:N",
            sort=names,
            scale=alt.Scale(domain=names),
            axis=axis("predicted", angle),
        ),
        y=alt.Y("true:N", sort=names, scale=alt.Scale(domain=names), axis=axis("true", 0)),
        tooltip=tooltip(run="name", true="true", predicted="predicted", images="count", of_the_class="percent"),
    )
    wrong = alt.datum.true != alt.datum.predicted
    opacity = alt.Opacity("share:Q", scale=alt.Scale(domain=[0, full], range=[0.12, 1]), legend=None)
    layers = [
        base.transform_filter(alt.datum.true == alt.datum.predicted).mark_rect(color=GREY, opacity=0.22),
        base.transform_filter(wrong).mark_rect(color=MISTAKE).encode(opacity=opacity),
    ]
    if len(names) <= READABLE:
        layers.append(base.transform_filter(wrong).mark_text(fontSize=10).encode(text="count:N"))
    return picture(alt.layer(*layers), title=title, caption=caption, size=(side, side))


def per_class(
    points: Sequence[Point], classes: Sequence[str], *, networks: Sequence[str], title: str, caption: str
) -> Picture:
    """Errors of each class (across) in each network (down): `name`, `class`, `share`, `percent`, `accuracy`."""
    crowded = len(classes) > READABLE or max(map(len, classes)) > 6
    axis = alt.Axis(title="true class", labelAngle=-45 * crowded, labelLimit=90, grid=False, orient="bottom")
    x = alt.X("class:N", sort=list(classes), axis=axis)
    y = alt.Y("name:N", sort=list(networks), axis=alt.Axis(title=None, labelLimit=170, grid=False, ticks=False))
    base = chart_of(points).encode(x=x, y=y, tooltip=tooltip(run="name", **{"class": "class"}, accuracy="accuracy"))
    most = max(point["share"] for point in points) or 1.0
    opacity = alt.Opacity("share:Q", scale=alt.Scale(type="sqrt", domain=[0, most], range=[0.05, 0.85]), legend=None)
    layers = [base.mark_rect(color=MISTAKE).encode(opacity=opacity)]
    if len(classes) <= READABLE:
        layers.append(base.mark_text(fontSize=11).encode(text="percent:N"))
    return picture(
        alt.layer(*layers), title=title, caption=caption, size=(2 * SIZE[0], 70 + 45 * crowded + 30 * len(networks))
    )


def reliability(points: Sequence[Point], palette: Palette, *, title: str, caption: str) -> Picture:
    """Accuracy against confidence, one line per network; ideal is dashed.

    Args:
        points: `run`, `name`, `group`, `confidence`, `accuracy`, `bin`, `images`, `count`.
        palette: Palette of the page.
        title: Title of the picture.
        caption: Caption of the picture.
    """
    scale = alt.Scale(domain=[0, 1])
    axis = alt.Axis(format="%", tickCount=5)
    diagonal = chart_of([{"x": 0, "y": 0}, {"x": 1, "y": 1}]).mark_line(strokeDash=[4, 3], color=GREY, strokeWidth=1.5)
    base = chart_of(points).encode(
        x=alt.X("confidence:Q", scale=scale, axis=alt.Axis(format="%", tickCount=5, title="confidence")),
        y=alt.Y("accuracy:Q", scale=scale, axis=alt.Axis(format="%", tickCount=5, title=None)),
        color=palette.colour,
    )
    size = alt.Size("images:Q", scale=alt.Scale(type="sqrt", range=[12, 160]), legend=None)
    layers = [
        diagonal.encode(x=alt.X("x:Q", scale=scale, axis=axis), y=alt.Y("y:Q", scale=scale, axis=axis)),
        base.mark_line(strokeWidth=1.6, opacity=0.8).encode(detail="run:N"),
        base.mark_circle(opacity=0.9).encode(size=size, tooltip=tooltip(run="name", bin="bin", images="count")),
    ]
    return picture(alt.layer(*layers, title="accuracy of the bin"), title=title, caption=caption)
