"""What was taken of a cell, made up."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnbench.bench import record
from cnnbench.bench.interleave import Cell, Taken
from cnnbench.bench.processes import ColdStart, Setup

COLD = ColdStart(import_ms=30.0, load_ms=8.0, first_call_ms=2.0, pinned=True)


def setup_of(bundle: Path, **changes: Any) -> Setup:
    usual = {"task": "mnist5k_lenet5", "runtime": "onnxruntime", "precision": "fp32", "provider": "cpu", "threads": 1}
    return Setup(bundle, **{**usual, **changes})


def taken(*medians: float, calls: int = 31, seed: int = 0) -> Taken:
    """A process whose slices have these medians exactly, in seconds, with 2 % of scatter."""
    draw = np.random.default_rng(seed)
    slices = []
    for median in medians:
        scatter = np.exp(draw.normal(0, 0.02, calls))
        slices.append((median * scatter / np.median(scatter)).tolist())
    return Taken(COLD, slices)


def content(cells: dict[Cell, Sequence[Taken]]) -> dict[str, Any]:
    return record.content(cells, [], {"seconds": 5.0})
