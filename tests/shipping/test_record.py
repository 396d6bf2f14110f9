"""decision.json, written and read."""

from __future__ import annotations

from pathlib import Path

import builders as made
import pytest

from cnnbench import records
from cnnbench.shipping.record import Decision
from cnnbench.types import CnnbenchError, Exit

DECISION = made.decision()


def test_a_decision_is_read_as_it_was_written() -> None:
    records.write(Path("decision.json"), DECISION)
    assert records.read(Path("decision.json"), Decision) == DECISION


def test_an_edited_decision_is_refused() -> None:
    path = Path("decision.json")
    records.write(path, DECISION)
    path.write_text(path.read_text().replace("485", "495"))
    with pytest.raises(CnnbenchError, match="was edited") as refused:
        records.read(path, Decision)
    assert refused.value.code == Exit.VERDICT
