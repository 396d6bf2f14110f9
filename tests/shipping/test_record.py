"""decision.json, written and read."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnbench import records
from cnnbench.shipping.record import Chosen, Competitor, Decision, File, Images, Request, Rung, Scored
from cnnbench.types import CnnbenchError, Exit

VAL = Scored(490, 500)
DECISION = Decision(
    request=Request(dataset="mnist5k", archs=("a", "b"), budget_seconds=60.0, min_accuracy=0.9),
    images=Images(name="mnist5k", sha256="0", train=4000, val=500, test=500, size="28x28x1", classes=10, folds=0),
    finished=True,
    ended="the longest schedule was reached",
    seconds=55.5,
    competitors=(
        Competitor(arch="a", params=10, macs=20, left="chosen", why="best", epochs=27, val=VAL, seeds=1, runs=2),
        Competitor(arch="b", params=10, macs=20, left="before training", why="too large"),
    ),
    rungs=(Rung(epochs=9, archs=("a",), val=(VAL,)),),
    files=(File(task="mnist5k_a_e27", seed=1, precision="int8", bytes=100, val=VAL, p90_ms=0.1, why=""),),
    answer="a int8",
    chosen=Chosen(
        arch="a",
        task="mnist5k_a_e27",
        seed=1,
        epochs=27,
        run="runs/mnist5k_a_e27/seed1",
        bundle="exports/mnist5k_a_e27",
        file="model_int8.onnx",
        precision="int8",
        bytes=100,
        val=VAL,
        test=Scored(485, 500),
        test_low=0.95,
        test_high=0.98,
        majority="0",
        majority_share=0.1,
    ),
)


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
