"""`bench`: measure latency on every backend, and whether a bundle became slower than another."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from cnnbench import progress
from cnnbench.bench.measure import LatencyReport, LatencyRow, measure_latency
from cnnbench.bench.percentiles import PERCENTS
from cnnbench.bench.plan import DEFAULT_BACKENDS, LatencyOptions, Provider
from cnnbench.bench.regression import BundleComparison, compare_bundles, compare_records
from cnnbench.cli.hints import say_next
from cnnbench.cli.layout import Shown
from cnnbench.cli.table import Format as TableFormat
from cnnbench.cli.table import render
from cnnbench.cli.units import Duration, Milliseconds
from cnnbench.tables.columns import Column
from cnnbench.tables.text import milliseconds
from cnnbench.types import CnnbenchError, Exit

Format = Literal["table", "markdown", "csv", "json", "gha"]
BATCHES, THREADS, BACKENDS, PRECISIONS = [1, 8, 64], [1], list[str](DEFAULT_BACKENDS), ["fp32"]
SCENARIOS: list[str] = []


def bench(
    bundles: list[str],
    *,
    batch: list[int] = BATCHES,
    threads: list[int] = THREADS,
    backend: list[str] = BACKENDS,
    precision: list[str] = PRECISIONS,
    provider: Provider = "cpu",
    seconds: Duration = 5.0,
    processes: int = 2,
    scenario: list[str] = SCENARIOS,
    server_p99: Milliseconds | None = None,
    against: str | None = None,
    seed: int = 1,
    out: str | None = None,
    columns: Shown = "fit",
    format: Format = "table",
) -> int:
    """Measure latency: each backend in its own process, alternating, every sample kept.

    Args:
        bundles: Bundles, or folders of them; files, as in exports/*, are skipped.
        batch: Images per call, as 1,8,64.
        threads: Threads per process, as 1,2; the process is pinned to that many cores.
        backend: Any of torch, torch-compile, onnxruntime, openvino; torch-compile takes up to a minute to start.
        precision: Files of the bundles to measure, as fp32,int8; torch has fp32 only.
        provider: Where the network runs; on cuda images start and logits end in main memory.
        seconds: Measuring time, 5s or 5, per case (one backend at one batch size), over all its processes.
        processes: Fresh processes per case, so that differences between processes are measured.
        scenario: Also report MLPerf's scenarios, any of SingleStream, Offline, Server.
        server_p99: Server: limit of the 99th percentile of the time from arrival to answer.
        against: A baseline bundle: exits 5 if the one bundle given is slower in two measurements; "cannot tell" is 0.
            At least ten rounds per case, regardless of --seconds. Writes no record.
        seed: Seed of the order of measurements and of the arrivals.
        out: The record to write, in pytest-benchmark's format; by default latency.json beside the first bundle.
        columns: fit prints the columns that fit the terminal and names the others; all prints all.
        format: How to print; gha is what github-action-benchmark reads as customSmallerIsBetter.

    Examples:
        cnnbench bench exports
        cnnbench bench exports --batch 1,8,64 --backend torch,onnxruntime
        cnnbench bench exports/new --against exports/old   # exit code 5 if slower
    """
    options = LatencyOptions(
        backends=backend,
        precisions=precision,
        provider=provider,
        threads=threads,
        batches=batch,
        seconds=seconds,
        seed=seed,
    )
    if against is not None:
        if len(bundles) > 1 or scenario or out or format not in ("table", "json"):
            raise CnnbenchError("--against takes one bundle, no --scenario and no --out; --format table or json")
        with progress.display(None) as shown:
            comparisons = compare_bundles(bundles[0], against, options=options, progress=shown.step)
        return _print_comparison(comparisons, format)
    with progress.display(None) as shown:
        report = measure_latency(
            bundles,
            options=options,
            processes=processes,
            scenarios=scenario,
            server_p99_ms=server_p99,
            out=out,
            progress=shown.step,
        )
    code = _print_report(report, shown=columns, format=format)
    say_next("choose", "runs", *bundles, report.record, format=format)
    return code


def _print_comparison(comparisons: Sequence[BundleComparison], format: Format) -> int:
    if format == "json":
        _print_json([asdict(comparison) for comparison in comparisons])
    else:
        for comparison in comparisons:
            print(comparison.answer)
    return Exit.REGRESSION if any(comparison.regression for comparison in comparisons) else Exit.OK


def print_record_comparison(new: Path, old: Path, *, shown: Shown = "all", format: TableFormat) -> int:
    """Print how the cases of a record differ from an older one of the same machine; exit 5 where one became slower.

    Raises:
        CnnbenchError: See `regression.compare_records`.
    """
    comparison = compare_records(new, old)
    render(BASELINE_COLUMNS, comparison.rows, title="Against the baseline", format=format, shown=shown)
    for note in comparison.notes:
        _progress(f"another version: {note}")
    return Exit.REGRESSION if comparison.regression else Exit.OK


def _print_report(report: LatencyReport, *, shown: Shown, format: Format) -> int:
    if format == "json":
        rows, scenarios = ([asdict(part) for part in parts] for parts in (report.rows, report.scenarios))
        _print_json({"latencies": rows, "scenarios": scenarios})
    elif format == "gha":
        _print_json([_gha(row) for row in report.rows if row.p50_ms is not None])
    else:
        _render(
            "Latency of one call; intervals take calls as independent",
            PLAIN_COLUMNS if format == "csv" else COLUMNS,
            report.rows,
            shown=shown,
            format=format,
        )
        if report.scenarios:
            print()
            _render("Scenarios", SCENARIO_COLUMNS, report.scenarios, shown=shown, format=format)
    _progress(f"every sample: {report.record}")
    return Exit.OK


def _print_json(content: object) -> None:
    print(json.dumps(content, indent=2, allow_nan=False))


def _render(
    title: str, columns: Sequence[Column], rows: Sequence[object], *, shown: Shown, format: TableFormat
) -> None:
    """A table; people do not see empty columns."""
    if columns is not PLAIN_COLUMNS:
        columns = [column for column in columns if any(column.value(row) not in (None, "") for row in rows)]
    render(columns, rows, title=title, format=format, shown=shown)


def _torch_ratio(row: LatencyRow) -> str | None:
    if row.torch_ratio is None:
        return None
    return f"{row.torch_ratio:.2f} ({row.torch_ratio_low:.2f} to {row.torch_ratio_high:.2f})"


def _gha(row: LatencyRow) -> dict[str, Any]:
    others = (
        f"p{percent} {value:.4f} ms" for percent, value in ((90, row.p90_ms), (99, row.p99_ms)) if value is not None
    )
    return {
        "name": f"{row.name} p50",
        "unit": "ms",
        "value": row.p50_ms,
        "range": f"{row.p50_low_ms:.4f} to {row.p50_high_ms:.4f}",
        "extra": ", ".join([f"{row.samples} samples", *others]),
    }


def _milliseconds(key: str, heading: str, unit: str = "ms", *, priority: int = 5) -> Column:
    return Column(key, heading, milliseconds, unit=unit, right=True, priority=priority)


SETUP_COLUMNS = [
    Column("task", "task"),
    Column("backend", "backend", priority=9),
    Column("precision", "precision", priority=8),
    Column("provider", "provider", priority=4),
]
COLUMNS = [
    *SETUP_COLUMNS,
    Column("threads", "threads", right=True, priority=6),
    Column("batch", "batch", right=True, priority=8),
    _milliseconds("p50_ms", "p50", priority=9),
    _milliseconds("p50_low_ms", "from", unit=""),
    _milliseconds("p50_high_ms", "to (95 %)", unit=""),
    _milliseconds("p90_ms", "p90", priority=7),
    _milliseconds("p99_ms", "p99", priority=4),
    _milliseconds("device_p50_ms", "device p50"),
    Column(
        "torch_ratio",
        "times as fast as torch: median (range) of rounds",
        right=True,
        read=_torch_ratio,
        short="x torch",
    ),
    Column("samples", "samples", "{:,}".format, right=True, priority=2),
    Column("cold_start_ms", "cold start", "{:,.0f}".format, unit="ms", right=True, priority=2),
    Column("reason", "what is missing, and why"),
]
BASELINE_COLUMNS = [
    *SETUP_COLUMNS,
    Column("batch", "batch"),
    Column("threads", "threads"),
    _milliseconds("old_p50_ms", "baseline p50"),
    _milliseconds("new_p50_ms", "p50"),
    Column("ratio", "times the baseline", "{:.3f}".format, right=True, short="ratio", priority=9),
    Column("low", "95 % interval between processes from", "{:.3f}".format, right=True, short="from"),
    Column("high", "to", "{:.3f}".format, right=True),
    Column("smallest_seen", "slowdown that would be seen", "{:.2f}".format, unit="x", right=True, short="seen from"),
    Column("answer", "answer", priority=9),
]
PLAIN_COLUMNS = [
    Column(key, key)
    for key in (
        "name",
        "task",
        "backend",
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
SCENARIO_COLUMNS = [
    Column("task", "task"),
    Column("setup", "setup"),
    Column("scenario", "scenario"),
    Column("value", "reached", "{:,.4g}".format, right=True),
    Column("unit", "unit"),
    Column("detail", "under"),
    Column("reason", "what is missing, and why"),
]


def _progress(line: str) -> None:
    print(line, file=sys.stderr)
