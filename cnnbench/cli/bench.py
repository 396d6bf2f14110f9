"""`bench`: measure latency on every engine, print it, and answer whether a bundle became slower."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cnnbench.bench import interleave, latency, plan, record, regression, scenarios
from cnnbench.bench.interleave import Budget, Cell, Taken
from cnnbench.bench.percentiles import PERCENTS, percentile
from cnnbench.bench.processes import Setup
from cnnbench.cli.table import Column, render
from cnnbench.cli.table import Format as TableFormat
from cnnbench.types import CnnbenchError, Exit

Format = Literal["table", "markdown", "csv", "json", "gha"]
ROUNDS = 10
"""Slices into which a process's time for a cell is cut."""
LARGEST_SAMPLES = 5_000
"""Of a cell; more would only make the record larger."""
SERVER_BUDGETS = 20
"""Seconds of arrivals for the Server scenario of an engine, in units of --seconds."""


def bench(
    bundles: list[str],
    batch: str = "1,8,64",
    threads: str = "1",
    runtime: str = "torch,onnxruntime",
    precision: str = "fp32",
    provider: latency.Provider = "cpu",
    seconds: float = 5.0,
    processes: int = 2,
    scenario: str = "",
    server_p99_ms: float | None = None,
    against: str | None = None,
    seed: int = 1,
    out: str | None = None,
    format: Format = "table",
) -> int:
    """Measure latency: one process an engine, in turns, all samples kept.

    Args:
        bundles: Bundles, or folders of them; files among them, as in exports/*, are passed over.
        batch: Images in a call, as 1,8,64.
        threads: Threads of an engine, as 1,2; it is kept on as many cores.
        runtime: Engines, as torch,torch-compile,onnxruntime; torch-compile takes up to a minute to start.
        precision: Files of the bundles to measure, as fp32,int8; torch has fp32 alone.
        provider: Where the network runs; on cuda images start and logits end in main memory.
        seconds: Time in calls for each cell (one engine at one batch size), all its processes together.
        processes: Fresh processes that measure each cell, so that what differs between processes is known.
        scenario: Also report MLPerf's scenarios, as SingleStream,Offline,Server.
        server_p99_ms: Server: what the 99th percentile of the time from arrival to answer may be.
        against: A baseline bundle: is the one bundle given slower than it? Exit 5 if so, seen twice. Writes no record.
        seed: Of the order of turns and of the arrivals.
        out: The record to write, in pytest-benchmark's format; by default latency.json beside the first bundle.
        format: How to print; gha is what github-action-benchmark reads as customSmallerIsBetter.
    """
    batches = plan.numbers("--batch", batch)
    plan.positive("--seconds", seconds)
    if processes < 1:
        raise CnnbenchError(f"--processes {processes}: expected at least 1")
    chosen = plan.scenarios(scenario, batches, server_p99_ms)
    found = plan.found_bundles(bundles)
    setups = plan.setups(found, runtime, precision, provider, threads)
    if against is not None:
        if len(found) > 1 or chosen or out or format not in ("table", "json"):
            raise CnnbenchError("--against takes one bundle, no --scenario and no --out; --format table or json")
        theirs = plan.setups(plan.found_bundles([against]), runtime, precision, provider, threads)
        if len(theirs) != len(setups):
            raise CnnbenchError(f"--against {against}: expected one bundle")
        plan.require(provider, setups)
        return _against(setups, theirs, batches, seconds, seed, format)
    plan.require(provider, setups)
    target = Path(out) if out else found[0].absolute().parent / "latency.json"
    samples = _measure(setups, batches, seconds, processes, seed)
    _some(samples)
    outcomes = _outcomes(chosen, samples, seconds, server_p99_ms, seed)
    settings = {"seconds": seconds, "processes": processes, "rounds": ROUNDS, "seed": seed}
    record.write(target, record.content(samples, outcomes, settings))
    _print(samples, outcomes, format)
    _say(f"every sample: {target}")
    return Exit.OK


