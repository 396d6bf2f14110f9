"""The chart of latencies."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from cnnbench.page.charts.base import COLOURS, Point, chart_of, decades, picture, tooltip
from cnnbench.page.section import Picture


def latency(
    points: Sequence[Point], marks: Sequence[Point], *, backends: Sequence[str], title: str, caption: str
) -> Picture:
    """Share of calls that took at most so long: a curve an backend, its percentiles marked.

    Args:
        points: `backend`, `ms`, `share`, in order.
        marks: `backend`, `ms`, `share`, `label`: the percentiles that have enough samples.
        backends: All of the page, in order, so that a colour means the same everywhere.
        title: Title of the picture.
        caption: Caption of the picture.
    """
    times = [point["ms"] for point in (*points, *marks)]
    colour = alt.Color("backend:N", scale=alt.Scale(domain=list(backends), range=list(COLOURS)), legend=None)
    x = alt.X(
        "ms:Q",
        scale=alt.Scale(type="log", domain=[min(times) / 1.1, max(times) * 1.1], nice=False),
        axis=alt.Axis(title="ms per call", format="~g", values=decades(min(times) / 1.1, max(times) * 1.1)),
    )
    y = alt.Y(
        "share:Q",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format="%", values=[0, 0.5, 0.9, 0.99], title=None, labelOverlap=True),
    )
    lines = chart_of(points).mark_line(strokeWidth=2).encode(x=x, y=y, color=colour, detail="backend:N")
    dots = (
        chart_of(marks)
        .mark_circle(size=80, opacity=1)
        .encode(x=x, y=y, color=colour, tooltip=tooltip(backend="backend", percentile="label"))
    )
    return picture(
        alt.layer(lines, dots, title="share of calls that took at most this long"), title=title, caption=caption
    )
