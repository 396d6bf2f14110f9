"""The look of figures, and how they are written: SVG for documents, PNG for everything else, inline for a page."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench import records

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def new(width: float = 11.5, height: float = 4.8, *, panels: int = 1, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure of `width` x `height` inches and its `panels` axes, row by row."""
    from matplotlib.figure import Figure  # not pyplot, which keeps every figure open and wants a display

    figure = Figure(figsize=(width, height), layout="constrained")
    columns = -(-panels // rows)
    grid = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axes in grid[:panels]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    for axes in grid[panels:]:
        axes.set_axis_off()
    return figure, grid[:panels]


def write(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as `stem` with .svg and .png; the same figure gives the same bytes.

    Raises:
        CnnbenchError: The folder cannot be written (exit 2).
    """
    paths = []
    for suffix in (".svg", ".png"):
        target = stem.with_name(stem.name + suffix)
        with records.replacing(target) as partial:
            _save(figure, partial, suffix.removeprefix("."))
        paths.append(target)
    return paths


def inline(figure: Figure) -> str:
    """A figure as the `src` of an HTML image, so that the page needs no other file."""
    content = io.BytesIO()
    _save(figure, content, "svg")
    return "data:image/svg+xml;base64," + base64.b64encode(content.getvalue()).decode()


def svg(figure: Figure) -> str:
    """A figure as an SVG element for a page: its text stays text, and no element has an id that nothing refers to."""
    content = io.BytesIO()
    _save(figure, content, "svg", text=True)
    drawn = content.getvalue().decode()
    drawn = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    drawn = re.sub(r"<!--.*?-->\s*", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'(width|height)="([0-9.]+)pt"', r'\1="\2"', drawn, count=2)
    drawn = re.sub(r" font-family: [^;]*;", "", drawn)
    used = set(re.findall(r"#([\w.]+)", drawn))
    return re.sub(r' id="([\w.]+)"', lambda name: name[0] if name[1] in used else "", drawn)


@contextmanager
def any_script() -> Iterator[None]:
    """Draw text in scripts that matplotlib's font lacks, too: without a warning for each letter."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def _power(value: float) -> str:
    """A label of a logarithmic axis, without formulas: `10 k`, `100`, `0.001`."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep=" ")(value) if value >= 1000 else f"{value:g}"


def _save(figure: Figure, target: Path | io.BytesIO, format: str, *, text: bool = False) -> None:
    from matplotlib import rc_context
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatterMathtext

    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
            axis.set_major_formatter(lambda value, _: _power(value))
    for written in figure.findobj(Text):
        written.set_parse_math(False)  # of a name with dollars
    with rc_context({"svg.hashsalt": "cnnbench", "svg.fonttype": "none" if text else "path"}), any_script():
        if figure.get_layout_engine() is not None:  # laid out once: each layout would move things a little further
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        figure.savefig(target, format=format, dpi=150, metadata={"Date": None} if format == "svg" else None)
