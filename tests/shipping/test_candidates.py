"""Which networks compete, and which are dropped before training."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cnnbench.analysis.cost import cost
from cnnbench.architectures import architecture
from cnnbench.records.bundle import Precision
from cnnbench.shipping.candidates import MOST, SMALL_MACS, SMALL_PARAMS, Entrant, entrants, small_networks
from cnnbench.tables.limits import Limits
from cnnbench.types import CnnbenchError, ImageSpec

SPEC = ImageSpec(28, 28, 1, 10)


def timed(arch: str, spec: ImageSpec, *, precisions: Sequence[Precision]) -> dict[Precision, tuple[float, ...]]:
    """fp32 takes 4 ms, fp16 2 ms, int8 1 ms."""
    seconds: dict[Precision, float] = {"fp32": 4e-3, "fp16": 2e-3, "int8": 1e-3}
    return {precision: (seconds[precision],) * 3 for precision in precisions}


def one(**limits: float) -> Entrant:
    (entrant,) = entrants(["lenet5"], SPEC, limits=Limits(**limits), named=True, timed=timed)  # type: ignore[arg-type]
    return entrant


def test_at_most_twelve_small_networks_compete() -> None:
    names = small_networks()
    assert 2 < len(names) <= MOST
    assert "resnet152" not in names
    declared = [architecture.entries[name].declared for name in names]
    assert all(each["macs"] <= SMALL_MACS and each["params"] <= SMALL_PARAMS for each in declared)
    assert [each["macs"] for each in declared] == sorted(each["macs"] for each in declared)


def test_a_network_is_dropped_where_its_weights_are_too_many_even_in_int8() -> None:
    params = cost("lenet5", SPEC).params
    assert one(max_bytes=params).dropped == ""
    assert f"{params:,} weights" in one(max_bytes=params - 1).dropped


def test_a_network_is_dropped_where_no_file_is_fast_enough() -> None:
    assert one(max_latency_ms=1.0).latency_ms == pytest.approx(1.0)
    assert "int8 takes 1 ms, above 0.999 ms" in one(max_latency_ms=0.999).dropped


def test_only_files_that_are_small_enough_are_timed() -> None:
    params = cost("lenet5", SPEC).params
    assert one(max_latency_ms=3.0, max_bytes=4 * params).dropped == ""
    assert one(max_latency_ms=3.0, max_bytes=params).latency_ms == pytest.approx(1.0)


def test_latency_is_measured_only_where_it_is_limited() -> None:
    assert one().latency_ms is None


def test_a_size_that_a_network_cannot_take_is_an_error_only_where_it_was_named() -> None:
    small = ImageSpec(2, 2, 1, 10)
    (dropped,) = entrants(["inception_small"], small, limits=Limits(), named=False)
    assert "inception_small cannot take 2x2x1" in dropped.dropped
    with pytest.raises(CnnbenchError, match="cannot take"):
        entrants(["inception_small"], small, limits=Limits(), named=True)
