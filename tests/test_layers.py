"""Imports run one way: each folder imports only from folders before it."""

import ast
from pathlib import Path

import pytest

import cnnbench

ROOT = Path(cnnbench.__file__).parent
LEVELS = (
    {"types"},
    {"registry", "records", "environment"},
    {"tasks", "pictures"},
    {"runtime"},
    {"architectures", "datasets"},
    {"analysis"},
    {"training"},
    {"export"},
    {"bench"},
    {"lab"},
    {"report"},
    {"__main__"},
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}


def room(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The rooms of the package that a file imports from, at any depth in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cnnbench":
            parts = (node.module or "").split(".")[1:]
            found |= {parts[0]} if parts else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("cnnbench.")}
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_come_from_lower_rooms(path: Path) -> None:
    here = room(path.relative_to(ROOT).parts)
    if here == "__init__":  # the public face: every import of it is deferred to a call
        return
    for other in imports(path) - {here}:
        assert LEVEL[other] < LEVEL[here], f"{here} imports {other}"
