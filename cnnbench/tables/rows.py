"""One row per group of runs that differ in their seed alone; `compare`, `choose` and `report` show the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Literal

import numpy as np

from cnnbench.bench.percentiles import PERCENTS, percentile
from cnnbench.bench.record import LatencyCase
from cnnbench.records.bundle import ExportRecord
from cnnbench.tables.by_class import with_classes
from cnnbench.tables.gather import Records, Run, class_names_of, groups, scored_predictions
from cnnbench.tables.text import interval, plural

if TYPE_CHECKING:
    from cnnbench.analysis.confidence import Predictions
    from cnnbench.analysis.statistics import Interval

Scope = Literal["images", "seeds", "seeds and images"]

UNBALANCED = 1.5
"""Times its equal share that the largest class of an unbalanced split has at least."""


@dataclass(frozen=True, order=True)
class LatencyKey:
    """What the latency of a network depends on besides the machine; the precision is fp32."""

    backend: str = "onnxruntime"
    provider: str = "cpu"
    batch: int = 1
    threads: int = 1

    @classmethod
    def of(cls, case: LatencyCase) -> LatencyKey:
        """Key of a timed case."""
        return cls(case.backend, case.provider, case.batch, case.threads)

    @property
    def place(self) -> str:
        """The backend in words, and the provider where it is not the CPU."""
        return self.backend if self.provider == "cpu" else f"{self.backend} on {self.provider}"

    @property
    def setting(self) -> str:
        """Batch size and threads in words."""
        return f"batch {self.batch}, {plural(self.threads, 'thread')}"

    def column(self, percent: int) -> str:
        """Key of a percentile in CSV and JSON, such as `onnxruntime_batch1_threads1_p50_ms`."""
        place = self.backend if self.provider == "cpu" else f"{self.backend}_{self.provider}"
        return f"{place}_batch{self.batch}_threads{self.threads}_p{percent}_ms"


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds of one call; None where there are too few samples for the percentile."""

    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Percentiles:
        """Percentiles of the calls of a case, in ms."""
        figures = [percentile(seconds, percent).seconds for percent in PERCENTS]
        return cls(*(None if figure is None else figure * 1e3 for figure in figures))

    def at(self, percent: int) -> float | None:
        return {50: self.p50_ms, 90: self.p90_ms, 99: self.p99_ms}[percent]


@dataclass(frozen=True)
class TimeToTarget:
    """What training took until a validation accuracy was first reached, per seed that reached it."""

    target: float
    """Validation accuracy, a fraction."""
    runs: int
    """Runs of the group, those that did not reach it included."""
    seconds: tuple[float, ...]
    """Validation excluded."""
    epochs: tuple[int, ...]
    macs: tuple[float, ...]
    """Forward and backward passes; empty where a record does not have them."""

    unreached_seconds: tuple[float, ...] = ()
    """What the others had spent at their last validated epoch: they are censored."""
    unreached_epochs: tuple[int, ...] = ()
    unreached_macs: tuple[float, ...] = ()

    @property
    def seeds(self) -> int:
        """That reached it."""
        return len(self.seconds)

    def median(self, figure: Literal["seconds", "epochs", "macs"]) -> float | None:
        """Over all runs, where those that did not reach it count as later than all others; None where half did not."""
        from cnnbench.analysis.statistics import censored_median

        return censored_median(getattr(self, figure), self.runs - self.seeds)

    def most(self, figure: Literal["seconds", "epochs", "macs"]) -> float:
        """The most that any run spent."""
        return float(max((*getattr(self, figure), *getattr(self, f"unreached_{figure}"))))


