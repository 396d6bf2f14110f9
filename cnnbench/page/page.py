"""A self-contained HTML page: pictures inline, nothing fetched, readable from disk without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench import pictures, records
from cnnbench.tables.columns import Column, texts

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """Rows under a title, shown as `columns` say."""

    title: str
    columns: list[Column]
    rows: Sequence[object]


@dataclass(frozen=True)
class Section:
    """One heading and what stands below it: text, claims that were checked, pictures, tables."""

    heading: str
    paragraphs: list[str] = field(default_factory=list)
    claims: list[tuple[str, bool]] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)
    """What a picture shows, for those who do not see it, and the picture."""
    tables: list[Table] = field(default_factory=list)


def write(path: Path, title: str, subtitle: str, sections: list[Section]) -> None:
    """Write the page.

    Raises:
        CnnbenchError: The file cannot be written (exit 2).
    """
    from jinja2 import Environment, PackageLoader

    template = Environment(loader=PackageLoader("cnnbench.page", "."), autoescape=True).get_template("page.html")
    text = template.render(
        title=title, subtitle=subtitle, sections=[_plain(section, n) for n, section in enumerate(sections, 1)]
    )
    with records.replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _plain(section: Section, number: int) -> dict[str, Any]:
    tables = [
        {
            "title": table.title,
            "columns": table.columns,
            "rows": [list(zip(table.columns, texts(table.columns, row), strict=True)) for row in table.rows],
        }
        for table in section.tables
    ]
    return {
        "anchor": f"section-{number}",
        "heading": section.heading,
        "paragraphs": section.paragraphs,
        "claims": section.claims,
        "pictures": [(alt, pictures.inline(figure)) for alt, figure in section.figures.items()],
        "tables": tables,
    }
