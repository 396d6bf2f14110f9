"""After the choice: the one test, the bundle and its latency; and how long all that takes, with the page."""

from __future__ import annotations

from pathlib import Path

from cnnbench.analysis.statistics import proportion_interval
from cnnbench.bench.measure import measure_latency
from cnnbench.bench.plan import LatencyOptions
from cnnbench.bundles.bundle import ExportOptions, export_run
from cnnbench.records.bundle import Precision
from cnnbench.records.schema import RunRecord
from cnnbench.shipping.contest import Contest
from cnnbench.shipping.files import Selection
from cnnbench.shipping.images import ShipImages, majority
from cnnbench.shipping.record import Chosen, Scored
from cnnbench.shipping.runs import Runs
from cnnbench.shipping.trial import Trial
from cnnbench.sweeps.environ import data_root
from cnnbench.sweeps.run import supervise
from cnnbench.sweeps.warm import Start
from cnnbench.types import CnnbenchError, Exit

BENCH_SECONDS = 2.0
TRIAL_SECONDS, EXPORT_SECONDS, OTHER_SECONDS = 8.0, 16.0, 14.0
"""Time for the files of a small network, its bundle, and test, latency and page, on two busy cores."""
TRIAL_PASSES, EXPORT_PASSES = 3_000, 30_000
"""Forward passes besides those over whole splits: calibration; golden images at many batch sizes, and float64."""


def seconds(arch: str, runs: Runs, *, images: ShipImages, files: int) -> float:
    """What everything after the race takes, roughly.

    Args:
        arch: That will be shipped.
        runs: Which know how fast it is.
        images: On which it is scored.
        files: Networks whose files are made.
    """
    val, test = len(images.data.val), len(images.data.test)
    passes = files * (TRIAL_PASSES + 10 * val) + EXPORT_PASSES + 4 * val + 8 * test
    fixed = files * TRIAL_SECONDS + EXPORT_SECONDS + OTHER_SECONDS
    return fixed * runs.slowness(arch) + passes * runs.seconds_per_image(arch, train_images=len(images.data.train))


def ship_file(
    selection: Selection, *, out: Path, runs: Runs, images: ShipImages, contest: Contest, start: Start
) -> Chosen:
    """Test the chosen run, once, export and verify it on the whole test split, and time it.

    Raises:
        CnnbenchError: The file is not the trained network, or is refused on the way (exit 4); the test failed.
    """
    candidate, trial = selection.choice.chosen, selection.trial
    assert candidate is not None
    assert candidate.val is not None
    assert trial is not None
    contest.begin(f"{candidate.name} is chosen; test: every test image, once")
    record = _tested(trial, runs, start)
    contest.begin(f"export and verification on {record.data.test_images:,} test images")
    precision: Precision = next(name for name in ("fp32", "fp16", "int8") if name == candidate.precision)
    manifest = export_run(
        runs.planned(trial).folder, out=out / "exports", options=ExportOptions(precisions=("fp32", precision))
    )
    bundle = out / "exports" / record.task
    kept = next((file for file in manifest.kept if file.precision == precision), None)
    if kept is None:
        refused = next(file.refused for file in manifest.variants if file.precision == precision)
        raise CnnbenchError(f"{bundle}: the {precision} file is refused: {refused}", Exit.VERDICT)
    contest.begin("latency")
    p50, p90 = _latency(bundle, precision, out=out, brief=contest.clock.left < OTHER_SECONDS)
    file = manifest.accuracy(kept)
    ends = proportion_interval(file, manifest.reference.images)
    largest, share = majority(images.data.test.labels, images.data.class_names)
    return Chosen(
        arch=record.arch,
        task=record.task,
        seed=record.seed,
        epochs=record.fit.epochs,
        run=str(Path(runs.planned(trial).folder).relative_to(out.resolve())),
        bundle=str(bundle.relative_to(out)),
        file=kept.file,
        precision=precision,
        bytes=kept.bytes,
        val=Scored(candidate.val.right, candidate.val.images),
        test=Scored(round(file * manifest.reference.images), manifest.reference.images),
        test_low=ends.low,
        test_high=ends.high,
        majority=largest,
        majority_share=share,
        p50_ms=p50,
        p90_ms=p90,
    )


def _tested(trial: Trial, runs: Runs, start: Start) -> RunRecord:
    outcome = supervise(runs.tested(trial), data_root=data_root(), start=start)
    if outcome.reason:
        raise CnnbenchError(f"the test of {outcome.task} seed {outcome.seed} failed: {outcome.reason}", Exit.DATA)
    return runs.record(trial)


def _latency(bundle: Path, precision: str, *, out: Path, brief: bool) -> tuple[float | None, float | None]:
    """50th and 90th percentile in ms of one call with one image, on one thread, in ONNX Runtime."""
    options = LatencyOptions(
        backends=("onnxruntime",),
        precisions=tuple(dict.fromkeys(("fp32", precision))),
        batches=(1,),
        seconds=BENCH_SECONDS / 4 if brief else BENCH_SECONDS,
    )
    report = measure_latency(bundle, options=options, out=out / "latency.json")
    row = next(row for row in report.rows if row.precision == precision)
    return row.p50_ms, row.p90_ms
