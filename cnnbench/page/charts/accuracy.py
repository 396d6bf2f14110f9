"""Charts of accuracy: against cost, over seeds, during training, and against the number of training images."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from cnnbench import pictures
from cnnbench.page.charts.base import (
    GREY,
    MISTAKE,
    SIZE,
    Palette,
    Point,
    accuracy_axis,
    accuracy_y,
    chart_of,
    error,
    extent,
    log_x,
    picture,
    tooltip,
)
from cnnbench.page.charts.labels import LimitLine, names
from cnnbench.page.section import Picture

NARROW = (330, SIZE[1])
"""Size of a chart on a phone, and in a third of a page."""


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both cost and error, the cheapest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point["cost"], point["error"])):
        if not best or point["error"] < best[-1]["error"]:
            best.append(point)
    return best


def pareto(points: Sequence[Point], palette: Palette, *, axis: str, title: str, caption: str) -> Picture:
    """Accuracy against a cost.

    Args:
        points: `cost`, `error`, `name`, `group`, `accuracy` and `figure` (of the tooltip); `low_error` and
            `high_error` where there is an interval.
        palette: Colours of the page.
        axis: Title of the cost's axis.
        title: Title of the picture.
        caption: Caption of the picture.
    """
    errors = extent(points)
    x, y = log_x("cost", [point["cost"] for point in points], title=axis), accuracy_y(errors)
    best = front(points)
    line = chart_of(best).mark_line(interpolate="step-after", strokeWidth=1.5, strokeDash=[4, 3], color=GREY)
    bars = chart_of([point for point in points if "low_error" in point]).mark_rule(strokeWidth=1.5)
    dots = chart_of(points).mark_point(filled=True, size=90, opacity=1)
    layers = [
        line.encode(x=x, y=y),
        bars.encode(x=x, y=accuracy_y(errors, "low_error"), y2="high_error", color=palette.colour),
        dots.encode(
            x=x,
            y=y,
            color=palette.colour,
            shape=palette.shape,
            tooltip=tooltip(run="name", accuracy="accuracy", cost="figure"),
        ),
        *names([*best, *(point for point in points if point not in best)], x=x, y=y, size=NARROW),
    ]
    return picture(alt.layer(*layers, title="test accuracy, %"), title=title, caption=caption)


def quadrant(
    points: Sequence[Point],
    palette: Palette,
    *,
    axis: str,
    min_accuracy: float,
    max_cost: float | None,
    limits: Sequence[str],
    caption: str,
) -> Picture:
    """Files by accuracy and cost, every one named, with the limits as lines; the chosen one is marked.

    Args:
        points: `cost`, `error`, `name`, `group`, `accuracy`, `figure` and `chosen`.
        palette: Colours of the page.
        axis: Title of the cost's axis.
        min_accuracy: The limit of accuracy, a fraction.
        max_cost: The limit of this cost; None where there is none.
        limits: Both limits as text, that of accuracy first.
        caption: Caption of the picture.
    """
    size = (540, 400)
    least = error(min_accuracy)
    x = log_x("cost", [*(point["cost"] for point in points), *([max_cost] if max_cost else [])], title=axis)
    y = accuracy_y([*(point["error"] for point in points), least])
    drawn = [LimitLine(limits[0], error=least), *([LimitLine(limits[1], cost=max_cost)] if max_cost else [])]
    dots = chart_of(points).mark_point(filled=True, size=90, opacity=1)
    halo = chart_of([point for point in points if point["chosen"]]).mark_circle(size=700, opacity=0.25)
    layers = [
        *(
            chart_of(limit.ends(x, y)).mark_line(strokeDash=[5, 4], strokeWidth=1.5, color=MISTAKE).encode(x=x, y=y)
            for limit in drawn
        ),
        halo.encode(x=x, y=y, color=palette.colour),
        dots.encode(
            x=x,
            y=y,
            color=palette.colour,
            shape=palette.shape,
            tooltip=tooltip(file="name", accuracy="accuracy", cost="figure"),
        ),
        *names(
            sorted(points, key=lambda point: not point["chosen"]), x=x, y=y, size=(NARROW[0], size[1]), limits=drawn
        ),
    ]
    chart = alt.layer(*layers, title="validation accuracy, %")
    return picture(chart, title="Accuracy and cost of every file", caption=caption, size=size)


def seeds(points: Sequence[Point], palette: Palette, *, means: Sequence[Point], title: str, caption: str) -> Picture:
    """One dot per seed in the row of its network; a tick is the mean, a bar its interval.

    Args:
        points: `name`, `group`, `error`, `seed`, `accuracy`.
        palette: Palette of the page.
        means: `name`, `group`, `error`, `accuracy`; `low_error` and `high_error` where there is an interval.
        title: Title of the picture.
        caption: Caption of the picture.
    """
    order = [point["name"] for point in means]
    scale, axis = accuracy_axis(extent([*points, *means]))

    def x(field: str = "error") -> alt.X:
        return alt.X(f"{field}:Q", scale=scale, axis=axis)

    y = alt.Y("name:N", sort=order, axis=alt.Axis(title=None, labelLimit=170, grid=False, ticks=False))
    ranged = [point for point in means if "low_error" in point]
    layers = [
        chart_of(ranged)
        .mark_rule(strokeWidth=7, opacity=0.28)
        .encode(x=x("low_error"), x2="high_error", y=y, color=palette.colour),
        chart_of(points)
        .mark_circle(size=46, opacity=0.75)
        .encode(x=x(), y=y, color=palette.colour, tooltip=tooltip(run="name", seed="seed", accuracy="accuracy")),
        chart_of(means)
        .mark_tick(thickness=2.5, size=17)
        .encode(x=x(), y=y, color=palette.colour, tooltip=tooltip(run="name", mean="accuracy")),
    ]
    size = (2 * SIZE[0], 60 + 30 * len(order))
    return picture(alt.layer(*layers, title="test accuracy, %"), title=title, caption=caption, size=size)


def curves(points: Sequence[Point], palette: Palette, *, axis: str, log: bool, title: str, caption: str) -> Picture:
    """Validation accuracy during training, one line per run.

    Args:
        points: `run` (one per line), `name`, `group`, `spent`, `error`, `accuracy`, `when`.
        palette: Colours of the page.
        axis: Title of the axis of `spent`.
        log: Whether that axis is logarithmic.
        title: Title of the picture.
        caption: Caption of the picture.
    """
    spent = [point["spent"] for point in points]
    plain = alt.X("spent:Q", scale=alt.Scale(domain=[0, max(spent)]), axis=alt.Axis(title=axis, tickMinStep=1))
    x, y = log_x("spent", spent, title=axis) if log else plain, accuracy_y([point["error"] for point in points])
    base = chart_of(points).encode(x=x, y=y, color=palette.colour)
    lines = base.mark_line(strokeWidth=1.6, opacity=0.7).encode(detail="run:N")
    dots = base.mark_circle(size=42, opacity=0).encode(
        tooltip=tooltip(run="name", validation_accuracy="accuracy", after="when")
    )
    return picture(alt.layer(lines, dots, title="validation accuracy, %"), title=title, caption=caption)


def efficiency(points: Sequence[Point], palette: Palette, *, title: str, caption: str) -> Picture:
    """Test accuracy against the number of training images, one line per architecture.

    Args:
        points: `name`, `group`, `images`, `error`, `accuracy`.
        palette: Palette of the page.
        title: Title of the picture.
        caption: Caption of the picture.
    """
    x = log_x("images", [point["images"] for point in points], title="training images")
    base = chart_of(points).encode(
        x=x,
        y=accuracy_y([point["error"] for point in points]),
        color=palette.colour,
        tooltip=tooltip(run="name", accuracy="accuracy", training_images="figure"),
    )
    layers = [
        base.mark_line(strokeWidth=2).encode(detail="arch:N"),
        base.mark_point(filled=True, size=80, opacity=1).encode(shape=palette.shape),
    ]
    return picture(alt.layer(*layers, title="test accuracy, %"), title=title, caption=caption)


def matrix(cells: Sequence[Point], names: Sequence[str], *, title: str, caption: str) -> Picture:
    """Which pairs can be told apart.

    Args:
        cells: `left`, `below`, `result` (better, worse or no difference shown), `points`, `interval` and `p`.
        names: Names of the networks, in order.
        title: Title of the picture.
        caption: Caption of the picture.
    """

    def axis(angle: int) -> alt.Axis:
        return alt.Axis(title=None, grid=False, ticks=False, labelAngle=angle, labelLimit=120)

    order = list(names)
    colours = alt.Scale(
        domain=["better", "worse", "no difference shown"], range=[pictures.COLOURS[0], pictures.COLOURS[1], GREY]
    )
    base = chart_of(cells).encode(
        x=alt.X("below:N", sort=order, axis=axis(-45)),
        y=alt.Y("left:N", sort=order, axis=axis(0)),
        tooltip=tooltip(
            network="left", minus="below", points="points", interval="interval", p_among_all_pairs="p", result="result"
        ),
    )
    layers = [
        base.mark_rect(opacity=0.45, stroke="white").encode(color=alt.Color("result:N", scale=colours, legend=None)),
        base.mark_text(fontSize=10).encode(text="points:N"),
    ]
    size = (max(400, 130 + 45 * len(order)), 90 + 34 * len(order))
    return picture(alt.layer(*layers), title=title, caption=caption, size=size)
