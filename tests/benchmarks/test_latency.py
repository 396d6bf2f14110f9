"""Latency of one call, under pytest-benchmark.

`pytest tests/benchmarks --benchmark-enable --benchmark-json=latency.json --bundles exports` measures; in an ordinary
run each case is called once, untimed, on a bundle that the tests export.
"""

from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from cnnbench.bench import latency

ROUNDS = {1: 500, 64: 50}
WARMUP_ROUNDS = 20


@pytest.mark.parametrize("threads", [1])
@pytest.mark.parametrize("batch", ROUNDS)
@pytest.mark.parametrize("runtime", latency.RUNTIMES)
def test_latency(
    benchmark: BenchmarkFixture, measured_bundle: Path, runtime: latency.Runtime, batch: int, threads: int
) -> None:
    call = latency.prepare(measured_bundle, runtime, threads)
    images = latency.images_of(measured_bundle, batch)
    benchmark.extra_info.update(latency.extra_info(measured_bundle, runtime, batch, threads))
    # pedantic: one call a round, so that every sample is one latency and percentiles mean what they say
    logits = benchmark.pedantic(call, args=(images,), rounds=ROUNDS[batch], warmup_rounds=WARMUP_ROUNDS, iterations=1)
    assert logits.shape[0] == batch
    assert np.isfinite(logits).all()
