"""A bundle: exports/<task>/ with the ONNX file, its verification, and all that using it needs. Written whole or not."""

from __future__ import annotations

import csv
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cnnbench import environment, progress, records
from cnnbench.analysis.per_class import tally
from cnnbench.arguments import check_fields
from cnnbench.bundles import contract, quantise, scores, targets
from cnnbench.bundles.files import FLIPS_HEADER, MadeFile, write_file
from cnnbench.bundles.manifest import is_bundle
from cnnbench.bundles.parity import run as parity
from cnnbench.bundles.parity.golden import Golden, golden_images
from cnnbench.bundles.verify import verify_bundle
from cnnbench.datasets.choice import open_recorded
from cnnbench.records.bundle import (
    BundleRun,
    Contract,
    FileHash,
    Manifest,
    Precision,
    file_name,
)
from cnnbench.records.schema import RunRecord
from cnnbench.runtime import predict
from cnnbench.runtime.providers import require, usable
from cnnbench.training.config import flags_of, portable
from cnnbench.types import CnnbenchError, Dataset, Exit

if TYPE_CHECKING:
    from cnnbench.bundles.graph import Exported
    from cnnbench.training.classifier import Classifier


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What a bundle holds, and where its files are verified.

    Args:
        precisions: Precisions of the files, fp32 first; see `quantise.with_fp32`.
        providers: Where to verify: "cpu", "cuda"; each must be usable.
        input: "uint8" for images `(batch, H, W, C)` as a decoder gives them, "float" for `(batch, C, H, W)` in [0, 1].
        probabilities: Whether the files return the softmax of the logits, too; "calibrated" divides the logits by a
            temperature first, which is fitted on the validation images.
        max_accuracy_loss: Points of accuracy (percent) that a file of lower precision may lose on the validation split.

    Raises:
        CnnbenchError: A loss of accuracy that is none, no provider, or a value of another type (exit 2).
    """

    precisions: tuple[Precision, ...] = ("fp32",)
    providers: tuple[str, ...] = ("cpu",)
    input: contract.InputKind = "uint8"
    probabilities: bool | Literal["calibrated"] = False
    max_accuracy_loss: float = 0.2

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.providers:
            raise CnnbenchError("no provider is named: expected at least one")
        object.__setattr__(self, "precisions", quantise.with_fp32(self.precisions))
        object.__setattr__(self, "max_accuracy_loss", float(self.max_accuracy_loss))  # as it is read from a manifest
        if not 0 <= self.max_accuracy_loss <= 100:
            raise CnnbenchError(f"a maximum accuracy loss of {self.max_accuracy_loss:g} points: expected 0% to 100%")


@dataclass(frozen=True)
class TrainedRun:
    """A run to export: its checkpoint, the network in it, its record, and the images it was trained and tested on."""

    checkpoint: Path
    classifier: Classifier
    record: RunRecord
    data: Dataset
    tested_logits: np.ndarray | None
    """The logits of the test split that `test` left, `(N, num_classes)`, where it did."""


def export_run(
    source: str | Path,
    *,
    out: str | Path = "exports",
    options: ExportOptions | None = None,
    root: str | None = None,
    folder: str | None = None,
) -> Manifest:
    """Turn a run into a verified ONNX bundle, `<out>/<task>/`; returns its manifest.

    The float32 file is proven to be the trained network, and every file is compared with PyTorch over the whole test
    split, before the bundle takes its place; where the float32 file differs, an earlier bundle stays as it was. A
    refused file of lower precision is in the manifest, with the reason, and not in the bundle.

    Args:
        source: A run folder, a task folder (its best seed on validation), or a checkpoint in a run folder.
        out: Folder of the bundles.
        options: What the bundle holds.
        root: Folder of the downloaded datasets, if it is not the one the run used.
        folder: Folder of your own images, if it is not the one the run used.

    Raises:
        CnnbenchError: The source is not a run (exit 2), it or its images cannot be read or do not belong together
            (exit 3), the network is not a function of the image or differs from the float32 file (exit 4), a provider
            cannot be used (exit 6).
    """
    options = options or ExportOptions()
    for provider in options.providers:
        require(provider)
    run = open_run(source, root=root, folder=folder)
    progress.step(f"{source} and its images are read")
    with records.replacing_folder(Path(out) / run.record.task) as partial:
        return write(partial, run, options=options)


def export_for(
    source: str | Path,
    *,
    target: targets.Target,
    out: str | Path,
    options: ExportOptions | None = None,
    root: str | None = None,
    folder: str | None = None,
) -> tuple[Path, ...]:
    """Write a run or a bundle in the form of `target`, once it is verified; returns what was written.

    A run is exported and verified in a temporary folder first. `source`, `options`, `root` and `folder` are those of
    `export_run`; for Triton, `source` may also be a bundle, which is verified first.

    Args:
        source: A run; for Triton also a bundle.
        target: "triton" for a model repository, "safetensors" for the weights.
        out: The repository, a folder; or the file of the weights.
        options: What the bundle holds.
        root: Folder of the downloaded datasets, if it is not the one the run used.
        folder: Folder of your own images, if it is not the one the run used.

    Raises:
        CnnbenchError: As `export_run`; `out` is a file or a folder where the other is expected, or the source is a
            bundle, which has no weights for torch (exit 2).
    """
    targets.check_place(target, Path(out))
    if is_bundle(source):
        if target != "triton":
            raise CnnbenchError(f"{source} is a bundle already: expected a run, whose checkpoint holds the weights")
        verify_bundle(source)
        return targets.triton(Path(source), Path(out))
    options = options or ExportOptions()
    for provider in options.providers:
        require(provider)
    run = open_run(source, root=root, folder=folder)
    with records.temporary_folder() as temporary:
        manifest = write(Path(temporary), run, options=options)
        if target == "triton":
            return targets.triton(Path(temporary), Path(out))
    return (targets.safetensors(run.classifier, Path(out), weights_sha256=manifest.weights_sha256),)


def usable_providers() -> tuple[str, ...]:
    """The providers that a session really ran on."""
    return tuple(name for name, reason in usable().items() if not reason)


def open_run(source: str | Path, *, root: str | None = None, folder: str | None = None) -> TrainedRun:
    """Load what `source` names; see `export_run`.

    Raises:
        CnnbenchError: It is a bundle (exit 2); or checkpoint, record or images are missing, damaged, or of different
            runs (exit 3).
    """
    from cnnbench.training.checkpoints import load_classifier
    from cnnbench.training.folder import find
    from cnnbench.training.predictions import tested_logits

    if is_bundle(source):
        raise CnnbenchError(f"{source} is a bundle already: expected a run, or --for triton with it")
    checkpoint = find(source)
    classifier = load_classifier(checkpoint)
    record = _record_of(checkpoint)
    assert classifier.data is not None  # a checkpoint of ours names it
    stored = (classifier.arch, classifier.spec, classifier.data.sha256)
    if (record.arch, record.spec, record.data.sha256) != stored:
        raise CnnbenchError(
            f"{checkpoint} holds {classifier.arch} trained on {classifier.data.name}, but the record beside it "
            f"is of {record.arch} on {record.data.name}: the file was copied from another run",
            Exit.DATA,
        )
    data = open_recorded(classifier.data, root=root, folder=folder)
    return TrainedRun(checkpoint, classifier, record, data, tested_logits(checkpoint, record))


def _record_of(checkpoint: Path) -> RunRecord:
    """The record of the run that `checkpoint` is of.

    Raises:
        CnnbenchError: It is missing, or of another checkpoint (exit 3).
    """
    path = checkpoint.parent / "result.json"
    if not path.is_file():
        raise CnnbenchError(
            f"{checkpoint} has no result.json of its run beside it: export it from its run folder", Exit.DATA
        )
    record = records.read(path, RunRecord)
    if record.test and checkpoint.name == "best.ckpt" and record.test.checkpoint_sha256 != records.sha256(checkpoint):
        raise CnnbenchError(
            f"{checkpoint} is not the checkpoint that {path} scored: run `cnnbench test` again", Exit.DATA
        )
    return record


def write(path: Path, run: TrainedRun, *, options: ExportOptions) -> Manifest:
    """Write a bundle into the empty folder `path`, each file verified on every provider.

    Raises:
        CnnbenchError: The float32 file differs from the network (exit 4).
    """
    from cnnbench.bundles import card, graph
    from cnnbench.bundles.parity.proof import ask, prove

    progress.step("proving that the float32 graph is the network, in float64")
    network = run.classifier.network
    weights = graph.weights_sha256(network)
    softmax, calibrated = bool(options.probabilities), options.probabilities == "calibrated"
    calibration = scores.calibration(run.classifier.network, run.data.val) if calibrated else None
    temperature = calibration.temperature if calibration else 1.0
    agreed = contract.contract_of(run.record.spec, kind=options.input, probabilities=softmax)
    golden = golden_images(run.data.test.images)
    trained = graph.Deployable(network, options.input, softmax, temperature).eval()
    asked = ask(trained, golden.pixels, dtype=agreed.input.dtype)  # before the exporter meets an operator that it lacks
    exported = graph.to_onnx(
        network, run.record.spec, metadata={}, kind=options.input, probabilities=softmax, temperature=temperature
    )
    proven = prove(exported, images=golden.pixels, dtype=agreed.input.dtype, asked=asked)
    progress.step(f"PyTorch's logits of {len(run.data.test):,} test images")
    with parity.reference_logits(
        network, run.data, golden=golden, exact=proven.logits, tested=run.tested_logits
    ) as reference:
        files = _write_files(
            path,
            run,
            reference,
            exported=exported,
            options=options,
            agreed=agreed,
            weights_sha256=weights,
            temperature=temperature,
        )
        if calibration:
            calibration = scores.with_errors(calibration, logits=reference.logits, labels=reference.labels)
        by_class = tally(reference.labels, reference.logits.argmax(1), classes=run.record.spec.num_classes)
        thresholds = scores.thresholds(reference, temperature)
        _write_evidence(path, golden, proven.logits, reference, files)
    shutil.copyfile(predict.__file__, path / "predict.py")
    manifest = Manifest(
        task=run.record.task,
        arch=run.record.arch,
        seed=run.record.seed,
        data=records.replace(run.record.data, root=None, folder=None),
        spec=run.record.spec,
        class_names=run.data.class_names,
        cost=run.record.cost,
        contract=agreed,
        weights_sha256=weights,
        run=BundleRun(
            records.sha256(run.checkpoint),
            run.record.fit.epochs,
            reference.val_correct / len(reference.val_labels),
            tuple(commands(run.record, options)),
        ),
        reference=reference.summary,
        variants=tuple(file.record for file in files),
        files=_hashes(path),
        environment=environment.describe(),
        proof=proven.proof,
        preprocessing=run.data.preprocessing,
        calibration=calibration,
        by_class=by_class,
        thresholds=thresholds,
        card=card.version(),
    )
    card.write(path / "README.md", manifest)
    manifest = records.replace(manifest, files=_hashes(path))
    records.write(path / "manifest.json", manifest)
    progress.step("verifying the bundle as it was written")
    verify_bundle(path, provider=options.providers[0])  # before it takes its place
    return manifest


def _write_files(
    path: Path,
    run: TrainedRun,
    reference: parity.ReferenceLogits,
    *,
    exported: Exported,
    options: ExportOptions,
    agreed: Contract,
    weights_sha256: str,
    temperature: float,
) -> list[MadeFile]:
    """Make and verify the file of each precision."""
    candidates = [
        parity.Candidate(
            precision,
            path / file_name(precision),
            agreed,
            contract.metadata(
                arch=run.record.arch,
                precision=precision,
                dataset=run.data.name,
                class_names=run.data.class_names,
                contract=agreed,
                weights_sha256=weights_sha256,
                accuracy=reference.summary.accuracy,
            ),
            exported.reference.control_flow,
            temperature,
        )
        for precision in options.precisions
    ]
    files = []
    for candidate in candidates:
        progress.step(f"making {file_name(candidate.precision)}, and comparing every test image with PyTorch")
        files.append(
            write_file(
                candidate,
                reference,
                fp32=exported.model,
                images=run.data.train.images,
                providers=options.providers,
                max_accuracy_loss=options.max_accuracy_loss,
            )
        )
    return files


def _write_evidence(
    path: Path, golden: Golden, exact: np.ndarray, reference: parity.ReferenceLogits, files: Sequence[MadeFile]
) -> None:
    """golden.npz and reference.npz, which `verify` needs, and flips.csv for a person to look at."""
    of_test = golden.places[golden.places >= 0]
    smaller = [file for file in files if file.record.precision != "fp32" and not file.record.refused]
    np.savez(
        path / "golden.npz",
        pixels=golden.pixels,
        places=golden.places,
        logits=exact,
        **{f"logits_{file.record.precision}": file.logits[of_test] for file in smaller},
    )
    np.savez_compressed(
        path / "reference.npz",
        labels=reference.labels.astype(np.int32),
        predictions=reference.logits.argmax(1).astype(np.int32),
        val_labels=reference.val_labels.astype(np.int32),
        val_predictions=reference.val_logits.argmax(1).astype(np.int32),
        **{f"val_predictions_{file.record.precision}": file.val_predictions.astype(np.int32) for file in smaller},  # type: ignore[arg-type]
    )
    with (path / "flips.csv").open("w", newline="") as stream:
        rows = [row for file in files for row in file.flips]
        csv.writer(stream, lineterminator="\n").writerows([FLIPS_HEADER, *rows])


def _hashes(path: Path) -> dict[str, FileHash]:
    return {file.name: FileHash(records.sha256(file), file.stat().st_size) for file in sorted(path.iterdir())}


def _probabilities(options: ExportOptions) -> list[str]:
    word = "softmax" if options.probabilities is True else options.probabilities
    return [f"--probabilities {word}"] if word else []


def commands(record: RunRecord, options: ExportOptions) -> list[str]:
    """The commands that make this very bundle again. Folders are named by their content, not by their path."""
    flags = shlex.join(flags_of(portable(record.config)))
    more = [f"--precision {','.join(options.precisions)}"] * (len(options.precisions) > 1)
    more += [f"--input {options.input}"] * (options.input != "uint8") + _probabilities(options)
    more += [f"--max-accuracy-loss {options.max_accuracy_loss:g}%"] * (options.max_accuracy_loss != 0.2)
    more += [f"--provider {','.join(options.providers)}"] * (options.providers != ("cpu",))
    run = shlex.quote(f"runs/{record.task}/seed{record.seed}")
    return [f"cnnbench fit {flags}", f"cnnbench test {flags}", " ".join(["cnnbench export", run, *more])]
