"""Verify a bundle from disk: no torch, no training code, only what the bundle holds.

A bundle may come from anyone. Its graphs are parsed, checked and run in a separate process; what is read here is
JSON, YAML, and arrays that are never unpickled; its predict.py is never run.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from cnnbench import records
from cnnbench.analysis.per_class import tally
from cnnbench.bundles import answers, card, claims, inventory, scripts
from cnnbench.bundles.evidence import SECONDS, Check, CheckError, OpenBundle, failed
from cnnbench.bundles.manifest import MANIFEST, open_manifest, require_bundle
from cnnbench.bundles.parity import child, comparison
from cnnbench.bundles.parity import run as parity
from cnnbench.bundles.rescore import score_again
from cnnbench.datasets.choice import open_recorded
from cnnbench.records.bundle import FileHash, PrecisionFile
from cnnbench.records.schema import ClassTally
from cnnbench.runtime import openvino_session, sandbox
from cnnbench.runtime.providers import require
from cnnbench.types import CnnbenchError, Exit

EXACT_SECONDS, EXACT_IMAGES = 20.0, claims.LEAST_IMAGES
"""How long the float32 file is evaluated in float64, and on how many images in any case."""
TOTAL_SECONDS, RESCORE_SECONDS = 900.0, 4 * 3600.0
"""What a whole verification may take, without scores and with them."""


def verify_bundle(
    path: str | Path,
    *,
    provider: str = "cpu",
    backend: child.Backend = "onnxruntime",
    quick: bool = False,
    rescore: bool = False,
    allow_predict: bool = False,
    root: str | None = None,
    folder: str | None = None,
    timeout: float | None = None,
) -> list[Check]:
    """Verify a bundle from disk: hashes, manifest, card, ONNX checker, contract, proof, golden outputs, predictions.

    The proof is asked again without torch: every constant of the float32 file against its hash, and the file evaluated
    in float64 against the logits in the bundle. A forgery that changes weights, logits and hashes together cannot be
    told from the real one.

    Args:
        path: A folder that `export` wrote.
        provider: Where to run it: "cpu" or "cuda"; it runs there or fails.
        backend: What runs it: "onnxruntime", or "openvino", which is told to keep float32, on the CPU.
        quick: Whether to leave out the evaluation in float64.
        rescore: Whether to score the whole test split again and compare every prediction.
        allow_predict: Whether to accept a predict.py that is none of cnnbench's.
        root: Folder of the downloaded datasets, for `rescore`.
        folder: Folder of your own images, for `rescore`.
        timeout: Seconds that all of it may take; by default 900, and 4 hours with `rescore`.

    Returns:
        The checks in order, all passed.

    Raises:
        CheckError: One does not accept the bundle (exit 3 where something cannot be read, else 4).
        CnnbenchError: The bundle or the test images are missing (exit 3), or the provider is unknown or the
            backend does not have it (exit 2), or one of the two cannot be used (exit 6).
    """
    path = Path(path)
    require_bundle(path)
    if backend == "openvino":
        openvino_session.require(provider)
    elif provider != "cpu":
        require(provider)
    seconds = (RESCORE_SECONDS if rescore else TOTAL_SECONDS) if timeout is None else timeout
    found = inventory.take(path)
    before = _state(path, found)
    bundle = OpenBundle(path, open_manifest(path), provider, backend, time.monotonic() + seconds)
    manifest = bundle.manifest
    checks = [_check_hashes(bundle, found, before), claims.check(bundle), _check_card(bundle, allow_predict)]
    checks.append(Check("confined", sandbox.confinement()))
    given = {file.precision: answers.of_golden(bundle, file) for file in manifest.kept}
    checks += [
        Check("graph", f"{len(given)} valid ONNX, contract and metadata as stated, weights inside"),
        _check_proof(bundle, quick=quick),
        *(_check_lower(bundle, file) for file in manifest.kept if file.precision != "fp32"),
        *(answers.check(bundle, file, answers=given[file.precision]) for file in manifest.kept),
        _check_reference(bundle),
    ]
    if rescore:
        claims.check_amount(bundle)
        data = open_recorded(manifest.data, root=root, folder=folder)
        if (data.class_names, data.spec) != (manifest.class_names, manifest.spec):
            raise failed("rescore", "the manifest's class names or image spec are not those of the test images")
        if manifest.preprocessing not in (None, data.preprocessing):
            raise failed("rescore", "the manifest's preprocessing is not the one that the training images ask for")
        checks += [score_again(bundle, file, data=data) for file in manifest.kept]
    _require_unchanged(path, before)
    return checks


def _state(path: Path, found: inventory.Inventory) -> dict[str, FileHash]:
    """Hash and size of each of the bundle's own files."""
    return {name: FileHash(_sha256(path / name), (path / name).stat().st_size) for name in sorted(found.own)}


