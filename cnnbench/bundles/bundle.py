"""A bundle: exports/<task>/ with the ONNX file, its proof, and all that using it needs. Whole or not at all."""

from __future__ import annotations

import csv
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnbench import environment, records
from cnnbench.bundles import contract, targets
from cnnbench.bundles import quantise as variants
from cnnbench.bundles.parity import comparison as verdict
from cnnbench.bundles.parity import run as proof
from cnnbench.datasets.choice import open_recorded
from cnnbench.records.schema import BundleRun, Contract, FileHash, Manifest, RunRecord, Variant
from cnnbench.runtime import predict
from cnnbench.runtime.providers import require, usable
from cnnbench.training.config import flags_of, portable
from cnnbench.types import CnnbenchError, Dataset, Exit

if TYPE_CHECKING:
    import onnx

    from cnnbench.training.classifier import Classifier

GOLDEN_IMAGES = 16
FLIPS_HEADER = ("file", "provider", "optimized", "image", "label", "pytorch", "onnxruntime", "margin", "rounding")
FlipRow = tuple[str | int | float, ...]


@dataclass(frozen=True)
class Tried:
    """A file, the images whose class it changes, and its logits `(N, num_classes)` of the test split."""

    variant: Variant
    flips: list[FlipRow]
    logits: np.ndarray


@dataclass(frozen=True)
class Options:
    """What a bundle is asked to hold, and where it is tried."""

    precisions: list[variants.Precision]
    providers: list[str]
    input: contract.InputKind
    probabilities: bool
    budget: float


def export(
    source: str,
    out: str = "exports",
    variants: str = "fp32",
    providers: str = "auto",
    input: contract.InputKind = "uint8",
    probabilities: bool = False,
    budget: float = 0.2,
    target: tuple[str, str] | None = None,
    root: str | None = None,
    folder: str | None = None,
    json: bool = False,
) -> int:
    """Turn a run into a proven ONNX bundle: exports/<task>/.

    Every file is compared with PyTorch over the whole test split before anything is put in place; a difference exits 4
    and leaves an earlier bundle as it was. A variant that fails is refused with its reason, and the others stand.

    Args:
        source: A run folder (runs/<task>/seed<k>), a task folder (its best seed on validation), or a checkpoint in one;
            with --target triton also a bundle.
        out: Folder of the bundles.
        variants: Files to make, as fp32,fp16,int8; fp32 is always made, and int8 is kept only if it is faster here.
        providers: Where to verify: cpu, cuda, or both as cpu,cuda; auto means cpu, and cuda where it can be used.
        input: What the file takes: uint8 for images (batch, H, W, C) as a decoder gives them, or float for
            (batch, C, H, W) in [0, 1].
        probabilities: Return the softmax of the logits, too.
        budget: Points of accuracy (percent) that a variant may lose.
        target: Also write `triton DIR`, a model repository, or `safetensors FILE`, the weights for torch: two words.
        root: Folder of the downloaded datasets, if it is not the one the run used.
        folder: Folder of your own images, if it is not the one the run used.
        json: Print the manifest as one JSON document.
    """
    options = _options(variants, providers, input, probabilities, budget)
    further = targets.parse(target)
    if (Path(source) / "manifest.json").is_file():
        return _from_bundle(Path(source), further)
    from cnnbench.training.checkpoints import load_classifier
    from cnnbench.training.folder import find
    from cnnbench.training.predictions import tested_logits

    checkpoint = find(source)
    classifier = load_classifier(checkpoint)
    record = _record_of(checkpoint)
    assert classifier.data is not None  # a checkpoint of ours names it
    if (record.arch, record.spec, record.data.sha256) != (
        classifier.arch,
        classifier.spec,
        classifier.data.sha256,
    ):
        raise CnnbenchError(
            f"{checkpoint} holds {classifier.arch} trained on {classifier.data.name}, but the record beside it "
            f"is of {record.arch} on {record.data.name}: the file was copied from another run",
            Exit.DATA,
        )
    data = open_recorded(classifier.data, root=root, folder=folder)
    with records.replacing_folder(Path(out) / record.task) as partial:
        tested = tested_logits(checkpoint, record)
        manifest = write(partial, classifier, data, record, records.sha256(checkpoint), options, tested)
    report(manifest, Path(out) / record.task, json)
    if further:
        kind, place = further
        if kind == "safetensors":
            targets.safetensors(classifier, manifest.weights_sha256, place)
            _say(f"{place}: the weights", json)
        else:
            _triton(Path(out) / record.task, place, json)
    return Exit.OK


def _options(names: str, providers: str, kind: contract.InputKind, probabilities: bool, budget: float) -> Options:
    if not 0 <= budget <= 100:
        raise CnnbenchError(f"--budget {budget:g}: expected points of accuracy from 0 to 100")
    return Options(variants.chosen(names), chosen_providers(providers), kind, probabilities, budget)


