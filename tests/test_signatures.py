"""Signatures: a public function has at most two positional parameters; what else it takes is named at the call."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import cnnbench

ROOT = Path(cnnbench.__file__).parent
MOST = 2
KEPT = {
    # function: why it has more
    "runtime/predict.py:decode": "its file travels in every bundle, which holds its hash",
}
LEFT = {
    "architectures": 18,
    "bench": 22,
    "bundles": 18,
    "cli": 13,
    "datasets": 5,
    "page": 14,
    "runtime": 2,
    "sweeps": 5,
    "tables": 2,
    "training": 6,
}
"""How many more there are in a folder for now; these numbers only shrink."""


def crowded(source: str) -> Iterator[str]:
    """Public functions and methods that take more than `MOST` parameters without their names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            parameters = [parameter.arg for parameter in (*node.args.posonlyargs, *node.args.args)]
            if len([name for name in parameters if name not in ("self", "cls")]) > MOST:
                yield node.name


def test_public_functions_take_at_most_two_positional_parameters() -> None:
    found = defaultdict(list)
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT)
        functions = [f"{name}:{function}" for function in crowded(path.read_text())]
        found[name.parts[0]] += [function for function in functions if function not in KEPT]
    assert {folder: names for folder, names in found.items() if len(names) > LEFT.get(folder, 0)} == {}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f(a, b, c): ...", ["f"]),
        ("def f(a, b, *, c): ...", []),
        ("def _f(a, b, c): ...", []),
        ("class A:\n    def f(self, a, b): ...\n    def g(self, a, b, c=1): ...", ["g"]),
    ],
)
def test_a_crowded_signature_is_seen(source: str, names: list[str]) -> None:
    assert list(crowded(source)) == names