@dataclass(frozen=True, kw_only=True)
class Row:
    """Every figure of one group of runs; None where it was not measured. Accuracies are fractions of 1.

    A task of which every run failed is a row too: it has failures and no figures.
    """

    task: str
    arch: str
    dataset: str
    accuracy: float | None = None
    """Mean over the seeds, on test images."""
    val_accuracy: float | None = None
    """Mean over the tested seeds, of the best checkpoint on validation images: what choices are made on."""
    accuracy_std: float | None = None
    accuracy_low: float | None = None
    """95 % interval; None with two seeds."""
    accuracy_high: float | None = None
    interval: str | None = None
    """Method of the interval."""
    interval_scope: Scope | None = None
    """What may be new where the interval holds: "images" alone with one seed, "seeds" alone where predictions are
    missing, else "seeds and images"."""
    accuracies: tuple[float, ...] = ()
    """By seed."""
    majority: float | None = None
    """Share of the largest class among the test images: the accuracy of always answering it."""
    majority_class: str | None = None
    balanced_accuracy: float | None = None
    """Mean recall of the classes: mean over the seeds."""
    macro_f1: float | None = None
    """Mean over the seeds."""
    lowest_recall: float | None = None
    """Recall of the class with the lowest: mean over the seeds."""
    lowest_recall_class: str | None = None
    seeds: int = 0
    """That were tested."""
    failures: tuple[str, ...] = ()
    """Seed and reason of each run without a result."""
    train_images: int | None = None
    class_weights: str | None = None
    """The rule; None where all images count alike."""
    augment: str | None = None
    """What is done to training images at random."""
    test_images: int | None = None
    epochs: int | None = None
    params: int | None = None
    fc_weights: int | None = None
    """Weights that fully connected layers would need instead of its convolutions."""
    macs: int | None = None
    form: str | None = None
    """How it was counted, where that is not the form that it was trained in."""
    """Multiply-adds for one image."""
    weight_bytes: int | None = None
    activation_bytes: int | None = None
    train_seconds: float | None = None
    """Mean over the seeds."""
    memory_bytes: int | None = None
    """Peak memory of training: the largest over the seeds."""
    memory_kind: str | None = None
    energy_joules: float | None = None
    """Energy of training: mean over the seeds."""
    energy_kind: str | None = None
    ece: float | None = None
    """Expected calibration error: mean over the seeds whose predictions are kept."""
    ece_low: float | None = None
    """95 % interval for new images: means over the seeds of the ends of each."""
    ece_high: float | None = None
    ece_null: float | None = None
    """What a calibrated network exceeds in 5 %: mean over the seeds."""
    shift_mean: float | None = None
    """Accuracy on shifted images: mean over shifts and seeds."""
    shift_worst: float | None = None
    """Accuracy at the worst shift of each seed: mean over the seeds."""
    equivariance_error: float | None = None
    """Relative error of feature maps at a shift of 1 pixel: mean over the seeds."""
    time_to_target: TimeToTarget | None = None
    model_bytes: int | None = None
    """Size of the bundle's fp32 ONNX file."""
    verdict: str | None = None
    """What the bundle's manifest says of its fp32 file; `verify` checks it."""
    latencies: Mapping[LatencyKey, Percentiles] = field(default_factory=dict)
    """Latencies of the bundle's fp32 file."""
    runs: Sequence[Run] = field(default=(), repr=False, compare=False)
    """That it was made from."""
    bundle: ExportRecord | None = field(default=None, repr=False, compare=False)
    """That it was made from, where the run of a bundle is not here."""

    @property
    def tested(self) -> list[Run]:
        """Its tested runs."""
        return [run for run in self.runs if run.record.test]

    @property
    def images_sha256(self) -> str | None:
        """SHA-256 of the images of all splits, see `DataRecord`; None where every run failed."""
        source = self.runs[0].record if self.runs else self.bundle
        return source.data.sha256 if source else None

    @property
    def checkpoints(self) -> set[str]:
        """Hashes of its tested checkpoints."""
        tests = {run.record.test.checkpoint_sha256 for run in self.runs if run.record.test}
        return tests | ({self.bundle.run.checkpoint_sha256} if self.bundle else set())

    @property
    def accuracy_spread(self) -> str:
        """The 95 % interval of the accuracy in words, with what it leaves out; or why there is none."""
        if self.accuracy_low is None or self.accuracy_high is None:
            return "too few seeds" if self.seeds else "not tested"
        bounds = interval(self.accuracy_low, self.accuracy_high)
        return bounds + {"images": ", this network alone", "seeds": ", over seeds alone"}.get(
            self.interval_scope or "", ""
        )

    @property
    def is_unbalanced(self) -> bool:
        """Whether the largest class has so many test images that plain accuracy flatters."""
        classes = self.runs[0].record.spec.num_classes if self.runs else 0
        return self.majority is not None and self.majority * classes > UNBALANCED

    def latency_ms(self, key: LatencyKey, percent: int) -> float | None:
        """A percentile of one call in milliseconds; None where it was not measured."""
        return self.latencies[key].at(percent) if key in self.latencies else None


def rows_of(gathered: Records, *, target: float | None = None) -> list[Row]:
    """One row per group and one per task of which no run succeeded; the most accurate of each dataset first.

    Args:
        gathered: All records.
        target: Validation accuracy for the time to accuracy, a fraction.
    """
    rows = [row_of(runs, gathered, target=target) for runs in groups(gathered)]
    succeeded = {row.task for row in rows}
    rows += [_failed_row(task, gathered) for task in sorted({f.task for f in gathered.failures} - succeeded)]
    return sorted(rows, key=lambda row: (row.dataset, row.train_images or float("inf"), -(row.accuracy or 0)))


