"""Imports run one way: each folder imports only from folders before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import cnnbench

ROOT = Path(cnnbench.__file__).parent
ORDER = (
    *(
        {"types"},
        {"extras"},
        {"arguments"},
        {"packages"},
        {"registry"},
        {"records"},
        {"environment"},
        {"progress"},
        {"cache"},
        {"tasks"},
        {"pictures"},
        {"pixels"},
    ),
    {"runtime"},
    {"architectures", "datasets"},
    {"audit"},
    {"analysis"},
    {"training"},
    {"sweeps", "bundles"},
    {"bench"},
    {"lab"},
    {"tables"},
    {"page"},
    {"shipping"},
    {"api"},
    {"cli"},
    {"__main__"},
)
"""Folders and files of the package, lowest first; what stands together does not import one another."""
PLACE = {name: place for place, names in enumerate(ORDER) for name in names}
FILES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__init__.py" or path.parent != ROOT)


def folder(path: Path) -> str:
    """The folder of the package, or its file, that a module belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(source: str) -> Iterator[str]:
    """The folders of the package that a module imports from, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("cnnbench."))
        elif isinstance(node, ast.ImportFrom) and node.module == "cnnbench":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cnnbench."):
            yield (node.module or "").split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_come_from_folders_before(path: Path) -> None:
    here = folder(path)
    for other in {*imported(path.read_text())} - {here}:
        assert PLACE[other] < PLACE[here], f"{path.relative_to(ROOT)} imports {other}"


def test_every_folder_has_its_place() -> None:
    assert {folder(path) for path in FILES} <= set(PLACE)


@pytest.mark.parametrize(
    ("source", "folders"),
    [
        ("from cnnbench.cli import parser", ["cli"]),
        ("from cnnbench import records, tasks", ["records", "tasks"]),
        ("import cnnbench.page.charts", ["page"]),
        ("def f():\n    from cnnbench.page.charts import x", ["page"]),
        ("import cnnbenchmark.page, numpy\nfrom numpy import cli", []),
    ],
)
def test_an_import_is_seen_wherever_it_stands(source: str, folders: list[str]) -> None:
    assert list(imported(source)) == folders
