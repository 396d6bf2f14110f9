"""Seconds to count a deep network at full size, under pytest-benchmark.

`pytest tests/benchmarks/test_cost_seconds.py --benchmark-enable` measures; in an ordinary run the count is made once,
untimed.
"""

from pytest_benchmark.fixture import BenchmarkFixture

from cnnbench.analysis.cost import cost
from cnnbench.types import ImageSpec


def test_cost_of_resnet152(benchmark: BenchmarkFixture) -> None:
    counted = benchmark(cost, "resnet152", ImageSpec(224, 224, 3, 1000))
    assert counted.depth == 152