def rows_of_bundles(gathered: Records) -> list[Row]:
    """One row per checkpoint of which there are bundles but no tested run: all that a shipped file tells of it."""
    tested = {run.record.test.checkpoint_sha256 for run in gathered.runs if run.record.test}
    alone = {each.run.checkpoint_sha256: each for each in gathered.bundles}
    return [_row_of_bundle(each, gathered) for key, each in sorted(alone.items()) if key not in tested]


def _row_of_bundle(bundle: ExportRecord, gathered: Records) -> Row:
    from cnnbench.analysis.statistics import proportion_interval

    accuracy, images = bundle.accuracy(bundle.kept[0]), bundle.reference.images
    ends = proportion_interval(accuracy, images)
    row = Row(
        task=bundle.task,
        arch=bundle.arch,
        dataset=bundle.data.name,
        bundle=bundle,
        accuracy=accuracy,
        val_accuracy=bundle.run.val_accuracy,
        accuracy_low=ends.low,
        accuracy_high=ends.high,
        interval=ends.method,
        interval_scope="images",
        accuracies=(accuracy,),
        seeds=1,
        train_images=bundle.data.train_images,
        augment=str(bundle.data.augment),
        test_images=images,
        epochs=bundle.run.epochs,
        params=bundle.cost.params,
        macs=bundle.cost.macs,
        form=bundle.cost.form or None,
        weight_bytes=bundle.cost.weight_bytes,
        activation_bytes=bundle.cost.activation_bytes,
    )
    return _with_bundle(row, bundle, gathered)


def row_of(runs: Sequence[Run], gathered: Records, *, target: float | None = None) -> Row:
    """Every figure of one group."""
    tested = [run for run in runs if run.record.test]
    predictions = [scored_predictions(run) for run in tested if run.predictions.exists()]
    row = _with_accuracy(_basic_row(runs, gathered), tested, predictions)
    row = with_classes(row, tested, names=class_names_of(runs[0].record, gathered))
    row = _with_behaviour(_with_training(row, runs), tested, predictions)
    row = _with_bundle(row, _bundle_of(tested, gathered), gathered)
    return row if target is None else replace(row, time_to_target=_time_to_target(runs, target))


def _time_to_target(runs: Sequence[Run], target: float) -> TimeToTarget:
    from cnnbench.analysis.statistics import time_to_accuracy

    spent = [time_to_accuracy(run.record.fit.curve, target, macs=run.record.training_macs) for run in runs]
    reached = [cost for cost in spent if cost]
    ends = [
        # the last epoch reaches 0: what the run had spent by then
        time_to_accuracy(run.record.fit.curve[-1:], 0.0, macs=run.record.training_macs)
        for run, cost in zip(runs, spent, strict=True)
        if not cost
    ]
    unreached = [cost for cost in ends if cost]
    counted = all(cost.macs is not None for cost in (*reached, *unreached))
    return TimeToTarget(
        target=target,
        runs=len(runs),
        seconds=tuple(cost.seconds for cost in reached),
        epochs=tuple(cost.epochs for cost in reached),
        macs=tuple(cost.macs or 0 for cost in reached) if counted else (),
        unreached_seconds=tuple(cost.seconds for cost in unreached),
        unreached_epochs=tuple(cost.epochs for cost in unreached),
        unreached_macs=tuple(cost.macs or 0 for cost in unreached) if counted else (),
    )


def other_images(rows: Sequence[Row]) -> str:
    """That some rows of one dataset do not compare, since they saw other images; empty where all saw the same."""
    by_images = {row.images_sha256: row for row in rows if row.images_sha256}
    if len(by_images) < 2:
        return ""
    tasks = " and ".join(sorted(row.task for row in by_images.values())[:2])
    name = next(iter(by_images.values())).dataset
    return f"{tasks} saw other images, or other splits of them, called {name}: their accuracies do not compare"


def latency_keys(gathered: Records) -> list[LatencyKey]:
    """Everything that a latency was measured on, fp32 or not."""
    return sorted({LatencyKey.of(case) for case in gathered.latencies})


def _basic_row(runs: Sequence[Run], gathered: Records) -> Row:
    """What was trained, and its cost by counting."""
    first = runs[0].record
    return Row(
        task=first.task,
        arch=first.arch,
        dataset=first.data.name,
        runs=runs,
        failures=_reasons(first.task, gathered),
        train_images=first.data.train_images,
        class_weights=first.config.model.class_weights,
        augment=str(first.data.augment),
        epochs=first.fit.epochs,
        params=first.cost.params,
        fc_weights=first.fc_weights,
        macs=first.cost.macs,
        form=first.cost.form or None,
        weight_bytes=first.cost.weight_bytes,
        activation_bytes=first.cost.activation_bytes,
    )


