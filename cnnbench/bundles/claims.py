"""What a manifest claims must hold together, and must be possible, before anything is computed from it."""

from __future__ import annotations

from typing import get_args

import numpy as np

from cnnbench.bundles import contract, figures
from cnnbench.bundles.evidence import Check, OpenBundle, failed
from cnnbench.bundles.parity import comparison
from cnnbench.bundles.parity import run as parity
from cnnbench.records.bundle import Manifest, Proof

LARGEST_SIDE, LARGEST_CHANNELS, MOST_CLASSES, LARGEST_DATA = 1024, 64, 100_000, 32 * 2**30
"""Pixels, channels and classes that a manifest may claim, and bytes of all its images."""
BESIDE = ("README.md", "flips.csv", "golden.npz", "predict.py", "reference.npz")
"""Files of every bundle beside its manifest and the ONNX files that it keeps."""
LEAST_IMAGES = 4
"""Golden images on which a file is evaluated in float64 in any case, for a proof and for a verification."""


def check(bundle: OpenBundle) -> Check:
    """Compare the claims of a manifest with each other and with what is possible.

    Raises:
        CheckError: One contradicts another, or is beyond what a bundle can hold (exit 4).
    """
    manifest = bundle.manifest
    _check_names(bundle)
    _check_files(bundle)
    figures.check(manifest)
    precisions = [file.precision for file in manifest.kept]
    if "fp32" not in precisions or len({*precisions}) < len(precisions):
        raise failed(
            "manifest", f"the manifest keeps files of {', '.join(precisions) or 'no'} precision; expected fp32"
        )
    if manifest.reference.images < 1 or not all(file.passes for file in manifest.kept):
        raise failed("manifest", "the manifest keeps a file without a pass over the test images")
    for file in manifest.kept:
        worst = min(each.correct for each in file.passes)
        lost = 100 * (manifest.reference.correct - worst) / manifest.reference.images
        too_much = file.precision != "fp32" and parity.loses_too_much(file.lost_points, file.budget_points)
        if abs(lost - file.test_lost_points) > 1e-6 or too_much:
            raise failed("manifest", f"{file.file} loses {lost:.2f} points by its passes, not what is claimed")
    _check_proof(manifest.proof)
    fp32 = bundle.fp32
    if reason := parity.refusal(fp32.passes, manifest.reference):
        raise failed("manifest", f"the manifest keeps a file that is not the trained network: {reason}")
    return Check("manifest", f"{' and '.join(precisions)}, {manifest.reference.images} test images")


def _is_of_the_graph(temperature: float, manifest: Manifest) -> bool:
    """Whether the graph returns probabilities and has this number; that they are divided by it is seen when it runs."""
    from cnnbench.bundles.parity import weights

    number = weights.sha256(np.array(temperature, dtype=np.float32))
    literals = {constant.sha256 for constant in manifest.proof.constants if constant.rule == "literal"}
    return len(manifest.contract.outputs) > 1 and number in literals


def _check_names(bundle: OpenBundle) -> None:
    """The contract is that of the images, whose size a bundle can hold."""
    manifest, spec = bundle.manifest, bundle.manifest.spec
    large = max(spec.height, spec.width) > LARGEST_SIDE or spec.channels > LARGEST_CHANNELS
    if large or spec.num_classes > MOST_CLASSES:
        raise failed(
            "manifest",
            f"the manifest claims images of {spec}; expected at most {LARGEST_SIDE} pixels a side, {LARGEST_CHANNELS} "
            f"channels and {MOST_CLASSES:,} classes",
        )
    contracts = [
        contract.contract_of(manifest.spec, kind=kind, probabilities=softmax)
        for kind in get_args(contract.InputKind)
        for softmax in (False, True)
    ]
    if manifest.contract not in contracts:
        raise failed("manifest", f"{bundle.path / 'manifest.json'} states another contract than its image spec")
    if manifest.calibration and not _is_of_the_graph(manifest.calibration.temperature, manifest):
        raise failed("manifest", "the manifest claims a temperature that is not a constant of the proven graph")


def _check_files(bundle: OpenBundle) -> None:
    """Every file that is kept has a hash and its size, and none that was refused."""
    manifest = bundle.manifest
    kept = {file.file for file in manifest.kept}
    if missing := {*BESIDE, *kept} - {*manifest.files}:
        raise failed("manifest", f"the manifest has no hash of {', '.join(sorted(missing))}")
    if more := {*manifest.files} - {*BESIDE, *kept}:
        raise failed("manifest", f"the bundle holds {', '.join(sorted(more))}, which its manifest does not keep")
    if any(file.bytes != manifest.files[file.file].bytes for file in manifest.kept):
        raise failed("manifest", "the manifest states another size of a file than it has")


def _check_proof(proof: Proof) -> None:
    """The figures of a proof are ones that an export can have found."""
    if not all(0 <= error <= comparison.EXACT for error in (proof.function_error, proof.fold_error, proof.graph_error)):
        raise failed(
            "proof", f"the manifest's own figures do not make a proof: expected errors of 0 to {comparison.EXACT:g}"
        )
    if proof.graph_images < LEAST_IMAGES or proof.graph_batches != tuple(sorted(comparison.EXACT_BATCHES)):
        batches = ", ".join(map(str, proof.graph_batches)) or "none"
        raise failed(
            "proof",
            f"the manifest's proof is of {proof.graph_images} images at the batch sizes {batches}: expected at least "
            f"{LEAST_IMAGES} at {', '.join(map(str, sorted(comparison.EXACT_BATCHES)))}",
        )
    largest = float(np.finfo(np.float32).max)
    if odd := [value for value in proof.literals if not abs(value) <= largest]:
        raise failed("proof", f"the manifest's proof has the literal {odd[0]:g}, which no float32 number rounds")


def check_amount(bundle: OpenBundle) -> None:
    """The images to score again are of the claimed size, and fit into memory and cache.

    Raises:
        CheckError: They are not (exit 4).
    """
    data, spec = bundle.manifest.data, bundle.manifest.spec
    images = data.train_images + data.val_images + data.test_images
    if data.dataset == "folder" and (data.size, data.size, data.channels) != (spec.height, spec.width, spec.channels):
        raise failed("rescore", f"the manifest's images have {data.size} pixels a side, those of the graph {spec.size}")
    if (size := images * spec.height * spec.width * spec.channels) > LARGEST_DATA:
        raise failed("rescore", f"the manifest claims {size:,} bytes of images; expected at most {LARGEST_DATA:,}")
