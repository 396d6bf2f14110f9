"""What lies below some folders, joined: one row for all runs that differ in their seed alone.

`compare`, `choose` and `report` show the same rows; every figure of a row is computed here.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from cnnbench import records
from cnnbench.records.schema import Failure, Manifest, Robustness, RunRecord
from cnnbench.types import CnnbenchError, Exit

if TYPE_CHECKING:
    from cnnbench.analysis.confidence import Predictions

Case = tuple[str, int, int]
"""What a latency was measured on: runtime, batch size, threads."""

NAMES = ("result.json", "failure.json", "manifest.json", "robustness.json")
"""Files that are read where they are found; measured latencies are any *.json that pytest-benchmark wrote."""


@dataclass(frozen=True)
class Run:
    """One run: its record, its folder, and what was measured on it afterwards."""

    record: RunRecord
    folder: Path
    robustness: Robustness | None = None

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions.parquet"


@dataclass
class Found:
    """Every record below the given paths."""

    runs: list[Run] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    bundles: list[Manifest] = field(default_factory=list)
    latencies: list[dict[str, Any]] = field(default_factory=list)


def gather(paths: list[str]) -> Found:
    """Read every record below `paths`.

    Raises:
        CnnbenchError: A path does not exist, a record cannot be read, or there is nothing at all (exit 3).
    """
    found = Found()
    seen: set[Path] = set()  # paths may overlap, and a run counts once
    for path in (Path(name) for name in paths):
        if not path.exists():
            raise CnnbenchError(
                f"{path} does not exist; expected a folder of runs or bundles, or a latency file", Exit.DATA
            )
        for file in files_below(path):
            if file.resolve() in seen:
                continue
            if file != path and _foreign(file):
                print(f"passed over: {file} is not a record of cnnbench's", file=sys.stderr)
                continue
            seen.add(file.resolve())
            _take(file, found)
    if not found.runs and not found.bundles and not found.failures:
        raise CnnbenchError(nothing(paths), Exit.DATA)
    return found


def nothing(paths: list[str]) -> str:
    """Words for no results."""
    return f"no results below {', '.join(paths)}; `cnnbench fit` and `test`, or `sweep`, make them"


def _take(file: Path, found: Found) -> None:
    if file.name == "result.json":
        found.runs.append(_run(file))
    elif file.name == "failure.json":
        if not (file.parent / "result.json").is_file():
            found.failures.append(records.read(file, Failure))
    elif file.name == "manifest.json":
        found.bundles.append(records.read(file, Manifest))
    elif file.name != "robustness.json":  # read with its run
        found.latencies += _latencies(file)


def _run(file: Path) -> Run:
    """A run with what was measured on this very checkpoint of it."""
    record = records.read(file, RunRecord)
    measured = file.with_name("robustness.json")
    robustness = records.read(measured, Robustness) if measured.is_file() else None
    if robustness and (record.test is None or robustness.checkpoint_sha256 != record.test.checkpoint_sha256):
        robustness = None
    return Run(record, file.parent, robustness)


def _foreign(file: Path) -> bool:
    """Whether a file that was found, not named, is somebody else's under one of our names."""
    content = records.read_json(file)
    return "benchmarks" not in content and not str(content.get("schema")).startswith("cnnbench.")


def files_below(path: Path) -> Iterator[Path]:
    """The records below a folder by their names, or the file itself."""
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*.json")):
        hidden = any(part.startswith(".") or part.endswith(".replaced") for part in file.relative_to(path).parts)
        if not hidden and (file.name in NAMES or file.name.startswith("latency")):
            yield file


def _latencies(file: Path) -> list[dict[str, Any]]:
    """What was measured: one dict a case, its raw times in `seconds`."""
    content = records.read_json(file)
    cases = [
        case
        for case in content.get("benchmarks", [])
        if {"model_sha256", "batch", "threads"} <= case.get("extra_info", {}).keys() and case["stats"].get("data")
    ]
    if not cases:
        raise CnnbenchError(f"{file} holds no latencies; expected what `cnnbench bench` wrote", Exit.DATA)
    return [
        {
            "precision": "fp32",
            **case["extra_info"],
            "runtime": _engine(case["extra_info"]),
            "seconds": case["stats"]["data"],
        }
        for case in cases
    ]


def _engine(case: dict[str, Any]) -> str:
    """The runtime, and the provider where it is not the CPU: their latencies are not one figure."""
    provider = case.get("provider", "cpu")
    backend = case.get("backend") or case["runtime"]
    return str(backend if provider == "cpu" else f"{backend}_{provider}")


