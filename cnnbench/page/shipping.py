"""Sections on what ships and on what stands behind the figures: latency, verdicts, failures, environment."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np

from cnnbench.bench.percentiles import PERCENTS, percentile
from cnnbench.bench.record import LatencyCase
from cnnbench.page import charts
from cnnbench.page.charts import COLOURS, Picture, Point
from cnnbench.page.parts import Block, Material, Section, Table
from cnnbench.records.schema import Environment, Manifest, PrecisionFile
from cnnbench.tables.columns import Column
from cnnbench.tables.rows import LatencyKey
from cnnbench.tables.text import percent_digits, short_bytes

PANELS = 12
STEPS = 160  # points of a curve; a picture cannot show more


def latency(material: Material) -> Section | None:
    """How long calls take, every engine: a curve a case, and the percentiles with their intervals."""
    found = material.found.latencies
    if not found:
        return None
    engines = list(dict.fromkeys(_engine(case) for case in sorted(found, key=_engine)))
    panels: dict[tuple[str, int, int], list[LatencyCase]] = {}
    for case in found:
        panels.setdefault((case.task, case.batch, case.threads), []).append(case)
    pictures = [_latency(key, cases, engines) for key, cases in sorted(panels.items())[:PANELS]]
    notes = [f"The first {PANELS} of {len(panels)} cases are drawn."] if len(panels) > PANELS else []
    legend = list(zip(engines, COLOURS, ["circle"] * len(engines), strict=False))
    lead = (
        "Every call that was timed. A steep curve is a steady engine; dots are the median, the 90th and the 99th "
        "percentile, given only where there are samples enough to tell."
    )
    rows = [_percentiles(case) for case in found]
    table = Table([column for column in LATENCY if any(row[column.key] not in (None, "") for row in rows)], rows)
    return Section("latency", "How long a call takes", lead, [Block("", notes, legend, pictures), Block(table=table)])


def _engine(case: LatencyCase) -> str:
    precision = "" if case.precision == "fp32" else f", {case.precision}"
    return f"{case.backend}{precision}" + (f" on {case.provider}" if case.provider != "cpu" else "")


def _latency(key: tuple[str, int, int], cases: list[LatencyCase], engines: list[str]) -> Picture:
    task, batch, count = key
    points: list[Point] = []
    marks: list[Point] = []
    for case in cases:
        milliseconds = np.sort(case.seconds) * 1e3
        shares = np.linspace(0, 1, min(STEPS, len(milliseconds)))
        points += [
            {"engine": _engine(case), "ms": float(value), "share": float(share)}
            for share, value in zip(shares, np.quantile(milliseconds, shares), strict=True)
        ]
        for percent in PERCENTS:
            seconds = percentile(case.seconds, percent).seconds
            if seconds is not None:
                told = f"p{percent} {seconds * 1e3:.4g} ms"
                marks.append({"engine": _engine(case), "ms": seconds * 1e3, "share": percent / 100, "told": told})
    medians = [mark for mark in marks if mark["share"] == 0.5]
    caption = "Medians: " + ", ".join(f"{mark['engine']} {mark['ms']:.3g} ms" for mark in medians) + "."
    title = f"{charts.shortened(task)}, {LatencyKey(batch=batch, threads=count).setting}"
    return charts.latency(points, marks, engines, title, caption if medians else "Too few samples for a median.")


def _percentiles(case: LatencyCase) -> dict[str, Any]:
    found = [percentile(case.seconds, percent) for percent in PERCENTS]
    row: dict[str, Any] = {
        "task": case.task,
        "engine": _engine(case),
        "batch": case.batch,
        "threads": case.threads,
        "samples": len(case.seconds),
        "reason": "; ".join(each.reason for each in found if each.reason),
    }
    for each in found:
        row[f"p{each.percent}"] = None if each.seconds is None else each.seconds * 1e3
        if each.low_seconds is not None and each.high_seconds is not None:
            row[f"p{each.percent}_interval"] = f"{each.low_seconds * 1e3:.3f} to {each.high_seconds * 1e3:.3f}"
        else:
            row[f"p{each.percent}_interval"] = None
    return row


LATENCY = [
    Column("task", "task"),
    Column("engine", "engine"),
    Column("batch", "batch", right=True),
    Column("threads", "threads", right=True),
    *(
        column
        for percent in PERCENTS
        for column in (
            Column(f"p{percent}", f"p{percent}, ms", "{:.3f}".format, right=True),
            Column(f"p{percent}_interval", f"95 % interval of p{percent}", right=True),
        )
    ),
    Column("samples", "calls", "{:,}".format, right=True),
    Column("reason", "what is missing, and why"),
]


def verdicts(material: Material) -> Section | None:
    """Every file of every bundle, kept or refused, and how it held against PyTorch."""
    bundles = sorted(material.found.bundles, key=lambda bundle: bundle.task)
    if not bundles:
        return None
    ours = {run.record.test.checkpoint_sha256 for run in material.found.runs if run.record.test}
    rows = [_verdict(bundle, variant, ours) for bundle in bundles for variant in bundle.variants]
    kept = sum(len(bundle.kept) for bundle in bundles)
    lead = (
        f"{kept} of {len(rows)} files were kept. Each went over the whole test split in ONNX Runtime and was held "
        "against PyTorch, image by image, when it was exported; cnnbench verify proves it again from disk."
    )
    return Section("verdicts", "What ships", lead, [Block(table=Table(VERDICTS, rows))])


def _verdict(bundle: Manifest, variant: PrecisionFile, ours: set[str]) -> dict[str, Any]:
    passes = variant.passes
    return {
        "task": bundle.task,
        "seed": bundle.seed,
        "precision": variant.precision,
        "fate": "refused" if variant.refused else "kept",
        "accuracy": bundle.accuracy(variant) if passes else None,
        "flips": sum(each.flips + each.rounding_flips for each in passes) if passes else None,
        "images": bundle.reference.images,
        "error": max(each.max_abs_error for each in passes) if passes else None,
        "lost": variant.lost_points if passes else None,
        "bytes": variant.bytes or None,
        "latency": variant.latency_ms,
        "why": variant.refused
        or ("" if bundle.run.checkpoint_sha256 in ours else "of another training than the runs above"),
    }


VERDICTS = [
    Column("task", "bundle"),
    Column("seed", "seed", right=True),
    Column("precision", "precision"),
    Column("fate", "verdict"),
    Column("accuracy", "test accuracy, %", percent_digits, right=True),
    Column("lost", "points lost", "{:.2f}".format, right=True),
    Column("flips", "images that flip", "{:,}".format, right=True),
    Column("images", "of", "{:,}".format, right=True),
    Column("error", "largest logit error", "{:.1e}".format, right=True),
    Column("bytes", "size", short_bytes, right=True),
    Column("latency", "ms, 1 image, 1 thread", "{:.3f}".format, right=True),
    Column("why", "why"),
]


def failures(material: Material) -> Section | None:
    """Runs that gave no result, each with its reason."""
    if not material.found.failures:
        return None
    rows = [
        {
            "task": each.task,
            "arch": each.arch,
            "dataset": each.dataset,
            "seed": each.seed,
            "code": each.code,
            "seconds": each.seconds,
            "reason": each.reason,
        }
        for each in sorted(material.found.failures, key=lambda each: (each.task, each.seed))
    ]
    columns = [
        Column("task", "task"),
        Column("seed", "seed", right=True),
        Column("reason", "reason"),
        Column("code", "exit code", right=True),
        Column("seconds", "after, s", "{:.1f}".format, right=True),
    ]
    lead = "Runs that a sweep started and that gave no result: they are missing above, and this is why."
    return Section("failures", "What failed", lead, [Block(table=Table(columns, rows))])


def environment(material: Material) -> Section:
    """Machines and versions behind the runs."""
    known: Counter[str] = Counter()
    for run in material.found.runs:
        known[json.dumps(_environment(run.record.environment), sort_keys=True)] += 1
    for bundle in material.found.bundles if not material.found.runs else ():
        known[json.dumps(_environment(bundle.environment), sort_keys=True)] += 1
    rows = [{"runs": count, **json.loads(text)} for text, count in known.most_common()]
    columns = [
        Column("runs", "runs", "{:,}".format, right=True),
        *(
            Column(key, key)
            for key in (
                "processor",
                "threads",
                "system",
                "python",
                "torch",
                "lightning",
                "onnxruntime",
                "precision",
                "commit",
            )
        ),
    ]
    lead = "Where the runs were trained. Times compare within one row only."
    columns = [column for column in columns if any(row.get(column.key) is not None for row in rows)]
    return Section("environment", "Machines and versions", lead, [Block(table=Table(columns, rows))])


def _environment(recorded: Environment) -> dict[str, Any]:
    packages, git = recorded.packages, recorded.git
    gpus = ", ".join(recorded.gpus or ())
    cores = f"{recorded.cpu}, {recorded.cpu_count} cores"
    return {
        "processor": f"{cores}, {gpus}" if gpus else cores,
        "threads": recorded.threads,
        "system": recorded.platform,
        "python": recorded.python,
        "torch": packages.get("torch"),
        "lightning": packages.get("lightning"),
        "onnxruntime": packages.get("onnxruntime-gpu") or packages.get("onnxruntime"),
        "precision": recorded.precision,
        "commit": f"{git.commit[:10]}{' with changes' if git.dirty else ''}" if git else None,
    }