def _require_unchanged(path: Path, before: dict[str, FileHash]) -> None:
    """The files are still those that were read first: each check opens them anew.

    Raises:
        CheckError: One is gone, new or another (exit 3).
    """
    after = _state(path, inventory.take(path))
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    if changed:
        raise CheckError("hashes", f"{path / changed[0]} changed while it was verified: verify it again", Exit.DATA)


def _check_hashes(bundle: OpenBundle, found: inventory.Inventory, hashes: dict[str, FileHash]) -> Check:
    path, listed = bundle.path, {*bundle.manifest.files}
    if more := sorted(listed - {*card.CONTENTS}):
        raise failed("hashes", f"the manifest lists {', '.join(more)}: no file of a bundle has this name")
    if missing := sorted(listed - found.own):
        raise failed("hashes", f"{path / missing[0]} is missing; export the bundle again")
    if more := sorted(found.own - listed - {MANIFEST}):
        raise failed("hashes", f"{path} also holds {', '.join(more)}: not of this bundle; remove it")
    for name, expected in bundle.manifest.files.items():
        if hashes[name] != expected:
            raise failed("hashes", f"{path / name} was edited: its content does not match the manifest's hash")
    others = f"; not read: {', '.join(found.others)}" if found.others else ""
    return Check("hashes", f"{len(listed)} files as written{others}")


def _sha256(path: Path) -> str:
    try:
        return records.sha256(path)
    except OSError as error:
        raise CheckError("hashes", f"cannot read {path}: {error.strerror}", Exit.DATA) from None


def _check_card(bundle: OpenBundle, allow_predict: bool) -> Check:
    """The card claims what the manifest does, and predict.py is one of cnnbench's or allowed to be another."""
    path, manifest = bundle.path, bundle.manifest
    if card.read_front_matter(path / "README.md") != card.front_matter(manifest):
        raise failed("card", f"{path / 'README.md'} claims something else than manifest.json")
    warnings, note = [], ""
    if not _as_written(bundle):
        if manifest.card == card.version():
            raise failed("card", f"{path / 'README.md'} has another text than manifest.json gives: it was edited")
        note = "; its text is of another version or edited"
        warnings.append("README.md is of another version of cnnbench, or was edited: its text is not checked")
    script = scripts.version_of(path / "predict.py")
    if not script and not allow_predict:
        raise failed(
            "card",
            f"{path / 'predict.py'} is edited or of a later version: read it, then allow it with --allow-predict "
            "(allow_predict=True)",
        )
    script = script or scripts.Version(
        "edited or of a later version, and allowed: read it before you run it", warned=True, follows=True
    )
    if manifest.preprocessing and not script.follows:
        raise failed("card", f"{path / 'predict.py'} is of an earlier version and would not follow its preprocessing")
    if script.warned:
        warnings.append(f"predict.py is {script.words}")
    return Check("card", f"claims what the manifest does{note}; predict.py {script.words}", tuple(warnings))


def _as_written(bundle: OpenBundle) -> bool:
    try:
        return records.read_bytes(bundle.path / "README.md").decode() == card.text(bundle.manifest)
    except Exception:  # what the template meets in a manifest that lacks something
        return False


def _check_proof(bundle: OpenBundle, *, quick: bool) -> Check:
    """The float32 file is the network of the golden logits: every constant by its hash, the graph in float64.

    Args:
        bundle: What to check.
        quick: Whether to leave out the graph.
    """
    golden, proof = bundle.golden, bundle.manifest.proof
    fp32 = bundle.fp32
    with records.temporary_folder() as out:
        np.save(Path(out) / "images.npy", golden.pixels)
        request = child.ExactRequest(
            model=bundle.place(fp32),
            contract=bundle.manifest.contract,
            proof=proof,
            spec=bundle.manifest.spec,
            images=f"{out}/images.npy",
            seconds=0 if quick else EXACT_SECONDS,
            least=0 if quick else EXACT_IMAGES,
            out=f"{out}/logits.npy",
        )
        try:
            evaluated = sandbox.call(
                child.evaluate,
                request,
                about=str(bundle.path / fp32.file),
                reads=[request.model],
                writes=[out],
                seconds=bundle.seconds(SECONDS),
            )
            logits = np.load(f"{out}/logits.npy", allow_pickle=False) if evaluated else golden.logits[:0]
        except CnnbenchError as error:
            raise CheckError("proof", str(error), error.code) from None
    if proof.graph_images > len(golden.pixels):
        raise failed("proof", f"the manifest's proof is of {proof.graph_images} of {len(golden.pixels)} golden images")
    held = f"{fp32.file}: {len(proof.constants)} constants as proven"
    if quick:
        return Check("proof", f"{held}; not evaluated in float64 (--quick)")
    largest = float(np.abs(golden.logits).max())
    difference = comparison.relative(golden.logits[:evaluated], logits, largest=largest)
    if not difference <= comparison.EXACT:
        raise failed(
            "proof",
            f"{fp32.file} is not the network of golden.npz: in float64 its logits differ by {difference:.1e} of the "
            f"largest; expected at most {comparison.EXACT:g}",
        )
    return Check(
        "proof",
        f"{held}; in float64 {difference:.1e} of the largest logit on {evaluated} of {len(golden.pixels)} golden "
        f"images (at most {comparison.EXACT:g}); not detected: a forgery of weights, logits and hashes together, or a "
        "difference that only other images or batch sizes show",
    )