def groups(found: Found) -> list[list[Run]]:
    """Runs that differ in their seed alone, by seed: another architecture, recipe or set of images is another group."""
    made: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in sorted(found.runs, key=lambda run: run.record.seed):
        record, trainer = run.record, run.record.config.trainer
        recipe = {
            "arch": record.arch,
            "model": msgspec.to_builtins(record.config.model),
            "images": record.data.sha256,
            "train_images": record.data.train_images,
            "batch_size": record.config.data.batch_size,
            "precision": record.environment.precision,  # what `auto` came to on its machine
            **{key: trainer.get(key) for key in ("max_epochs", "max_steps", "limit_train_batches")},
        }
        mine = made[record.task, json.dumps(recipe, sort_keys=True)]
        if not (mine and _same_seed(mine[-1], run)):
            mine.append(run)
    return list(made.values())


def _same_seed(one: Run, other: Run) -> bool:
    """Whether `other` is `one` again, in another folder: a seed counts once."""
    if one.record.seed != other.record.seed:
        return False
    if one.record.test != other.record.test:
        raise CnnbenchError(
            f"{one.folder} and {other.folder} are both seed {one.record.seed} of {one.record.task}, "
            "with other results: give one of them",
            Exit.DATA,
        )
    return True


def whole(known: list[list[Run]]) -> list[list[Run]]:
    """Of the groups of each dataset those that were trained on the most images of it, which is what compares."""
    most: dict[str, int] = {}
    for runs in known:
        data = runs[0].record.data
        most[data.name] = max(most.get(data.name, 0), data.train_images)
    return [runs for runs in known if runs[0].record.data.train_images == most[runs[0].record.data.name]]


def rows(found: Found, target: float | None = None) -> list[dict[str, Any]]:
    """One row a group, the most accurate of each dataset first, then one a task of which no run succeeded.

    Args:
        found: All records.
        target: Validation accuracy for the time to accuracy, a fraction.
    """
    made = [row(runs, found, target) for runs in groups(found)]
    known = {row["task"] for row in made}
    made += [_failed(task, found.failures) for task in sorted({f.task for f in found.failures} - known)]
    made.sort(key=lambda row: (row["dataset"], row["train_images"] or float("inf"), -(row["accuracy"] or 0)))
    return made


def row(runs: list[Run], found: Found, target: float | None = None) -> dict[str, Any]:
    """Every figure of one group. A figure that nothing measured is None."""
    from cnnbench.analysis.statistics import summary

    first = runs[0].record
    tested = [run for run in runs if run.record.test]
    accuracies = [run.record.test.accuracy for run in tested if run.record.test]
    over_seeds = summary(accuracies, (0.0, 1.0)) if accuracies else None
    interval = over_seeds.interval if over_seeds else None
    checkpoints = {run.record.test.checkpoint_sha256 for run in tested if run.record.test}
    # a bundle of an earlier run is not theirs
    bundle = next((b for b in found.bundles if b.run.checkpoint_sha256 in checkpoints), None)
    return {
        "task": first.task,
        "arch": first.arch,
        "dataset": first.data.name,
        "accuracy": over_seeds.mean if over_seeds else None,
        "accuracy_std": over_seeds.std if over_seeds else None,
        "accuracy_low": interval.low if interval else None,
        "accuracy_high": interval.high if interval else None,
        "interval": interval.method if interval else None,
        "accuracies": accuracies,
        "seeds": len(accuracies),
        "failures": [f"seed {f.seed}: {f.reason}" for f in found.failures if f.task == first.task],
        "train_images": first.data.train_images,
        "test_images": next((run.record.test.images for run in tested if run.record.test), None),
        "epochs": first.fit.epochs,
        **_cost(runs),
        **_confidence(tested),
        **_shifted(tested),
        **(_time_to(runs, target) if target is not None else {}),
        "model_bytes": bundle.files["model.onnx"].bytes if bundle else None,
        "verdict": _verdict(bundle),
        **(_latency_cells(bundle, found.latencies) if bundle else {}),
    }


def _cost(runs: list[Run]) -> dict[str, Any]:
    """What the network costs by counting, and what training it took, over the seeds."""
    first = runs[0].record
    taken = [run.record.fit.resources for run in runs]
    memory = [each.memory_bytes for each in taken if each.memory_bytes is not None]
    energy = [each.energy_joules for each in taken if each.energy_joules is not None]
    return {
        "params": first.cost.params,
        "fc_weights": first.fc_weights,
        "macs": first.cost.macs,
        "weight_bytes": first.cost.weight_bytes,
        "activation_bytes": first.cost.activation_bytes,
        "train_seconds": fmean(run.record.fit.train_seconds for run in runs),
        "memory_bytes": max(memory) if memory else None,
        "memory_kind": taken[0].memory_kind,
        "energy_joules": fmean(energy) if energy else None,
        "energy_kind": taken[0].energy_kind,
    }


