"""Samples of cases, made up."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from cnnbench.bench import record
from cnnbench.bench.backends import ColdStart, Slice
from cnnbench.bench.interleave import CaseSamples
from cnnbench.bench.plan import Case, Setup

COLD = ColdStart(
    import_ms=30.0, load_ms=8.0, first_call_ms=2.0, pinned=True, settings={"INFERENCE_PRECISION_HINT": "f32"}
)


def setup_of(bundle: Path, **changes: Any) -> Setup:
    usual = {
        "task": "mnist5k_lenet5",
        "arch": "lenet5",
        "model_sha256": "0" * 64,
        "backend": "onnxruntime",
        "precision": "fp32",
        "provider": "cpu",
        "threads": 1,
    }
    return Setup(bundle=bundle, **{**usual, **changes})


def case_of(batch: int = 8, **changes: Any) -> Case:
    return Case(setup_of(Path("bundle"), **changes), batch)


def samples(case: Case, *medians: float, calls: int = 31, seed: int = 0) -> CaseSamples:
    """A process whose slices have these medians exactly, in seconds, with 2 % of scatter."""
    draw = np.random.default_rng(seed)
    slices = []
    for median in medians:
        scatter = np.exp(draw.normal(0, 0.02, calls))
        slices.append(Slice((median * scatter / np.median(scatter)).tolist()))
    return CaseSamples(case, COLD, slices)


def written(processes: Iterable[CaseSamples], *, path: str = "latency.json") -> dict[str, Any]:
    """The record of these samples, in a file and as JSON values."""
    record.write(Path(path), processes, settings={"seconds": 5.0})
    content: dict[str, Any] = json.loads(Path(path).read_text())
    return content
