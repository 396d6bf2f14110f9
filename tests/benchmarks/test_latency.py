"""Latency of one call, under pytest-benchmark.

`pytest tests/benchmarks --benchmark-enable --benchmark-json=latency.json --bundles exports` measures; in an ordinary
run each case is called once, untimed, on a bundle that the tests export.
"""

from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from cnnbench.bench import plan, record
from cnnbench.bench.networks import golden_images, open_backend
from cnnbench.bench.plan import DEFAULT_BACKENDS, Case, LatencyOptions

ROUNDS = {1: 500, 64: 50}
WARMUP_ROUNDS = 20


@pytest.mark.parametrize("threads", [1])
@pytest.mark.parametrize("batch", ROUNDS)
@pytest.mark.parametrize("backend", DEFAULT_BACKENDS)
def test_latency(benchmark: BenchmarkFixture, measured_bundle: Path, backend: str, batch: int, threads: int) -> None:
    (setup,) = plan.setups([measured_bundle], LatencyOptions(backends=[backend], threads=[threads]))
    call = open_backend(setup)
    images = golden_images(measured_bundle, batch)
    benchmark.extra_info.update(record.extra_info(Case(setup, batch)))
    # pedantic: one call per round, so that every sample is one latency and percentiles mean what they say
    logits = benchmark.pedantic(call, args=(images,), rounds=ROUNDS[batch], warmup_rounds=WARMUP_ROUNDS, iterations=1)
    assert logits.shape[0] == batch
    assert np.isfinite(logits).all()