def _from_bundle(bundle: Path, further: tuple[str, Path] | None) -> int:
    """Write a target from a bundle that is there already, once it is proven again."""
    from cnnbench.bundles.verify import prove

    if further is None or further[0] != "triton":
        raise CnnbenchError(f"{bundle} is a bundle already: expected a run, or --target triton DIR with it")
    prove(bundle, "cpu")
    _triton(bundle, further[1], quiet=False)
    return Exit.OK


def _triton(bundle: Path, repository: Path, quiet: bool) -> None:
    for made in targets.triton(bundle, repository):
        _say(f"{made}: a model for Triton", quiet)


def _say(line: str, quiet: bool) -> None:
    if not quiet:
        print(line)


def _record_of(checkpoint: Path) -> RunRecord:
    """The record of the run that `checkpoint` is of.

    Raises:
        CnnbenchError: There is none beside it, or it speaks of another checkpoint (exit 3).
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


def chosen_providers(names: str) -> list[str]:
    """The providers that a comma-separated list names; each must be usable.

    Raises:
        CnnbenchError: An unknown provider (exit 2), or one that cannot be used here (exit 6).
    """
    if names == "auto":
        return [name for name, reason in usable().items() if not reason]
    chosen = list(dict.fromkeys(names.split(",")))
    for name in chosen:
        require(name)
    return chosen


def write(
    path: Path,
    classifier: Classifier,
    data: Dataset,
    record: RunRecord,
    checkpoint_sha256: str,
    options: Options,
    tested: np.ndarray | None,
) -> Manifest:
    """Write a bundle into the empty folder `path`, each file proven on every provider.

    Args:
        path: Where to write.
        classifier: The trained network.
        data: The images that it was trained and tested on.
        record: Of its run.
        checkpoint_sha256: Of the file it was loaded from.
        options: What to make, and where to try it.
        tested: The logits of the test split that `test` left, if it did.

    Raises:
        CnnbenchError: The float32 file differs from the network (exit 4).
    """
    from cnnbench.bundles import card, graph
    from cnnbench.bundles.verify import prove

    weights = graph.weights_sha256(classifier.network)
    signature = contract.signature(record.spec, options.input, options.probabilities)
    with proof.yardstick(classifier.network, data.test, tested) as held_against:
        reference = held_against.reference
        stated = {
            precision: contract.metadata(
                record.arch, precision, data.name, data.class_names, signature, weights, reference.accuracy
            )
            for precision in options.precisions
        }
        fp32 = graph.to_onnx(classifier.network, record.spec, stated["fp32"], options.input, options.probabilities)
        tried = [
            _tried(path, precision, fp32, data.train.images, signature, stated[precision], held_against, options)
            for precision in options.precisions
        ]
        _write_evidence(path, data, held_against, tried)
    shutil.copyfile(predict.__file__, path / "predict.py")
    manifest = Manifest(
        task=record.task,
        arch=record.arch,
        seed=record.seed,
        data=records.replace(record.data, root=None, folder=None),
        spec=record.spec,
        class_names=data.class_names,
        cost=record.cost,
        contract=signature,
        weights_sha256=weights,
        run=BundleRun(checkpoint_sha256, record.fit.epochs, record.fit.val_accuracy, tuple(_commands(record, options))),
        reference=reference,
        variants=tuple(one.variant for one in tried),
        files=_hashes(path),
        environment=environment.describe(),
    )
    card.write(path / "README.md", manifest)
    manifest = records.replace(manifest, files=_hashes(path))
    records.write(path / "manifest.json", manifest)
    prove(path, options.providers[0])  # what `verify` will say of it must be good before it takes its place
    return manifest


def _tried(
    path: Path,
    precision: variants.Precision,
    fp32: onnx.ModelProto,
    training_images: np.ndarray,
    signature: Contract,
    stated: dict[str, str],
    held_against: proof.Yardstick,
    options: Options,
) -> Tried:
    """Make one file from the float32 graph and try it; a refused one is removed again.

    Raises:
        CnnbenchError: The float32 file is refused (exit 4).
    """
    from cnnbench.bundles import graph

    file = path / variants.file_name(precision)
    changed: dict[tuple[str, bool], verdict.Flips] = {}
    logits = held_against.logits
    try:
        model = fp32 if precision == "fp32" else variants.make(precision, fp32, training_images, signature)
        graph.sign(model, stated)
        graph.save(model, file)
        variant, changed, logits = proof.judge(
            precision,
            file,
            signature,
            stated,
            held_against,
            options.providers,
            options.budget,
            None if precision == "fp32" else path / variants.file_name("fp32"),
        )
    except CnnbenchError as error:
        if precision == "fp32":
            raise
        variant = _unmade(precision, file, str(error).replace(str(file.absolute()), file.name), options.budget)
    if not variant.refused:
        return Tried(variant, list(_flip_rows(file.name, changed, held_against.labels)), logits)
    if precision == "fp32":
        raise CnnbenchError(
            f"the ONNX file is not the trained network: {variant.refused}; nothing was written", Exit.VERDICT
        )
    file.unlink(missing_ok=True)
    return Tried(variant, [], logits)


def _write_evidence(path: Path, data: Dataset, held_against: proof.Yardstick, tried: list[Tried]) -> None:
    """golden.npz, reference.npz and flips.csv: what `verify` needs, and a person may want to look at."""
    golden = proof.spread(len(data.test), GOLDEN_IMAGES)
    lower = [one for one in tried if one.variant.precision != "fp32" and not one.variant.refused]
    np.savez(
        path / "golden.npz",
        pixels=data.test.images[golden],
        logits=held_against.logits[golden],
        noise=held_against.noise,
        noise_logits=held_against.noise_logits,
        **{f"logits_{one.variant.precision}": one.logits[golden] for one in lower},
    )
    np.savez_compressed(
        path / "reference.npz",
        labels=data.test.labels.astype(np.int32),
        predictions=held_against.logits.argmax(1).astype(np.int32),
    )
    with (path / "flips.csv").open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([FLIPS_HEADER, *(row for one in tried for row in one.flips)])


def _hashes(path: Path) -> dict[str, FileHash]:
    return {file.name: FileHash(records.sha256(file), file.stat().st_size) for file in sorted(path.iterdir())}


def _unmade(precision: variants.Precision, file: Path, reason: str, budget: float) -> Variant:
    """A variant that could not even be tried."""
    return Variant(
        precision=precision,
        file=file.name,
        bytes=file.stat().st_size if file.exists() else 0,
        refused=reason,
        budget_points=budget,
        lost_points=0.0,
        latency_ms=None,
        fp32_latency_ms=None,
        passes=(),
    )


def _flip_rows(file: str, changed: dict[tuple[str, bool], verdict.Flips], labels: np.ndarray) -> Iterator[FlipRow]:
    """One row an image that changes class, see `FLIPS_HEADER`; classes are numbers, margins PyTorch's logits."""
    for (provider, optimized), flips in changed.items():
        for image, expected, found, margin in zip(
            flips.images, flips.expected, flips.found, flips.margins, strict=True
        ):
            row = (file, provider, "on" if optimized else "off", int(image), int(labels[image]), int(expected))
            yield (*row, int(found), float(margin), "yes" if margin <= 2 * flips.bound else "no")


