"""`export`: turn a run into a verified ONNX bundle: exports/<task>/."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cnnbench import progress
from cnnbench.cli.hints import say_next
from cnnbench.cli.units import Points
from cnnbench.types import CnnbenchError, Exit, ImageSpec

if TYPE_CHECKING:
    from cnnbench.records.bundle import Manifest, PrecisionFile

Format = Literal["text", "json"]
STEPS = 4
"""Steps of an export besides one for each file: reading, proving, PyTorch's logits, verifying."""


def export(
    source: str | None = None,
    *,
    arch: str | None = None,
    dataset: str | None = None,
    seed: int | None = None,
    precision: list[str] | None = None,
    max_accuracy_loss: Points = 0.2,
    dry_run: bool = False,
    size: str | None = None,
    classes: int | None = None,
    out: str | None = None,
    provider: list[str] | None = None,
    input: Literal["uint8", "float"] = "uint8",
    probabilities: Literal["softmax", "calibrated"] | None = None,
    for_: Literal["triton", "safetensors"] | None = None,
    runs_dir: str = "runs",
    root: str | None = None,
    folder: str | None = None,
    format: Format = "text",
) -> int:
    """Turn a run into a verified ONNX bundle: exports/<task>/.

    The float32 file is proven to be the trained network, in float64, and every file is compared with PyTorch over the
    whole test split before anything is written; a float32 file that differs exits 4 and leaves an earlier bundle as it
    was. A file of lower precision that fails is refused with its reason, and the others are kept.

    Args:
        source: A run folder (runs/<task>/seed<k>), a task folder (its best seed on validation), a task or an
            architecture, whose run is in --runs-dir, or a checkpoint; with --for triton also a bundle.
        arch: The architecture of the run, instead of SOURCE.
        dataset: With an architecture, the data set of the run; by default mnist5k.
        seed: With a task or an architecture, the seed of the run; by default the best seed on validation.
        out: Folder of the bundles, by default exports; with --for triton the model repository, with --for safetensors
            the file.
        precision: Precisions to export, as fp32,fp16,int8; fp32 is always included; int8 is kept only if it is faster.
        provider: Where to verify: cpu, cuda, or both as cpu,cuda; by default cpu, and cuda where it can be used.
        input: What the file takes: uint8 for images (batch, H, W, C) as a decoder gives them, or float for
            (batch, C, H, W) in [0, 1].
        probabilities: Return probabilities, too: softmax of the logits as they are, or calibrated, of the logits
            divided by a temperature that is fitted on the validation images.
        max_accuracy_loss: Points of accuracy that a file of lower precision may lose on the validation split, such as
            0.2%.
        for_: Write this to --out instead of a bundle: triton for a model repository, or safetensors for the weights for
            torch.
        root: Folder of the downloaded datasets, if it is not the one the run used.
        folder: Folder of your own images, if it is not the one the run used.
        dry_run: Only test whether an architecture exports: SOURCE is its name, its weights are untrained, and nothing
            is written.
        runs_dir: Folder of the runs.
        size: With --dry-run, images of HEIGHTxWIDTHxCHANNELS; by default 32x32x3.
        classes: With --dry-run, the number of classes; by default 10.
        format: text for people, json for one JSON document: the manifest, the paths that --for wrote, or the figures of
            --dry-run.

    Examples:
        cnnbench export runs/mnist5k_lenet5/seed1
        cnnbench export lenet5 --precision fp32,int8
        cnnbench export resnet20 --dry-run --size 28x28x1
    """
    if dry_run:
        taken = {"--out": out, "--precision": precision, "--provider": provider, "--for": for_, "--root": root}
        changed = {"--probabilities": probabilities, "--input": None if input == "uint8" else input}
        run = {"--dataset": dataset, "--seed": seed}
        _refuse({**taken, "--folder": folder, **run, **changed}, "--dry-run")
        return _print_dry_run(_architecture(source, arch), ImageSpec.of(size, classes), format)
    _refuse({"--size": size, "--classes": classes}, "a run, which knows its images")
    from cnnbench.bundles import bundle, quantise
    from cnnbench.training.spelling import run_path

    source = run_path(source, arch=arch, dataset=dataset, seed=seed, runs_dir=runs_dir)
    options = bundle.ExportOptions(
        precisions=quantise.with_fp32(precision or ["fp32"]),
        providers=tuple(dict.fromkeys(provider)) if provider else bundle.usable_providers(),
        input=input,
        probabilities="calibrated" if probabilities == "calibrated" else probabilities is not None,
        max_accuracy_loss=max_accuracy_loss,
    )
    if for_ is not None:
        if out is None:
            raise CnnbenchError(f"--for {for_} needs --out: the folder or the file to write")
        with progress.display(None):
            written = bundle.export_for(source, target=for_, out=out, options=options, root=root, folder=folder)
        _print_paths(written, format)
        return Exit.OK
    out = "exports" if out is None else out
    with progress.display(STEPS + len(options.precisions)):
        manifest = bundle.export_run(source, out=out, options=options, root=root, folder=folder)
    _print_bundle(Path(out) / manifest.task, manifest, format)
    say_next("bench", Path(out) / manifest.task, format=format)
    return Exit.OK


