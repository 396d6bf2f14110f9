"""The record of a measurement: a file of pytest-benchmark's, with every sample, that its own `compare` reads too."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cnnbench import environment, records
from cnnbench.bench import latency
from cnnbench.bench.interleave import Cell, Taken
from cnnbench.bench.scenarios import Outcome

Samples = Mapping[Cell, Sequence[Taken]]
"""What each of its processes took of a cell."""


def content(samples: Samples, outcomes: Sequence[Outcome], settings: dict[str, Any]) -> dict[str, Any]:
    """The record as JSON values.

    Beside pytest-benchmark's own keys it holds `failed`, the cells without a sample and why; `scenarios`; and
    `settings`, with which all was measured.
    """
    good = {cell: taken for cell, taken in samples.items() if any(one.slices for one in taken)}
    return {
        "machine_info": machine_info(any(cell.setup.provider == "cuda" for cell in samples)),
        "commit_info": _commit_info(),
        "benchmarks": [_benchmark(cell, taken) for cell, taken in good.items()],
        "datetime": datetime.now(UTC).isoformat(),
        "version": version("pytest-benchmark"),
        "failed": [
            {"name": cell.name, "process": index, "reason": one.failed}
            for cell, taken in samples.items()
            for index, one in enumerate(taken)
            if one.failed
        ],
        "scenarios": [asdict(outcome) for outcome in outcomes],
        "settings": settings,
    }


def write(path: Path, record: dict[str, Any]) -> None:
    """Write the record, whole or not at all.

    Raises:
        CnnbenchError: The folder cannot be written (exit 2).
    """
    with records.replacing(path) as partial:
        partial.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")


def machine_info(with_gpus: bool) -> dict[str, Any]:
    """pytest-benchmark's description of the machine without the name of the host, and the versions that matter."""
    from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info

    described: dict[str, Any] = pytest_benchmark_generate_machine_info()  # type: ignore[no-untyped-call]
    del described["node"]
    gpus = {"gpus": environment.gpus()} if with_gpus else {}
    return {**described, "packages": environment.versions(), **gpus}


def _commit_info() -> dict[str, Any]:
    """As pytest-benchmark calls it: `id` and `dirty`, of cnnbench's checkout."""
    commit = environment.commit()
    return {"id": commit.commit, "dirty": commit.dirty} if commit else {"id": version("cnnbench"), "dirty": False}


def _benchmark(cell: Cell, taken: Sequence[Taken]) -> dict[str, Any]:
    """One cell: the samples of its processes, one process after another, each slice by slice."""
    from pytest_benchmark.stats import Metadata

    setup = cell.setup
    params = {
        "runtime": setup.runtime,
        "precision": setup.precision,
        "provider": setup.provider,
        "batch": cell.batch,
        "threads": setup.threads,
    }
    case = SimpleNamespace(
        name=cell.name,
        fullname=cell.name,
        group=setup.task,
        param=None,
        params=params,
        extra_info={
            **latency.extra_info(
                setup.bundle, setup.runtime, cell.batch, setup.threads, setup.precision, setup.provider
            ),
            "images_per_call": cell.batch,
            "processes": [_process(index, one) for index, one in enumerate(taken) if one.slices],
            **_on_device(taken, setup.provider, setup.runtime),
        },
        cprofile_stats=None,
    )
    options = {"disable_gc": True, "timer": "perf_counter_ns", "warmup": True}
    made: Any = Metadata(case, 1, options)  # type: ignore[no-untyped-call]
    for one in taken:
        for seconds in one.seconds:
            made.update(seconds)
    result: dict[str, Any] = made.as_dict(include_data=True)
    return result


def _process(index: int, one: Taken) -> dict[str, Any]:
    """One process of a cell; `slices` are the numbers of samples in each round, by which `data` can be cut."""
    return {
        "index": index,
        "cold_start": asdict(one.cold_start) if one.cold_start else None,
        "slices": [len(slice) for slice in one.slices],
        "median_seconds": statistics.median(one.seconds),
    }


def _on_device(taken: Sequence[Taken], provider: str, runtime: str) -> dict[str, Any]:
    """Times on the device's own clock, sample by sample beside `data`; null with the reason where it has none."""
    seconds = [call for one in taken for call in one.device_seconds]
    if seconds:
        return {"device_seconds": seconds}
    reason = "the CPU is the host" if provider == "cpu" else f"{runtime} gives no events of the device"
    return {"device_seconds": None, "device_seconds_reason": reason}
