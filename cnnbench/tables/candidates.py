"""What can be shipped: each file of each bundle, in each measured backend, and what is known of that file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.records.bundle import ExportRecord, Manifest, PrecisionFile
from cnnbench.tables.gather import Records, Run, class_names_of
from cnnbench.tables.rows import LatencyKey, Percentiles, Row
from cnnbench.tables.text import percent
from cnnbench.types import CnnbenchError

if TYPE_CHECKING:
    import numpy as np

FILE_BACKENDS = ("onnxruntime", "openvino")
"""Those that run the file; torch runs the network that it was made from."""


@dataclass(frozen=True)
class Score:
    """How many images of a split are classified correctly."""

    right: int
    images: int

    @property
    def accuracy(self) -> float:
        return self.right / self.images

    def low(self, among: int = 1) -> float:
        """Lower end of Wilson's 95 % interval for new images; see `proportion_interval` for `among`."""
        from cnnbench.analysis.statistics import proportion_interval

        return proportion_interval(self.accuracy, self.images, among=among).low

    @property
    def text(self) -> str:
        """`98.80 % (494 of 500)`."""
        return f"{percent(self.accuracy)} ({self.right:,} of {self.images:,})"


@dataclass(frozen=True)
class Baseline:
    """The network that looks at no image: it answers the most frequent class."""

    share: float
    """Correct validation images."""
    words: str
    """`always answering cat`."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One file in one backend. Of a network that was not exported, the run that `export` would take."""

    row: Row
    """Row of all runs of its task."""
    precision: str = ""
    """Empty where it was not exported."""
    refused: str = ""
    """Why `export` did not keep the file; nothing else is known of it then."""
    path: Path | None = None
    sha256: str = ""
    """SHA-256 of the file."""
    bytes: int | None = None
    val: Score | None = None
    """Validation score of the file; of the run where it was not exported."""
    test: Score | None = None
    latency: LatencyKey | None = None
    """Where `percentiles` were measured."""
    percentiles: Percentiles | None = None
    names_backend: bool = False
    """Whether the file is a candidate in several backends."""
    baseline: Baseline | None = None
    before_test: bool = False
    """Whether it is chosen before any image of the test split is read."""

    @property
    def is_scored(self) -> bool:
        """Whether it can be chosen: by a tested run, or before any test."""
        return self.before_test or self.row.accuracy is not None

    @property
    def name(self) -> str:
        """`mnist5k_lenet5 int8`, with the backend where there are several."""
        backend = f"in {self.latency.place}" if self.names_backend and self.latency else ""
        return " ".join(part for part in (self.row.task, self.precision, backend) if part)

    def is_at_chance(self, among: int = 1) -> bool:
        """Whether its validation images do not show that it, of `among` files, is better than the baseline."""
        return self.val is not None and self.baseline is not None and self.val.low(among) <= self.baseline.share


def compared(known: Sequence[Candidate]) -> int:
    """How many files are compared by their accuracy; one file in several backends is one. At least 1."""
    return max(1, len({each.sha256 or each.name for each in known if each.val}))


def candidates(
    rows: Sequence[Row], gathered: Records, *, latency: LatencyKey, all_backends: bool = False
) -> list[Candidate]:
    """Every candidate of some rows.

    Args:
        rows: Rows of networks that compare.
        gathered: What the rows were made from.
        latency: The latency that counts.
        all_backends: Take every backend that runs the file and was measured, not only that of `latency`.
    """
    measured = _measured(gathered)
    return [
        candidate
        for row in rows
        for candidate in _of_row(row, gathered, measured=measured, latency=latency, all_backends=all_backends)
    ]


Measured = Mapping[tuple[str, str], Mapping[LatencyKey, Percentiles]]
"""By the hash of the bundle's float32 file, and the precision."""


def _measured(gathered: Records) -> Measured:
    found: dict[tuple[str, str], dict[LatencyKey, Percentiles]] = {}
    for case in gathered.latencies:
        key = LatencyKey.of(case)
        found.setdefault((case.model_sha256, case.precision), {})[key] = Percentiles.of(case.seconds)
    return found


