"""Sections on latency, exported files, failed runs, and the machines behind the figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from cnnbench.bench.percentiles import PERCENTS, Percentile, percentile
from cnnbench.bench.record import LatencyCase, mixed
from cnnbench.page.charts import latency as charts
from cnnbench.page.charts.base import COLOURS, Point, shortened
from cnnbench.page.material import Material
from cnnbench.page.section import Block, LegendEntry, Picture, Section, Table
from cnnbench.records.bundle import ExportRecord, PrecisionFile
from cnnbench.records.schema import Environment
from cnnbench.tables.columns import Column
from cnnbench.tables.rows import LatencyKey
from cnnbench.tables.text import count, milliseconds, percent_digits, short_bytes

PANELS = 12
"""Pictures of latencies."""
STEPS = 160
"""Points of a curve; a picture cannot show more."""

Panel = tuple[str, int, int]
"""Task, batch size and threads: the cases of one picture."""


def latency(material: Material) -> Section | None:
    """How long calls take: one curve per case, and the percentiles with their intervals."""
    cases = material.records.latencies
    if not cases:
        return None
    backends = list(dict.fromkeys(sorted(map(_backend, cases))))
    panels: dict[Panel, list[LatencyCase]] = {}
    for case in cases:
        panels.setdefault((case.task, case.batch, case.threads), []).append(case)
    pictures = [_panel(panel, panels[panel], backends) for panel in sorted(panels)[:PANELS]]
    notes = [f"The first {PANELS} of {len(panels)} cases are drawn."] if len(panels) > PANELS else []
    legend = [LegendEntry(name, colour) for name, colour in zip(backends, COLOURS, strict=False)]
    lead = (
        "Every call that was timed. The steeper a curve, the steadier the latency; dots are the median, the 90th and "
        "the 99th percentile, given only where there are enough samples."
    )
    rows = [_percentiles(case) for case in cases]
    columns = [column for column in LATENCY if any(column.value(row) not in (None, "") for row in rows)]
    origin = mixed(cases)
    reasons = sorted({figure.reason.partition(",")[0] for case in cases for figure in _figures(case) if figure.reason})
    said = [
        *([f"A dash means too few calls: {', '.join(reasons)}."] if reasons else []),
        "Intervals assume independent calls: differences between processes and runs are not included.",
        *([f"{origin[0].upper()}{origin[1:]}."] if origin else []),
    ]
    blocks = [Block(notes=notes, legend=legend, pictures=pictures), Block(notes=said, table=Table(columns, rows))]
    return Section("latency", "Latency", lead, blocks)


def _backend(case: LatencyCase) -> str:
    """The backend with its precision and its provider, where they are not the usual ones."""
    precision = "" if case.precision == "fp32" else f", {case.precision}"
    return f"{case.backend}{precision}" + (f" on {case.provider}" if case.provider != "cpu" else "")


def _panel(panel: Panel, cases: Sequence[LatencyCase], backends: Sequence[str]) -> Picture:
    task, batch, threads = panel
    marks = [mark for case in cases for mark in _marks(case)]
    medians = [f"{mark['backend']} {milliseconds(mark['ms'])} ms" for mark in marks if mark["share"] == 0.5]
    return charts.latency(
        [point for case in cases for point in _curve(case)],
        marks,
        backends=backends,
        title=f"{shortened(task)}, {LatencyKey(batch=batch, threads=threads).setting}",
        caption=f"Medians: {', '.join(medians)}." if medians else "Too few samples for a median.",
    )


def _curve(case: LatencyCase) -> list[Point]:
    """The share of calls that took at most so long."""
    milliseconds = np.sort(case.seconds) * 1e3
    shares = np.linspace(0, 1, min(STEPS, len(milliseconds)))
    return [
        {"backend": _backend(case), "ms": float(value), "share": float(share)}
        for share, value in zip(shares, np.quantile(milliseconds, shares), strict=True)
    ]


def _marks(case: LatencyCase) -> list[Point]:
    """The percentiles for which there are enough samples."""
    return [
        {
            "backend": _backend(case),
            "ms": figure.seconds * 1e3,
            "share": figure.percent / 100,
            "label": f"p{figure.percent} {milliseconds(figure.seconds * 1e3)} ms",
        }
        for figure in _figures(case)
        if figure.seconds is not None
    ]


def _figures(case: LatencyCase) -> list[Percentile]:
    return [percentile(case.seconds, percent) for percent in PERCENTS]


def _percentiles(case: LatencyCase) -> dict[str, object]:
    """The row of a case; its keys are those of `LATENCY`."""
    row: dict[str, object] = {
        "task": case.task,
        "backend": _backend(case),
        "batch": case.batch,
        "threads": case.threads,
        "samples": case.calls,
    }
    for figure in _figures(case):
        row[f"p{figure.percent}"] = None if figure.seconds is None else figure.seconds * 1e3
        row[f"p{figure.percent}_interval"] = _interval(figure)
    return row


def _interval(figure: Percentile) -> str | None:
    if figure.low_seconds is None or figure.high_seconds is None:
        return None
    return f"{milliseconds(figure.low_seconds * 1e3)} to {milliseconds(figure.high_seconds * 1e3)}"


LATENCY = [
    Column("task", "task"),
    Column("backend", "backend"),
    Column("batch", "batch", right=True),
    Column("threads", "threads", right=True),
    *(
        column
        for percent in PERCENTS
        for column in (
            Column(f"p{percent}", f"p{percent}", milliseconds, unit="ms", right=True),
            Column(f"p{percent}_interval", f"95 % interval of p{percent}", right=True),
        )
    ),
    Column("samples", "calls", count, right=True),
]


@dataclass(frozen=True)
class FileRow:
    """One file of a bundle, or one that was refused. Figures are None where it was never run."""

    task: str
    seed: int
    precision: str
    verdict: str
    accuracy: float | None
    lost_points: float | None
    flips: int | None
    images: int
    max_abs_error: float | None
    bytes: int | None
    latency_ms: float | None
    reason: str


FILES = [
    Column("task", "bundle"),
    Column("seed", "seed", right=True),
    Column("precision", "precision"),
    Column("verdict", "verdict"),
    Column("accuracy", "test accuracy", percent_digits, unit="%", right=True),
    Column("lost_points", "points lost on validation", "{:.2f}".format, right=True),
    Column("flips", "images that flip", count, right=True),
    Column("images", "of", count, right=True),
    Column("max_abs_error", "largest logit error", "{:.1e}".format, right=True),
    Column("bytes", "size", short_bytes, right=True),
    Column("latency_ms", "1 image, 1 thread", milliseconds, unit="ms", right=True),
    Column("reason", "reason"),
]


def verdicts(material: Material) -> Section | None:
    """Every file of every bundle, kept or refused, and how it differs from PyTorch."""
    bundles = sorted(material.records.bundles, key=lambda bundle: bundle.task)
    if not bundles:
        return None
    checkpoints = {run.record.test.checkpoint_sha256 for run in material.records.runs if run.record.test}
    rows = [
        _file(bundle, file, of_these_runs=bundle.run.checkpoint_sha256 in checkpoints)
        for bundle in bundles
        for file in bundle.variants
    ]
    kept = sum(len(bundle.kept) for bundle in bundles)
    lead = (
        f"{kept} of {len(rows)} files were kept. At export, ONNX Runtime computed the whole test split with each, and "
        "every image was compared with PyTorch; `cnnbench verify --rescore` repeats this from disk."
    )
    return Section("verdicts", "Exported files", lead, [Block(table=Table(FILES, rows))], "Files")


def _file(bundle: ExportRecord, file: PrecisionFile, *, of_these_runs: bool) -> FileRow:
    passes = file.passes
    note = "" if of_these_runs else "of another training than the runs above"
    return FileRow(
        task=bundle.task,
        seed=bundle.seed,
        precision=file.precision,
        verdict="refused" if file.refused else "kept",
        accuracy=bundle.accuracy(file) if passes else None,
        lost_points=file.lost_points if passes else None,
        flips=sum(result.flips + result.rounding_flips for result in passes) if passes else None,
        images=bundle.reference.images,
        max_abs_error=max((result.max_abs_error for result in passes), default=None),
        bytes=file.bytes or None,
        latency_ms=file.latency_ms,
        reason=file.refused or note,
    )


def failures(material: Material) -> Section | None:
    """Runs without a result, with the reasons."""
    rows = sorted(material.records.failures, key=lambda failure: (failure.task, failure.seed))
    if not rows:
        return None
    columns = [
        Column("task", "task"),
        Column("seed", "seed", right=True),
        Column("reason", "reason", read=lambda failure: failure.explained),
        Column("code", "exit code", right=True),
        Column("seconds", "after", "{:.1f}".format, unit="s", right=True),
    ]
    lead = "Failed runs of a sweep; they are missing above."
    return Section("failures", "Failed runs", lead, [Block(table=Table(columns, rows))], "Failures")


@dataclass(frozen=True)
class Machine:
    """What times and figures depend on besides the code."""

    processor: str
    threads: int | None
    system: str
    python: str
    torch: str | None
    lightning: str | None
    onnxruntime: str | None
    precision: str | None
    commit: str | None

    @classmethod
    def of(cls, recorded: Environment) -> Machine:
        packages, git = recorded.packages, recorded.git
        return cls(
            processor=", ".join([f"{recorded.cpu}, {recorded.cpu_count} cores", *(recorded.gpus or ())]),
            threads=recorded.threads,
            system=recorded.platform,
            python=recorded.python,
            torch=packages.get("torch"),
            lightning=packages.get("lightning"),
            onnxruntime=packages.get("onnxruntime-gpu") or packages.get("onnxruntime"),
            precision=recorded.precision,
            commit=f"{git.commit[:10]}{' with changes' if git.dirty else ''}" if git else None,
        )


def environment(material: Material) -> Section:
    """Machines and versions of the runs; without runs, of the bundles."""
    recorded = [run.record.environment for run in material.records.runs]
    recorded = recorded or [bundle.environment for bundle in material.records.bundles]
    rows = [{"runs": number, **asdict(machine)} for machine, number in Counter(map(Machine.of, recorded)).most_common()]
    columns = [Column("runs", "runs", count, right=True), *(Column(key, key) for key in Machine.__annotations__)]
    shown = [column for column in columns if any(column.value(row) is not None for row in rows)]
    lead = "Where the runs were trained. Times compare within one row only."
    return Section("environment", "Machines and versions", lead, [Block(table=Table(shown, rows))], "Machines")
