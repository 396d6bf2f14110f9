"""Rows of a measurement: percentiles, and how many times as fast as torch a case is."""

import numpy as np
import pytest
from bench_helpers import case_of, samples

from cnnbench.bench.interleave import CaseSamples, by_case
from cnnbench.bench.measure import latency_rows, torch_ratios

TORCH, ONNX, COMPILED, TWO = (
    case_of(1, backend="torch"),
    case_of(1),
    case_of(1, backend="torch-compile"),
    case_of(2),
)
MEASURED = [
    samples(TORCH, 8e-3, 16e-3),
    samples(TORCH, 9e-3),  # the second round and the second process are slower for all
    samples(ONNX, 4e-3, 4e-3),
    samples(ONNX, 3e-3),
    CaseSamples(COMPILED, failure="died"),
    samples(COMPILED, 3e-3, 3e-3),
    samples(TWO, 1e-3),
]


def test_the_ratio_to_torch_is_taken_round_by_round() -> None:
    cases = by_case(MEASURED)
    assert torch_ratios(TORCH, cases) == pytest.approx([1, 1, 1])
    assert torch_ratios(ONNX, cases) == pytest.approx([2, 4, 3])
    assert torch_ratios(COMPILED, cases) == pytest.approx([3])
    assert torch_ratios(TWO, cases) == []


def test_a_row_has_the_percentiles_of_all_processes_together() -> None:
    torch, onnx, compiled, two = latency_rows(MEASURED)
    seconds = [second for process in MEASURED[2:4] for second in process.seconds]
    assert onnx.samples == len(seconds) == 93
    assert onnx.p50_ms == pytest.approx(1e3 * np.median(seconds))
    assert onnx.p90_ms == pytest.approx(1e3 * np.percentile(seconds, 90))
    assert onnx.p50_low_ms is not None
    assert onnx.p50_high_ms is not None
    assert onnx.p50_low_ms <= np.median(seconds) * 1e3 <= onnx.p50_high_ms
    assert (onnx.p99_ms, onnx.p99_low_ms) == (None, None)
    assert onnx.reason.startswith("p99 needs 662 samples, 93 were taken in ")
    assert (onnx.torch_ratio, onnx.torch_ratio_low, onnx.torch_ratio_high) == pytest.approx((3, 2, 4))
    assert (torch.torch_ratio, two.torch_ratio) == (None, None)
    assert compiled.reason.startswith("died; ")
    assert onnx.cold_start_ms == 40.0


def test_a_case_without_a_sample_has_only_the_reason() -> None:
    (row,) = latency_rows([CaseSamples(ONNX, failure="died")] * 2)
    assert (row.samples, row.p50_ms, row.cold_start_ms, row.reason) == (0, None, None, "died")