def _commands(record: RunRecord, options: Options) -> list[str]:
    """The commands that make this very bundle again. Folders are named by what belongs there, not where it lay."""
    flags = shlex.join(flags_of(portable(record.config)))
    asked = [f"--variants {','.join(options.precisions)}"] * (len(options.precisions) > 1)
    asked += [f"--input {options.input}"] * (options.input != "uint8") + ["--probabilities"] * options.probabilities
    asked += [f"--budget {options.budget:g}"] * (options.budget != 0.2)
    asked += [f"--providers {','.join(options.providers)}"] * (options.providers != ["cpu"])
    run = shlex.quote(f"runs/{record.task}/seed{record.seed}")
    return [f"cnnbench fit {flags}", f"cnnbench test {flags}", " ".join(["cnnbench export", run, *asked])]


def report(manifest: Manifest, path: Path, as_json: bool) -> None:
    """Print what was exported: the manifest, or a line for each file and each pass over it."""
    if as_json:
        print((path / "manifest.json").read_text(), end="")
        return
    reference = manifest.reference
    print(
        f"{path}: {manifest.arch} on {manifest.data.name}, accuracy {reference.accuracy:.2%} on "
        f"{reference.images} test images in PyTorch (logits from `{reference.logits_from}`), "
        f"error bound {reference.error_bound:.1e}, TF32 off"
    )
    for variant in manifest.variants:
        latency = (
            "" if variant.latency_ms is None else f", {variant.latency_ms:.3f} ms ({variant.fp32_latency_ms:.3f} fp32)"
        )
        fate = f"REFUSED: {variant.refused}" if variant.refused else "kept"
        print(f"  {variant.file}: {variant.bytes:,} bytes, {variant.lost_points:.2f} points lost{latency}; {fate}")
        for found in variant.passes:
            error = max(found.max_abs_error, *found.batch_errors.values())
            print(
                f"    {found.active}, optimisations {'on' if found.optimized else 'off'}: "
                f"{found.correct} right, {found.rounding_flips} flips by rounding, {found.flips} beyond, "
                f"largest logit error {error:.1e}"
            )
