"""Signatures: a public function has at most two positional parameters; what else it takes is named at the call."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import cnnbench

ROOT = Path(cnnbench.__file__).parent
MOST = 2
KEPT = {
    # function: why it has more
    "runtime/predict.py:decode": "its file travels in every bundle, which holds its hash",
    "training/checkpoints.py:on_train_batch_end": "Lightning calls it",
    "training/checkpoints.py:save_checkpoint": "Lightning calls it",
    "training/classifier.py:load_state_dict": "torch and Lightning call it",
    "training/midway.py:on_load_checkpoint": "Lightning calls it",
    "training/midway.py:on_save_checkpoint": "Lightning calls it",
    "training/recorder.py:on_predict_batch_end": "Lightning calls it",
    "training/stopping.py:on_exception": "Lightning calls it",
    "training/trainer.py:on_exception": "Lightning calls it",
    "training/trainer.py:teardown": "Lightning calls it",
}


def crowded(source: str) -> Iterator[str]:
    """Public functions and methods that take more than `MOST` parameters without their names."""
    body = ast.parse(source).body
    for node in [*body, *(member for part in body if isinstance(part, ast.ClassDef) for member in part.body)]:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            parameters = [parameter.arg for parameter in (*node.args.posonlyargs, *node.args.args)]
            if len([name for name in parameters if name not in ("self", "cls")]) > MOST:
                yield node.name


def test_public_functions_take_at_most_two_positional_parameters() -> None:
    names = {
        f"{path.relative_to(ROOT)}:{function}"
        for path in sorted(ROOT.rglob("*.py"))
        for function in crowded(path.read_text())
    }
    assert names == set(KEPT)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f(a, b, c): ...", ["f"]),
        ("def f(a, b, *, c): ...", []),
        ("def _f(a, b, c): ...", []),
        ("def f(a):\n    def hook(a, b, c): ...", []),
        ("class A:\n    def f(self, a, b): ...\n    def g(self, a, b, c=1): ...", ["g"]),
    ],
)
def test_a_crowded_signature_is_seen(source: str, names: list[str]) -> None:
    assert list(crowded(source)) == names