def _of_row(
    row: Row, gathered: Records, *, measured: Measured, latency: LatencyKey, all_backends: bool
) -> Iterator[Candidate]:
    if not row.checkpoints:
        yield Candidate(row=row)
        return
    bundles = list(_bundles_of(row, gathered))
    if row.bundle:
        baseline = _baseline_of_bundle(*bundles[0])
    else:
        baseline = baseline_of(row.runs, class_names_of(row.runs[0].record, gathered))
    if not bundles:
        record = max(row.tested, key=lambda run: run.record.fit.val_accuracy).record
        assert record.test is not None
        fit = record.fit
        val = Score(round(fit.val_accuracy * fit.val_images), fit.val_images)
        yield Candidate(row=row, val=val, test=Score(record.test.correct, record.test.images), baseline=baseline)
    for bundle, folder in bundles:
        for file in bundle.variants:
            if file.refused:
                yield Candidate(row=row, precision=file.precision, refused=file.refused)
                continue
            latencies = measured.get((bundle.files["model.onnx"].sha256, file.precision), {})
            keys = _keys(latencies, latency, all_backends=all_backends)
            for key in keys:
                yield Candidate(
                    row=row,
                    precision=file.precision,
                    path=folder / file.file,
                    sha256=bundle.files[file.file].sha256,
                    bytes=file.bytes,
                    val=val_score(bundle, file),
                    test=Score(file.passes[0].correct, bundle.reference.images),
                    latency=key,
                    percentiles=latencies.get(key),
                    names_backend=len(keys) > 1,
                    baseline=baseline,
                )


def _keys(latencies: Mapping[LatencyKey, Percentiles], latency: LatencyKey, *, all_backends: bool) -> list[LatencyKey]:
    """Where a file is a candidate."""
    keys = [LatencyKey(name, latency.provider, latency.batch, latency.threads) for name in FILE_BACKENDS]
    return [key for key in keys if all_backends and key in latencies] or [latency]


def _bundles_of(row: Row, gathered: Records) -> Iterator[tuple[ExportRecord, Path]]:
    """The bundles of the tested checkpoints, each once, with their folders."""
    seen: set[str] = set()
    for place in gathered.places_of(row.checkpoints):
        bundle = gathered.bundles[place]
        sha256 = bundle.files["model.onnx"].sha256
        if sha256 not in seen:
            seen.add(sha256)
            yield bundle, gathered.bundle_folders[place]


def val_score(bundle: ExportRecord, file: PrecisionFile) -> Score | None:
    """Validation score of a file, in its worst pass.

    None for lower precisions of bundles of earlier versions, which were not run on them.
    """
    if file.precision != "fp32" and not isinstance(bundle, Manifest):
        return None
    images = bundle.data.val_images
    return Score(round((bundle.run.val_accuracy - file.lost_points / 100) * images), images)


def baseline_of(runs: Sequence[Run], names: Sequence[str]) -> Baseline:
    """From the labels of the validation images; where no run has kept them, all classes count as equally frequent."""
    from cnnbench.analysis.confidence import read_predictions

    kept = next((run.val_predictions for run in runs if run.val_predictions.exists()), None)
    if kept is None:
        return _guessing(runs[0].record.spec.num_classes)
    return _always(read_predictions(kept).labels, names)


def _baseline_of_bundle(bundle: ExportRecord, folder: Path) -> Baseline:
    """From the labels of the validation images that a bundle keeps; without them, all classes count alike."""
    from cnnbench.bundles.evidence import arrays

    try:
        (labels,) = arrays("reference", folder / "reference.npz", "val_labels")
    except CnnbenchError:  # of an earlier version, or its record alone is here
        return _guessing(bundle.spec.num_classes)
    return _always(labels, bundle.class_names)


def _guessing(classes: int) -> Baseline:
    return Baseline(1 / classes, f"guessing one of {classes} classes")


def _always(labels: np.ndarray, names: Sequence[str]) -> Baseline:
    """The most frequent of `(images,)` labels, of several the first."""
    from cnnbench.analysis.per_class import class_name

    ((label, count),) = Counter(sorted(labels.tolist())).most_common(1)
    return Baseline(count / len(labels), f"always answering {class_name(names, label)}")