def _check_lower(bundle: OpenBundle, file: PrecisionFile) -> Check:
    """A file of lower precision is the float32 file, rounded: every constant is as near as it can be."""
    fp32 = bundle.fp32
    request = child.LowerRequest(
        model=bundle.place(file),
        fp32=bundle.place(fp32),
        precision="fp16" if file.precision == "fp16" else "int8",
    )
    try:
        found = sandbox.call(
            child.compare,
            request,
            about=str(bundle.path / file.file),
            reads=[request.model, request.fp32],
            seconds=bundle.seconds(SECONDS),
        )
    except CnnbenchError as error:
        raise CheckError("lower", f"{file.file}: {error}", error.code) from None
    if found.clamped != file.clamped:
        raise failed(
            "lower",
            f"{file.file} has {found.clamped} weights at the limit of float16; the manifest claims {file.clamped}",
        )
    how = "within half a step of float32's"
    if file.precision == "fp16":
        how = f"the nearest half of float32's, {found.clamped} numbers at the limit of float16"
    return Check("lower", f"{file.file}: {found.rounded} weights {how}")


def _check_reference(bundle: OpenBundle) -> Check:
    """The stored predictions must add up to the accuracy that the manifest claims, and agree with the golden logits."""
    labels, predictions = bundle.classes("")
    correct, claimed = int((labels == predictions).sum()), bundle.manifest.reference
    if (len(labels), correct) != (claimed.images, claimed.correct):
        raise failed(
            "reference",
            f"reference.npz gives {correct} of {len(labels)} images right; "
            f"the manifest claims {claimed.correct} of {claimed.images}",
        )
    if bundle.manifest.by_class is not None:
        _check_classes(bundle.manifest.by_class, labels, predictions)
    golden = bundle.golden
    of_test, places = golden.logits[golden.places >= 0], golden.places[golden.places >= 0]
    rows = np.arange(len(places))
    if (of_test.max(axis=1) - of_test[rows, predictions[places] % of_test.shape[1]] > 2 * claimed.error_bound).any():
        raise failed("reference", "reference.npz and golden.npz disagree on the class of a golden image")
    _check_validation(bundle)
    for file in bundle.manifest.kept:
        for figures in file.passes:
            if abs(figures.correct - correct) > figures.flips + figures.rounding_flips:
                raise failed("reference", f"the manifest's accuracy of {file.file} is not what its flips allow")
    return Check("reference", f"{correct} of {len(labels)} images right in PyTorch, as claimed")


def _check_classes(claimed: ClassTally, labels: np.ndarray, predictions: np.ndarray) -> None:
    """The images by class must be those of the stored predictions."""
    classes = len(claimed.images)
    known = min(labels.min(), predictions.min()) >= 0 and max(labels.max(), predictions.max()) < classes
    if not known or tally(labels, predictions, classes=classes) != claimed:
        raise failed("reference", "reference.npz gives other images by class than the manifest claims")


def _check_validation(bundle: OpenBundle) -> None:
    """The accuracy on the validation split, and what each smaller file loses there, must follow from predictions."""
    labels, predictions = bundle.classes("val_")
    if len(labels) != bundle.manifest.data.val_images:
        raise failed("reference", f"reference.npz has {len(labels)} validation images, not the manifest's number")
    correct, claimed = int((labels == predictions).sum()), bundle.manifest.run.val_accuracy
    if abs(claimed * len(labels) - correct) > 0.5:
        raise failed(
            "reference",
            f"reference.npz gives {correct} of {len(labels)} validation images right; the manifest claims "
            f"{100 * claimed:.2f} %",
        )
    for file in bundle.manifest.kept:
        if file.precision != "fp32":
            _, own = bundle.classes("val_", of=f"_{file.precision}")
            lost = parity.points_lost(
                int((labels == predictions).sum()), [int((labels == own).sum())], images=len(labels)
            )
            if lost > file.lost_points + 1e-6:  # another pass may lose more
                raise failed(
                    "reference", f"{file.file} loses {lost:.2f} points on validation, more than the manifest claims"
                )