def _with_accuracy(row: Row, tested: Sequence[Run], predictions: Sequence[Predictions]) -> Row:
    """With its accuracy over the tested seeds, and the interval for as much as the records tell of."""
    from cnnbench.analysis.crossed import accuracy_interval
    from cnnbench.analysis.statistics import proportion_interval, summary

    tests = [run.record.test for run in tested if run.record.test]
    if not tests:
        return row
    over_seeds = summary([test.accuracy for test in tests], (0.0, 1.0))
    found: tuple[Interval | None, Scope]
    if len(tests) == 1:
        found = proportion_interval(over_seeds.mean, tests[0].images), "images"
    elif len(predictions) == len(tests):
        found = accuracy_interval(np.stack([seed.correct for seed in predictions])), "seeds and images"
    else:
        found = over_seeds.interval, "seeds"
    ends, scope = found
    return replace(
        row,
        accuracy=over_seeds.mean,
        val_accuracy=fmean(run.record.fit.val_accuracy for run in tested),
        accuracy_std=over_seeds.std,
        accuracy_low=ends.low if ends else None,
        accuracy_high=ends.high if ends else None,
        interval=ends.method if ends else None,
        interval_scope=scope if ends else None,
        accuracies=over_seeds.values,
        seeds=len(tests),
        test_images=tests[0].images,
    )


def _with_training(row: Row, runs: Sequence[Run]) -> Row:
    """With what training took from the machine."""
    resources = [run.record.fit.resources for run in runs]
    memory = [resource.memory_bytes for resource in resources if resource.memory_bytes is not None]
    energy = [resource.energy_joules for resource in resources if resource.energy_joules is not None]
    return replace(
        row,
        train_seconds=fmean(run.record.fit.train_seconds for run in runs),
        memory_bytes=max(memory, default=None),
        memory_kind=resources[0].memory_kind,
        energy_joules=fmean(energy) if energy else None,
        energy_kind=resources[0].energy_kind,
    )


def _with_behaviour(row: Row, tested: Sequence[Run], predictions: Sequence[Predictions]) -> Row:
    """With its calibration and its accuracy on shifted images."""
    from cnnbench.analysis.calibration import calibration_error

    errors = [calibration_error(seed.probabilities, seed.labels) for seed in predictions]
    shifted = [run.robustness for run in tested if run.robustness]
    moved = [seed.equivariance.errors[0] for seed in shifted if seed.equivariance]
    return replace(
        row,
        ece=fmean(seed.error for seed in errors) if errors else None,
        ece_low=fmean(seed.low for seed in errors) if errors else None,
        ece_high=fmean(seed.high for seed in errors) if errors else None,
        ece_null=fmean(seed.null_high for seed in errors) if errors else None,
        shift_mean=fmean(seed.mean for seed in shifted) if shifted else None,
        shift_worst=fmean(seed.worst for seed in shifted) if shifted else None,
        equivariance_error=fmean(moved) if moved else None,
    )


def _bundle_of(tested: Sequence[Run], gathered: Records) -> ExportRecord | None:
    """The bundle of one of the tested checkpoints: a bundle of an earlier training is not theirs."""
    checkpoints = {run.record.test.checkpoint_sha256 for run in tested if run.record.test}
    return next((gathered.bundles[place] for place in gathered.places_of(checkpoints)), None)


def _with_bundle(row: Row, bundle: ExportRecord | None, gathered: Records) -> Row:
    """With the size, the verdict and the latencies of the bundle's fp32 file."""
    if bundle is None:
        return row
    file, fp32 = bundle.files["model.onnx"], bundle.kept[0]
    flips = sum(result.flips + result.rounding_flips for result in fp32.passes)
    error = max(result.max_abs_error for result in fp32.passes)
    return replace(
        row,
        model_bytes=file.bytes,
        verdict=f"{flips} of {bundle.reference.images:,} images flip, largest logit error {error:.1e}",
        latencies={
            LatencyKey.of(case): Percentiles.of(case.seconds)
            for case in gathered.latencies_by_file.get(file.sha256, ())
            if case.precision == "fp32"
        },
    )


def _failed_row(task: str, gathered: Records) -> Row:
    """The row of a task without a result: reasons instead of figures."""
    first = gathered.failures_by_task[task][0]
    return Row(task=task, arch=first.arch, dataset=first.dataset, failures=_reasons(task, gathered))


def _reasons(task: str, gathered: Records) -> tuple[str, ...]:
    return tuple(f"seed {failure.seed}: {failure.explained}" for failure in gathered.failures_by_task.get(task, ()))