def _confidence(tested: list[Run]) -> dict[str, Any]:
    """Expected calibration error, mean over the seeds whose predictions are there."""
    from cnnbench.analysis.confidence import expected_calibration_error

    read = [scored(run) for run in tested if run.predictions.is_file()]
    errors = [expected_calibration_error(each.probabilities, each.labels) for each in read]
    return {"ece": fmean(errors) if errors else None}


def _shifted(tested: list[Run]) -> dict[str, Any]:
    """Accuracy under shifts, mean over the seeds that were measured; worst is the mean of each seed's worst."""
    measured = [run.robustness for run in tested if run.robustness]
    moving = [each.equivariance.errors[0] for each in measured if each.equivariance]
    return {
        "shift_mean": fmean(each.mean for each in measured) if measured else None,
        "shift_worst": fmean(each.worst for each in measured) if measured else None,
        "equivariance_error": fmean(moving) if moving else None,
    }


def _time_to(runs: list[Run], target: float) -> dict[str, Any]:
    """What it took to reach `target` on validation images, in each seed that did."""
    from cnnbench.analysis.statistics import time_to_accuracy

    spent = [time_to_accuracy(run.record.fit.curve, target, macs=run.record.cost.macs) for run in runs]
    reached = [each for each in spent if each]
    return {
        "target": target,
        "target_seeds": len(reached),
        "target_of": len(runs),
        "target_seconds": [each.seconds for each in reached],
        "target_epochs": [each.epochs for each in reached],
        "target_macs": [each.macs for each in reached],
    }


def _failed(task: str, failures: Sequence[Failure]) -> dict[str, Any]:
    """A row for a task without a single run: its reasons stand where its figures would."""
    mine = [failure for failure in failures if failure.task == task]
    return {
        "task": task,
        "arch": mine[0].arch,
        "dataset": mine[0].dataset,
        "accuracy": None,
        "accuracy_std": None,
        "accuracies": [],
        "seeds": 0,
        "train_images": None,
        "failures": [f"seed {f.seed}: {f.reason}" for f in mine],
    }


def _verdict(bundle: Manifest | None) -> str | None:
    """What the bundle's manifest says of its fp32 file; `verify` proves it."""
    if bundle is None:
        return None
    flips = sum(each.flips + each.rounding_flips for each in bundle.kept[0].passes)
    error = max(each.max_abs_error for each in bundle.kept[0].passes)
    return f"{flips} of {bundle.reference.images:,} images flip, largest logit error {error:.1e}"


def _latency_cells(bundle: Manifest, latencies: list[dict[str, Any]]) -> dict[str, float | None]:
    """p50, p90 and p99 in ms of every case measured on this very file; None where there are too few samples."""
    from cnnbench.bench.percentiles import PERCENTS, percentile

    cells: dict[str, float | None] = {}
    for case in latencies:
        if case["model_sha256"] == bundle.files["model.onnx"].sha256 and case["precision"] == "fp32":
            for percent in PERCENTS:
                key = latency_key((case["runtime"], case["batch"], case["threads"]), percent)
                seconds = percentile(case["seconds"], percent).seconds
                cells[key] = None if seconds is None else seconds * 1e3
    return cells


def cases(found: Found) -> list[Case]:
    """Everything that a latency was measured on."""
    return sorted({(case["runtime"], case["batch"], case["threads"]) for case in found.latencies})


def latency_key(case: Case, percent: int) -> str:
    """Key of a latency in a row, in milliseconds."""
    runtime, batch, threads = case
    return f"{runtime}_batch{batch}_threads{threads}_p{percent}_ms"


def threads(case: Case) -> str:
    """The threads of a case in words."""
    return f"{case[2]} thread{'s' if case[2] > 1 else ''}"


def scored(run: Run) -> Predictions:
    """What a tested run's best checkpoint predicted.

    Raises:
        CnnbenchError: The predictions are missing or damaged, or not the ones that were scored (exit 3).
    """
    from cnnbench.analysis.confidence import read_predictions

    found = read_predictions(run.predictions)
    assert run.record.test is not None
    if (len(found.correct), int(found.correct.sum())) != (run.record.test.images, run.record.test.correct):
        raise CnnbenchError(f"{run.predictions} are not the predictions of {run.folder}/result.json", Exit.DATA)
    return found


def correct(run: Run) -> np.ndarray:
    """`(images,)` bool: which test images a tested run's best checkpoint got right. Raises as `scored`."""
    return scored(run).correct
