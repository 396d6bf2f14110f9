"""Latency of bundles, from paths to a record and a report: plan, processes in turns, record, percentiles."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cnnbench import records
from cnnbench.arguments import several
from cnnbench.bench import plan, record
from cnnbench.bench.interleave import Budget, CaseSamples, Progress, by_case, measure_in_turns, silent
from cnnbench.bench.percentiles import PERCENTS, percentile
from cnnbench.bench.plan import DEFAULT_OPTIONS, Case, LatencyOptions, Setup
from cnnbench.bench.scenarios import ScenarioResult, run_scenarios
from cnnbench.progress import in_words
from cnnbench.types import CnnbenchError, Exit

ROUNDS = 10
"""Slices into which a process's time for a case is cut."""
LARGEST_SAMPLES = 5_000
"""Most samples of a case; more would only make the record larger."""
SERVER_BUDGETS = 20
"""Seconds of arrivals for the Server scenario of a setup, in units of the options' seconds."""


@dataclass(frozen=True, kw_only=True)
class LatencyRow:
    """One case: percentiles in ms with their 95 % intervals, None where `reason` says why."""

    name: str
    task: str
    backend: str
    precision: str
    provider: str
    threads: int
    batch: int
    samples: int
    p50_ms: float | None
    p50_low_ms: float | None
    p50_high_ms: float | None
    p90_ms: float | None
    p90_low_ms: float | None
    p90_high_ms: float | None
    p99_ms: float | None
    p99_low_ms: float | None
    p99_high_ms: float | None
    device_p50_ms: float | None
    """On the device's own clock."""
    torch_ratio: float | None
    """Times as fast as torch eager: median over the rounds; None for torch itself, or where it was not measured."""
    torch_ratio_low: float | None
    """The smallest of a round."""
    torch_ratio_high: float | None
    cold_start_ms: float | None
    """Mean of the processes."""
    reason: str


@dataclass(frozen=True)
class LatencyReport:
    """What one measurement gave; `record` is the file with every sample."""

    rows: tuple[LatencyRow, ...]
    scenarios: tuple[ScenarioResult, ...]
    record: Path


def measure_latency(
    bundles: str | Path | Sequence[str | Path],
    *,
    options: LatencyOptions = DEFAULT_OPTIONS,
    processes: int = 2,
    scenarios: Sequence[str] = (),
    server_p99_ms: float | None = None,
    out: str | Path | None = None,
    progress: Progress = silent,
) -> LatencyReport:
    """Measure the latency of bundles in fresh processes that take turns, and write a record of every sample.

    Args:
        bundles: A bundle or a folder of them, or several.
        options: What each is measured on, and for how long.
        processes: Fresh processes that measure each case, so that differences between processes are known.
        scenarios: MLPerf's scenarios to measure as well: SingleStream, Offline, Server.
        server_p99_ms: Limit of the 99th percentile in the Server scenario.
        out: The record; by default latency.json beside the first bundle.
        progress: Receives a line whenever something begins.

    Raises:
        CnnbenchError: See `plan.setups` and `plan.scenarios`; nothing could be measured (exit 6).
    """
    if processes < 1:
        raise CnnbenchError(f"--processes {processes}: expected at least 1")
    chosen = plan.scenarios(scenarios, batches=options.batches, server_p99_ms=server_p99_ms)
    setups = plan.setups(several(bundles), options)
    path = Path(out) if out else setups[0].bundle.absolute().parent / "latency.json"
    records.require_writable(path)  # before minutes are spent
    samples = _measure(setups, options, processes, progress)
    results = run_scenarios(
        chosen,
        samples,
        bound_seconds=None if server_p99_ms is None else server_p99_ms / 1e3,
        budget_seconds=SERVER_BUDGETS * options.seconds,
        seed=options.seed,
        progress=progress,
    )
    settings = {"seconds": options.seconds, "processes": processes, "rounds": ROUNDS, "seed": options.seed}
    record.write(path, samples, scenarios=results, settings=settings)
    return LatencyReport(latency_rows(samples), tuple(results), path)


def _measure(setups: Sequence[Setup], options: LatencyOptions, processes: int, progress: Progress) -> list[CaseSamples]:
    """Each case in several processes, one generation of them after another, so that memory holds one at a time."""
    budget = Budget(options.seconds / processes, max(1, LARGEST_SAMPLES // processes), ROUNDS)
    order = random.Random(options.seed)
    samples: list[CaseSamples] = []
    count = len(setups) * len(options.batches)
    seconds = count * options.seconds
    progress(f"{count} cases of {options.seconds:g} s: about {in_words(seconds)}, besides starting processes")
    for number in range(processes):
        progress(f"process {number + 1} of {processes} for each of {len(setups)} setup(s)")
        for cases in measure_in_turns(setups, options.batches, budget=budget, order=order, progress=progress):
            samples += cases
    if not any(process.slices for process in samples):
        first = samples[0]
        raise CnnbenchError(f"no case could be measured; {first.case.name}: {first.failure}", Exit.ENVIRONMENT)
    return samples


def latency_rows(samples: Sequence[CaseSamples]) -> tuple[LatencyRow, ...]:
    """One row per case, of all its processes together."""
    cases = by_case(samples)
    return tuple(_row(case, cases) for case in cases)


def _row(case: Case, cases: Mapping[Case, Sequence[CaseSamples]]) -> LatencyRow:
    setup, processes = case.setup, cases[case]
    seconds = [call for process in processes for call in process.seconds]
    p50, p90, p99 = (percentile(seconds, percent) for percent in PERCENTS)
    device = [call for process in processes for call in process.device_seconds]
    starts = [process.cold_start.total_ms for process in processes if process.cold_start]
    reasons = [process.failure for process in processes] + [p.reason for p in (p50, p90, p99) if seconds]
    ratios = [] if setup.backend == "torch" else torch_ratios(case, cases)
    return LatencyRow(
        name=case.name,
        task=setup.task,
        backend=setup.backend,
        precision=setup.precision,
        provider=setup.provider,
        threads=setup.threads,
        batch=case.batch,
        samples=len(seconds),
        p50_ms=_ms(p50.seconds),
        p50_low_ms=_ms(p50.low_seconds),
        p50_high_ms=_ms(p50.high_seconds),
        p90_ms=_ms(p90.seconds),
        p90_low_ms=_ms(p90.low_seconds),
        p90_high_ms=_ms(p90.high_seconds),
        p99_ms=_ms(p99.seconds),
        p99_low_ms=_ms(p99.low_seconds),
        p99_high_ms=_ms(p99.high_seconds),
        device_p50_ms=_ms(percentile(device, 50).seconds),
        torch_ratio=float(np.median(ratios)) if ratios else None,
        torch_ratio_low=min(ratios, default=None),
        torch_ratio_high=max(ratios, default=None),
        cold_start_ms=sum(starts) / len(starts) if starts else None,
        reason="; ".join(dict.fromkeys(reason for reason in reasons if reason)),
    )


def torch_ratios(case: Case, cases: Mapping[Case, Sequence[CaseSamples]]) -> list[float]:
    """How many times as fast as torch eager a case is, in each round that both have: by medians of their slices."""
    eager = Case(replace(case.setup, backend="torch", precision="fp32"), case.batch)
    return [
        float(np.median(torch_slice.seconds) / np.median(slice.seconds))
        for process, torch_process in zip(cases[case], cases.get(eager, ()), strict=False)
        for slice, torch_slice in zip(process.slices, torch_process.slices, strict=False)
    ]


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds
