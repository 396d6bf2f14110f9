"""Every record below some folders, and the groups of runs that differ in their seed alone."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from cnnbench import records
from cnnbench.arguments import several
from cnnbench.bench import record as latency_record
from cnnbench.bench.record import LatencyCase
from cnnbench.bundles.manifest import read_export
from cnnbench.records.bundle import ExportRecord
from cnnbench.records.schema import ClassTally, Failure, Robustness, RunRecord
from cnnbench.training.folder import is_set_aside
from cnnbench.types import CnnbenchError, Exit

if TYPE_CHECKING:
    from cnnbench.analysis.confidence import Predictions

NAMES = ("result.json", "failure.json", "manifest.json", "robustness.json")
"""Files that are read wherever they lie below a folder; latencies are read from every latency*.json."""


@dataclass(frozen=True)
class Run:
    """One run: its record, its folder, and its robustness where it was measured."""

    record: RunRecord
    folder: Path
    robustness: Robustness | None = None

    @property
    def predictions(self) -> Path:
        """Predictions of the test images."""
        return self.folder / "predictions.parquet"

    @property
    def val_predictions(self) -> Path:
        """Predictions of the validation images."""
        return self.folder / "val_predictions.parquet"


@dataclass(frozen=True)
class Records:
    """Every record below the given paths."""

    runs: Sequence[Run] = ()
    failures: Sequence[Failure] = ()
    """Failures of runs that have no result."""
    bundles: Sequence[ExportRecord] = ()
    bundle_folders: Sequence[Path] = ()
    """Folders of `bundles`, in their order."""
    latencies: Sequence[LatencyCase] = ()

    @cached_property
    def failures_by_task(self) -> Mapping[str, Sequence[Failure]]:
        """Failures of each task."""
        return _by([(failure.task, failure) for failure in self.failures])

    @cached_property
    def latencies_by_file(self) -> Mapping[str, Sequence[LatencyCase]]:
        """Latencies by the hash of the bundle's float32 file."""
        return _by([(case.model_sha256, case) for case in self.latencies])

    @cached_property
    def class_names_by_images(self) -> Mapping[str, tuple[str, ...]]:
        """Class names of bundles, by the hash of the images."""
        return {bundle.data.sha256: bundle.class_names for bundle in reversed(self.bundles)}

    @cached_property
    def _places(self) -> Mapping[str, Sequence[int]]:
        """Places in `bundles` by the hash of the checkpoint."""
        return _by([(bundle.run.checkpoint_sha256, place) for place, bundle in enumerate(self.bundles)])

    def places_of(self, checkpoints: set[str]) -> list[int]:
        """Places in `bundles` of those of some checkpoints, in their order."""
        return sorted(place for sha256 in checkpoints for place in self._places.get(sha256, ()))

    def of_dataset(self, name: str) -> Records:
        """The runs and failures of one dataset; bundles and latencies stay, since rows find their own.

        Raises:
            CnnbenchError: There are no runs on it (exit 2).
        """
        names = sorted({run.record.data.name for run in self.runs} | {failure.dataset for failure in self.failures})
        if name not in names:
            from cnnbench.registry import hint

            raise CnnbenchError(f"no runs on {name!r}: {hint(name, names)}")
        return replace(
            self,
            runs=[run for run in self.runs if run.record.data.name == name],
            failures=[failure for failure in self.failures if failure.dataset == name],
        )


Value = TypeVar("Value")


def _by(pairs: Iterable[tuple[str, Value]]) -> dict[str, list[Value]]:
    """Values by key: what thousands of rows are looked up in."""
    found: dict[str, list[Value]] = defaultdict(list)
    for key, value in pairs:
        found[key].append(value)
    return dict(found)


def gather(paths: str | Path | Sequence[str | Path]) -> Records:
    """Read every record below `paths`.

    Raises:
        CnnbenchError: A path does not exist, a record cannot be read, or there is no result at all (exit 3).
    """
    files = list(record_files(paths))
    failures = [file for file in files if file.name == "failure.json" and not file.with_name("result.json").is_file()]
    gathered = Records(
        runs=[_run(file) for file in files if file.name == "result.json"],
        failures=[records.read(file, Failure) for file in failures],
        bundles=[read_export(file) for file in files if file.name == "manifest.json"],
        bundle_folders=[file.parent for file in files if file.name == "manifest.json"],
        latencies=[case for file in files if file.name not in NAMES for case in latency_record.read(file)],
    )
    if not gathered.runs and not gathered.bundles and not gathered.failures:
        raise CnnbenchError(no_results_message(paths), Exit.DATA)
    return gathered


def no_results_message(paths: str | Path | Sequence[str | Path]) -> str:
    """What to say where there are no results."""
    return f"no results below {', '.join(map(str, several(paths)))}; `cnnbench fit` and `test`, or `sweep`, make them"


def record_files(paths: str | Path | Sequence[str | Path]) -> Iterator[Path]:
    """The records at and below `paths`, each once. Files of other programs under our names are skipped.

    Raises:
        CnnbenchError: A path does not exist, or a file is not JSON (exit 3).
    """
    seen: set[Path] = set()  # paths may overlap
    for path in map(Path, several(paths)):
        if not path.exists():
            raise CnnbenchError(
                f"{path} does not exist; expected a folder of runs or bundles, or a latency file", Exit.DATA
            )
        if not path.is_dir() and not path.is_file():
            raise CnnbenchError(f"cannot read {path}: it is neither a file nor a folder", Exit.DATA)
        for file in _below(path):
            if file.resolve() in seen:
                continue
            if file != path and _is_foreign(file):
                print(f"skipped: {file} is not a record of cnnbench", file=sys.stderr)
                continue
            seen.add(file.resolve())
            yield file


def _below(path: Path) -> Iterator[Path]:
    """The files below a folder that have a record's name, or the file itself."""
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*.json")):
        if not is_set_aside(file.relative_to(path)) and (file.name in NAMES or file.name.startswith("latency")):
            yield file


def _is_foreign(file: Path) -> bool:
    """Whether another program wrote a file that has one of our names."""
    content = records.read_json(file)
    return "benchmarks" not in content and not str(content.get("schema")).startswith("cnnbench.")


def _run(file: Path) -> Run:
    """A run, with its robustness where that was measured on the checkpoint that was tested."""
    record = records.read(file, RunRecord)
    path = file.with_name("robustness.json")
    robustness = records.read(path, Robustness) if path.is_file() else None
    if robustness and (record.test is None or robustness.checkpoint_sha256 != record.test.checkpoint_sha256):
        robustness = None
    return Run(record, file.parent, robustness)


def groups(gathered: Records) -> list[list[Run]]:
    """Runs that differ in their seed alone, sorted by seed; another recipe or set of images is another group.

    Raises:
        CnnbenchError: Two runs of one group have the same seed and other results (exit 3).
    """
    by_recipe: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in sorted(gathered.runs, key=lambda run: run.record.seed):
        group = by_recipe[run.record.task, _recipe(run.record)]
        if not (group and _is_copy(group[-1], run)):
            group.append(run)
    return list(by_recipe.values())


def _recipe(record: RunRecord) -> str:
    """What runs of one group have in common, as text."""
    trainer = record.config.trainer
    recipe = {
        "arch": record.arch,
        "model": msgspec.to_builtins(record.config.model),
        "images": record.data.sha256,
        "train_images": record.data.train_images,
        "augment": str(record.data.augment),
        "size": record.spec.size,
        "batch_size": record.config.data.batch_size,
        "precision": record.environment.precision,  # what `auto` came to on its machine
        **{key: trainer.get(key) for key in ("max_epochs", "max_steps", "limit_train_batches")},
    }
    return json.dumps(recipe, sort_keys=True)


def _is_copy(run: Run, other: Run) -> bool:
    """Whether two runs of one recipe are the same run in two folders: a seed counts once."""
    if run.record.seed != other.record.seed:
        return False
    if run.record.test != other.record.test:
        raise CnnbenchError(
            f"{run.folder} and {other.folder} are both seed {run.record.seed} of {run.record.task}, "
            "with other results: give one of them",
            Exit.DATA,
        )
    return True


def class_names_of(record: RunRecord, gathered: Records) -> tuple[str, ...]:
    """In the order of the labels: from the record, else from a bundle of the same images; empty where neither has."""
    return record.class_names or gathered.class_names_by_images.get(record.data.sha256, ())


def groups_on_full_data(known: Sequence[list[Run]]) -> list[list[Run]]:
    """The groups trained on the most images of their dataset: accuracies compare only at equally many images."""
    most: dict[str, int] = {}
    for runs in known:
        data = runs[0].record.data
        most[data.name] = max(most.get(data.name, 0), data.train_images)
    return [runs for runs in known if runs[0].record.data.train_images == most[runs[0].record.data.name]]


def fp32_latencies(gathered: Records) -> list[LatencyCase]:
    """The latencies that the rows of tables show: of the fp32 files of the bundles."""
    files = {bundle.files["model.onnx"].sha256 for bundle in gathered.bundles}
    return [case for case in gathered.latencies if case.precision == "fp32" and case.model_sha256 in files]


def scored_predictions(run: Run) -> Predictions:
    """What the best checkpoint of a tested run predicted.

    Raises:
        CnnbenchError: The predictions are missing or damaged, or not the ones that were scored (exit 3).
    """
    from cnnbench.analysis.confidence import read_predictions

    predictions = read_predictions(run.predictions)
    assert run.record.test is not None
    if (len(predictions.correct), int(predictions.correct.sum())) != (run.record.test.images, run.record.test.correct):
        raise CnnbenchError(f"{run.predictions} are not the predictions of {run.folder}/result.json", Exit.DATA)
    return predictions


def tested_tally(run: Run) -> ClassTally | None:
    """The test images of a tested run by class: from its record, else from its predictions; None without either.

    Raises:
        CnnbenchError: As `scored_predictions`, of an earlier version's record.
    """
    assert run.record.test is not None
    if run.record.test.by_class or not run.predictions.exists():
        return run.record.test.by_class
    from cnnbench.analysis.per_class import tally

    found = scored_predictions(run)
    return tally(found.labels, found.predictions, classes=found.probabilities.shape[1])


def require_same_labels(names: str, answers: Mapping[int, tuple[Predictions, Predictions]]) -> None:
    """Refuse a comparison image by image where the images are not the same.

    Args:
        names: Names of both tasks, for the message.
        answers: Answers of both, by seed.

    Raises:
        CnnbenchError: They were scored against other labels (exit 3).
    """
    for seed, (a, b) in answers.items():
        if a.labels.tolist() != b.labels.tolist():
            raise CnnbenchError(
                f"{names}, seed {seed}, were scored against other labels: a paired comparison needs the same", Exit.DATA
            )