def _measure(
    setups: Sequence[Setup], batches: Sequence[int], seconds: float, processes: int, seed: int
) -> dict[Cell, list[Taken]]:
    """Each cell in several processes, one generation of them after another, so that memory holds one at a time."""
    budget = Budget(seconds / processes, max(1, LARGEST_SAMPLES // processes), ROUNDS)
    order = random.Random(seed)
    samples: dict[Cell, list[Taken]] = {Cell(setup, size): [] for setup in setups for size in batches}
    for number in range(processes):
        _say(f"process {number + 1} of {processes} for each of {len(setups)} engine(s)")
        for setup, taken in zip(setups, interleave.measured(setups, batches, budget, order, _say), strict=True):
            for size, one in taken.items():
                samples[Cell(setup, size)].append(one)
    return samples


def _some(samples: dict[Cell, list[Taken]]) -> None:
    """Refuse to report nothing."""
    if not any(one.slices for taken in samples.values() for one in taken):
        cell, taken = next(iter(samples.items()))
        raise CnnbenchError(f"no cell could be measured; {cell.name}: {taken[0].failed}", Exit.ENVIRONMENT)


def _outcomes(
    chosen: Sequence[scenarios.Scenario],
    samples: dict[Cell, list[Taken]],
    seconds: float,
    server_p99_ms: float | None,
    seed: int,
) -> list[scenarios.Outcome]:
    calls: dict[Setup, dict[int, Sequence[float]]] = {}
    for cell, taken in samples.items():
        calls.setdefault(cell.setup, {})[cell.batch] = [call for one in taken for call in one.seconds]
    outcomes = []
    for setup, by_batch in calls.items():
        if "SingleStream" in chosen:
            outcomes.append(scenarios.single_stream(setup, by_batch[1], sum(by_batch[1])))
        if "Offline" in chosen:
            outcomes.append(scenarios.offline(setup, by_batch))
        if "Server" in chosen:
            assert server_p99_ms is not None  # the plan saw to that
            _say(f"Server: {setup.task} {setup.name}")
            outcomes.append(scenarios.server(setup, server_p99_ms / 1e3, SERVER_BUDGETS * seconds, seed))
    return outcomes


def _against(
    candidates: Sequence[Setup],
    baselines: Sequence[Setup],
    batches: Sequence[int],
    seconds: float,
    seed: int,
    format: Format,
) -> int:
    verdicts = regression.gate(candidates, baselines, batches, seconds, seed, _say)
    if format == "json":
        print(json.dumps([asdict(verdict) for verdict in verdicts], indent=2, allow_nan=False))
    else:
        for verdict in verdicts:
            print(verdict.answer)
    return Exit.REGRESSION if any(verdict.regression for verdict in verdicts) else Exit.OK


def against_file(new: Path, old: Path, format: TableFormat) -> int:
    """Print one record against an older one of the same machine; exit 5 where a cell became slower.

    Raises:
        CnnbenchError: See `regression.baseline`.
    """
    judged = regression.baseline(new, old)
    render("Against the baseline", BASELINE_COLUMNS, judged.rows, format)
    for note in judged.notes:
        _say(f"another version: {note}")
    return Exit.REGRESSION if judged.regression else Exit.OK


def _print(samples: dict[Cell, list[Taken]], outcomes: Sequence[scenarios.Outcome], format: Format) -> None:
    rows = [{**_row(cell, taken), **_against_torch(samples, cell)} for cell, taken in samples.items()]
    if format == "json":
        print(
            json.dumps({"latencies": rows, "scenarios": [asdict(one) for one in outcomes]}, indent=2, allow_nan=False)
        )
    elif format == "gha":
        print(json.dumps([_gha(row) for row in rows if row["p50_ms"] is not None], indent=2, allow_nan=False))
    else:
        _render("Latency of one call", COLUMNS, rows, format)
        if outcomes:
            print()
            _render("Scenarios", OUTCOME_COLUMNS, [asdict(one) for one in outcomes], format)


def _render(
    title: str, columns: list[Column], rows: list[dict[str, Any]], format: Literal["table", "markdown", "csv"]
) -> None:
    """A table; people are spared the columns that say nothing."""
    said = [column for column in columns if any(row[column.key] not in (None, "") for row in rows)]
    render(title, PLAIN_COLUMNS if format == "csv" and columns is COLUMNS else said, rows, format)


def _row(cell: Cell, taken: Sequence[Taken]) -> dict[str, Any]:
    """Percentiles in ms with their intervals; null where `reason` says why."""
    setup, seconds = cell.setup, [call for one in taken for call in one.seconds]
    row: dict[str, Any] = {
        "name": cell.name,
        "task": setup.task,
        "runtime": setup.runtime,
        "precision": setup.precision,
        "provider": setup.provider,
        "batch": cell.batch,
        "threads": setup.threads,
        "samples": len(seconds),
    }
    reasons = [one.failed for one in taken if one.failed]
    for percent in PERCENTS:
        found = percentile(seconds, percent, sum(seconds))
        row[f"p{percent}_ms"] = _ms(found.seconds)
        row[f"p{percent}_low_ms"], row[f"p{percent}_high_ms"] = _ms(found.low_seconds), _ms(found.high_seconds)
        reasons += [found.reason] if found.reason and seconds else []
    starts = [one.cold_start.total_ms for one in taken if one.cold_start]
    device = sorted(call for one in taken for call in one.device_seconds)
    return {
        **row,
        "cold_start_ms": sum(starts) / len(starts) if starts else None,
        "device_p50_ms": _ms(percentile(device, 50, sum(device)).seconds),
        "reason": "; ".join(dict.fromkeys(reasons)),
    }


def torch_ratios(samples: Mapping[Cell, Sequence[Taken]], cell: Cell) -> list[float]:
    """How many times as fast as torch eager a cell is, in each round that both have: by medians of their slices."""
    eager = samples.get(Cell(replace(cell.setup, runtime="torch", precision="fp32"), cell.batch), ())
    return [
        float(np.median(theirs) / np.median(ours))
        for one, other in zip(samples[cell], eager, strict=False)
        for ours, theirs in zip(one.slices, other.slices, strict=False)
    ]


def _against_torch(samples: Mapping[Cell, Sequence[Taken]], cell: Cell) -> dict[str, Any]:
    ratios = torch_ratios(samples, cell)
    if not ratios or cell.setup.runtime == "torch":
        return dict.fromkeys(("torch_ratio", "torch_ratio_low", "torch_ratio_high", "torch_ratio_told"))
    middle, low, high = float(np.median(ratios)), min(ratios), max(ratios)
    told = f"{middle:.2f} ({low:.2f} to {high:.2f})"
    return {"torch_ratio": middle, "torch_ratio_low": low, "torch_ratio_high": high, "torch_ratio_told": told}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def _gha(row: dict[str, Any]) -> dict[str, Any]:
    others = (f"p{percent} {row[f'p{percent}_ms']:.4f} ms" for percent in (90, 99) if row[f"p{percent}_ms"] is not None)
    return {
        "name": f"{row['name']} p50",
        "unit": "ms",
        "value": row["p50_ms"],
        "range": f"{row['p50_low_ms']:.4f} to {row['p50_high_ms']:.4f}",
        "extra": ", ".join([f"{row['samples']} samples", *others]),
    }


BASELINE_HEADINGS = ("task", "engine", "precision", "provider", "batch", "threads")


def _column(percent: int) -> Column:
    return Column(f"p{percent}_ms", f"p{percent}, ms", "{:.3f}".format, right=True)


COLUMNS = [
    Column("task", "task"),
    Column("runtime", "engine"),
    Column("precision", "precision"),
    Column("provider", "provider"),
    Column("threads", "threads", right=True),
    Column("batch", "batch", right=True),
    _column(50),
    Column("p50_low_ms", "from", "{:.3f}".format, right=True),
    Column("p50_high_ms", "to (95 %)", "{:.3f}".format, right=True),
    _column(90),
    _column(99),
    Column("device_p50_ms", "device p50, ms", "{:.3f}".format, right=True),
    Column("torch_ratio_told", "times as fast as torch: median (range) of rounds", right=True),
    Column("samples", "samples", "{:,}".format, right=True),
    Column("cold_start_ms", "cold start, ms", "{:,.0f}".format, right=True),
    Column("reason", "what is missing, and why"),
]
BASELINE_COLUMNS = [
    *(Column(key, heading) for key, heading in zip(regression.KEY, BASELINE_HEADINGS, strict=True)),
    Column("old_p50_ms", "baseline p50, ms", "{:.3f}".format, right=True),
    Column("new_p50_ms", "p50, ms", "{:.3f}".format, right=True),
    Column("ratio", "times the baseline", "{:.3f}".format, right=True),
    Column("noise", "noise between processes, %", lambda share: f"{100 * share:.1f}", right=True),
    Column("verdict", "verdict"),
]
PLAIN_COLUMNS = [
    Column(key, key)
    for key in (
        "name",
        "task",
        "runtime",
        "precision",
        "provider",
        "threads",
        "batch",
        "samples",
        *(f"p{percent}{end}_ms" for percent in PERCENTS for end in ("", "_low", "_high")),
        "device_p50_ms",
        "torch_ratio",
        "torch_ratio_low",
        "torch_ratio_high",
        "cold_start_ms",
        "reason",
    )
]
OUTCOME_COLUMNS = [
    Column("task", "task"),
    Column("engine", "engine"),
    Column("scenario", "scenario"),
    Column("value", "reached", "{:,.4g}".format, right=True),
    Column("unit", "unit"),
    Column("detail", "under"),
    Column("reason", "what is missing, and why"),
]


def _say(line: str) -> None:
    print(line, file=sys.stderr)