def _refuse(flags: Mapping[str, object], what: str) -> None:
    """Raises CnnbenchError for the first flag that is given (exit 2)."""
    for flag, value in flags.items():
        if value is not None:
            raise CnnbenchError(f"{flag} does not apply to {what} (see `cnnbench export --help`)")


def _architecture(source: str | None, arch: str | None) -> str:
    """The architecture that --dry-run tries."""
    if (source is None) == (arch is None):
        raise CnnbenchError("--dry-run tries one architecture, such as `cnnbench export lenet5 --dry-run`")
    return source or str(arch)


def _print_dry_run(arch: str, spec: ImageSpec, format: Format) -> int:
    from cnnbench.bundles.dry_run import dry_export

    tried = dry_export(arch, spec)
    if format == "json":
        print(json.dumps(asdict(tried), indent=2))
    else:
        print(
            f"{arch} for {spec}, untrained, exports to {tried.bytes:,} bytes: on {tried.images} random images the "
            f"largest logit error is {tried.largest_error:.1e} (bound {tried.error_bound:.1e}); in float64 it is the "
            f"network to {tried.graph_error:.1e} of the largest logit"
        )
    return Exit.OK


def _print_paths(paths: tuple[Path, ...], format: Format) -> None:
    if format == "json":
        print(json.dumps([str(path) for path in paths], indent=2))
        return
    for path in paths:
        print(path)


def _print_bundle(path: Path, manifest: Manifest, format: Format) -> None:
    """The manifest as it was written, or a line for each file and each pass over it."""
    if format == "json":
        print((path / "manifest.json").read_text(), end="")
        return
    reference = manifest.reference
    print(
        f"{path}: {manifest.arch} on {manifest.data.name}, accuracy {reference.accuracy:.2%} on "
        f"{reference.images} test images in PyTorch (logits from `{reference.logits_from}`), "
        f"error bound {reference.error_bound:.1e}, TF32 off"
    )
    proof = manifest.proof
    print(
        f"  proven: a function of the image to {proof.function_error:.1e} of the largest logit; "
        f"{len(proof.constants)} constants accounted for, {proof.folded} batch norms folded; in float64 the file is "
        f"the network to {max(proof.fold_error, proof.graph_error):.1e} on {proof.graph_images} images"
    )
    for file in manifest.variants:
        _print_file(file)


def _lost(file: PrecisionFile) -> str:
    if file.precision == "fp32":
        return "as PyTorch"
    return f"{file.lost_points:.2f} points lost on validation, {file.test_lost_points:.2f} on test"


def _print_file(file: PrecisionFile) -> None:
    latency = "" if file.latency_ms is None else f", {file.latency_ms:.3f} ms ({file.fp32_latency_ms:.3f} fp32)"
    verdict = f"REFUSED: {file.refused}" if file.refused else "kept"
    print(f"  {file.file}: {file.bytes:,} bytes, {_lost(file)}{latency}; {verdict}")
    for figures in file.passes:
        error = max(figures.max_abs_error, *figures.batch_errors.values())
        print(
            f"    {figures.active}, optimisations {'on' if figures.optimized else 'off'}: "
            f"{figures.correct} right, {figures.rounding_flips} flips by rounding, {figures.flips} beyond, "
            f"largest logit error {error:.1e}"
        )
