"""A page as one HTML file: styles, scripts and pictures inline, readable from disk without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench import records
from cnnbench.page.section import Page
from cnnbench.types import CnnbenchError

if TYPE_CHECKING:
    from markupsafe import Markup

MARKS = {
    "circle": "M6 1.5a4.5 4.5 0 1 1 0 9a4.5 4.5 0 1 1 0-9z",
    "square": "M2 2h8v8h-8z",
    "triangle-up": "M6 1.5l5 8.7h-10z",
    "diamond": "M6 .6l4.2 5.4l-4.2 5.4l-4.2-5.4z",
    "cross": "M4.3 1h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
    "triangle-down": "M6 10.5l5-8.7h-10z",
    "triangle-right": "M10.5 6l-8.7 5v-10z",
}
"""Vega's symbols as paths, for legends."""


def render(page: Page) -> str:
    """The page as HTML. Text is escaped wherever it stands; Vega is included only where there are charts."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cnnbench.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    template = environment.get_template("page.html")
    return template.render(page=page, marks=MARKS, vega=_vega() if page.has_charts else "")


def _code(text: str) -> Markup:
    """Text with what stands between backticks as code; everything is escaped."""
    from markupsafe import Markup, escape

    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick too many
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts)
    )


def check_place(path: str | Path) -> None:
    """Refuse to write a page over what is none, or where nothing can be written, before anything is computed for it.

    Raises:
        CnnbenchError: The path is a folder, cannot be written, or its name does not end in .html or .htm (exit 2).
    """
    records.require_writable(Path(path))
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise CnnbenchError(f"cannot write a page to {path}: expected a name that ends in .html")


def write(page: Page, path: str | Path) -> None:
    """Write the page; a file that is already there is replaced only once the new one is complete.

    Raises:
        CnnbenchError: The file cannot be written, or its name is not that of a page (exit 2).
    """
    check_place(path)
    text = render(page)
    with records.replacing(Path(path)) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files that are not UTF-8


def _vega() -> str:
    """Vega's JavaScript, as .ci/vega.py writes it."""
    return Path(__file__).with_name("vega.js").read_text(encoding="utf-8")
