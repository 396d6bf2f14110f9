"""What the tests of the verbs share."""

from collections.abc import Sequence
from pathlib import Path

import pages
import pytest

from cnnbench import pictures
from cnnbench.page import figures
from cnnbench.tables.columns import Column
from cnnbench.tables.rows import Row


@pytest.fixture
def drawn() -> None:
    """Asked for by a test that looks at the picture of `compare`."""


@pytest.fixture
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """`compare` takes from its rows what it draws; where no test asks for `drawn`, the files are empty."""

    def values_alone(rows: Sequence[Row], stem: Path, *, costs: Sequence[Column]) -> list[Path]:
        for cost in costs:
            assert cost.title
            assert all(cost.value(row) is None or cost.value(row) > 0 for row in rows)
        paths = [stem.with_name(stem.name + suffix) for suffix in (".svg", ".png")]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return paths

    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(figures, "accuracy_against_cost", values_alone)


@pytest.fixture
def sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every figure of matplotlib is written as a sketch, for tests that do not look at it."""
    monkeypatch.setattr(pictures, "_save", pages.sketch)
