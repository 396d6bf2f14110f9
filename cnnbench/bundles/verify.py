"""Verify a bundle from disk: no torch, no training code, only what the bundle holds.

A bundle may come from anyone. Its graphs are parsed, checked and run in a process of their own; what is read here is
JSON, YAML, and arrays that are never unpickled; its predict.py is never run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from cnnbench import records
from cnnbench.bundles import card, contract
from cnnbench.bundles.manifest import open_manifest, require_bundle
from cnnbench.bundles.parity import child, comparison
from cnnbench.bundles.parity import run as parity
from cnnbench.bundles.quantise import PRECISIONS
from cnnbench.datasets.choice import open_recorded
from cnnbench.datasets.splits import evenly_spaced
from cnnbench.records.schema import FileHash, Manifest, PrecisionFile
from cnnbench.runtime import predict
from cnnbench.runtime.providers import require
from cnnbench.types import CnnbenchError, Exit, Split, first_line

SECONDS = 300.0
"""What checking one file and running its few golden images may take."""
SECOND_SIZE = 7
LARGEST_ARRAYS = 2**30
"""Bytes: a few images, and two numbers for each test image, are far less."""
LOOSEST, LOOSEST_LOWER = 0.01, 0.15
"""In parts of the largest golden logit, for float32 and for less: no bound is wider, whatever a manifest says."""


@dataclass(frozen=True)
class Check:
    """One check that passed, and what it saw."""

    name: str
    detail: str


class CheckError(CnnbenchError):
    """A check that failed; `check` is its name."""

    def __init__(self, check: str, message: str, code: Exit) -> None:
        super().__init__(message, code)
        self.check = check


@dataclass(frozen=True)
class _Bundle:
    """What every check reads: the folder, its manifest, and the provider to run on."""

    path: Path
    manifest: Manifest
    provider: str


def verify_bundle(
    path: str | Path,
    *,
    provider: str = "cpu",
    rescore: bool = False,
    root: str | None = None,
    folder: str | None = None,
) -> list[Check]:
    """Verify a bundle from disk: hashes, manifest, card, ONNX checker, contract, golden outputs, predictions.

    Args:
        path: A folder that `export` wrote.
        provider: Where to run it: "cpu" or "cuda"; it runs there or fails.
        rescore: Whether to score the whole test split again and compare every prediction.
        root: Folder of the downloaded datasets, for `rescore`.
        folder: Folder of your own images, for `rescore`.

    Returns:
        The checks in order, all passed.

    Raises:
        CheckError: One does not accept the bundle (exit 3 where something cannot be read, else 4).
        CnnbenchError: The bundle or the test images are missing (exit 3), or the provider is unknown (exit 2) or
            cannot be used (exit 6).
    """
    path = Path(path)
    require_bundle(path)
    if provider != "cpu":
        require(provider)
    bundle = _Bundle(path, open_manifest(path), provider)
    manifest = bundle.manifest
    checks = [_check_hashes(bundle), _check_manifest(bundle), _check_card(bundle)]
    logits = {file.precision: _golden_logits(bundle, file) for file in manifest.kept}
    checks += [
        Check("graph", f"{len(logits)} valid ONNX, contract and metadata as stated, weights inside"),
        *(_check_golden(bundle, file, logits[file.precision]) for file in manifest.kept),
        _check_reference(bundle),
    ]
    if rescore:
        data = open_recorded(manifest.data, root=root, folder=folder)
        if (data.class_names, data.spec) != (manifest.class_names, manifest.spec):
            raise _failed("rescore", "the manifest's class names or image spec are not those of the test images")
        checks += [_rescore(bundle, file, data.test) for file in manifest.kept]
    return checks


def _check_hashes(bundle: _Bundle) -> Check:
    path, manifest = bundle.path, bundle.manifest
    for name, expected in manifest.files.items():
        if Path(name).name != name:
            raise _failed("hashes", f"the manifest names {name}, which is not a file of the bundle's own folder")
        if not (path / name).is_file():
            raise _failed("hashes", f"{path / name} is missing; export the bundle again")
        actual = FileHash(records.sha256(path / name), (path / name).stat().st_size)
        if actual != expected:
            raise _failed("hashes", f"{path / name} was edited: its content does not match the manifest's hash")
    # a module of a name that predict.py imports would run in its stead; what a repository keeps hidden cannot
    names = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}
    if more := names - {*manifest.files, "manifest.json"}:
        raise _failed("hashes", f"{path} also holds {', '.join(sorted(more))}: not of the bundle; remove it")
    return Check("hashes", f"{len(manifest.files)} files as written, and no other")


def _check_manifest(bundle: _Bundle) -> Check:
    """What the manifest says must hold together before anything is computed from it."""
    manifest = bundle.manifest
    _check_names(bundle)
    precisions = [file.precision for file in manifest.kept]
    if "fp32" not in precisions or len({*precisions}) < len(precisions) or not {*precisions} <= {*PRECISIONS}:
        raise _failed(
            "manifest", f"the manifest keeps files of {', '.join(precisions) or 'no'} precision; expected fp32"
        )
    if manifest.reference.images < 1 or not all(file.passes for file in manifest.kept):
        raise _failed("manifest", "the manifest keeps a file without a pass over the test images")
    for file in manifest.kept:
        worst = min(figures.correct for figures in file.passes)
        lost = 100 * (manifest.reference.correct - worst) / manifest.reference.images
        too_much = file.precision != "fp32" and parity.loses_too_much(lost, file.budget_points)
        if abs(lost - file.lost_points) > 1e-6 or too_much:
            raise _failed("manifest", f"{file.file} loses {lost:.2f} points by its passes, not what is claimed")
    fp32 = next(file for file in manifest.kept if file.precision == "fp32")
    if reason := parity.refusal(fp32.passes, manifest.reference):
        raise _failed("manifest", f"the manifest keeps a file that is not the trained network: {reason}")
    return Check("manifest", f"{' and '.join(precisions)}, {manifest.reference.images} test images")


def _check_names(bundle: _Bundle) -> None:
    """The contract is that of the images, and every file is there with its size."""
    manifest = bundle.manifest
    contracts = [
        contract.contract_of(manifest.spec, kind=kind, probabilities=softmax)
        for kind in get_args(contract.InputKind)
        for softmax in (False, True)
    ]
    if manifest.contract not in contracts:
        raise _failed("manifest", f"{bundle.path / 'manifest.json'} states another contract than its image spec")
    missing = {"predict.py", "golden.npz", "reference.npz", "README.md"} - {*manifest.files}
    missing |= {file.file for file in manifest.kept} - {*manifest.files}
    if missing:
        raise _failed("manifest", f"the manifest has no hash of {', '.join(sorted(missing))}")
    if any(file.bytes != manifest.files[file.file].bytes for file in manifest.kept):
        raise _failed("manifest", "the manifest states another size of a file than it has")


def _check_card(bundle: _Bundle) -> Check:
    """The card claims what the manifest does; and whether predict.py is the one of this version."""
    path, manifest = bundle.path, bundle.manifest
    if card.read_front_matter(path / "README.md") != card.front_matter(manifest):
        raise _failed("card", f"{path / 'README.md'} claims something else than manifest.json")
    same = records.sha256(path / "predict.py") == records.sha256(Path(predict.__file__))
    script = "as in this version" if same else "of another version or edited: read it before you run it"
    text = "" if _as_written(bundle) else "; its text is of another version or edited"
    return Check("card", f"claims what the manifest does{text}; predict.py {script}")


def _as_written(bundle: _Bundle) -> bool:
    try:
        return (bundle.path / "README.md").read_text() == card.text(bundle.manifest)
    except Exception:  # what the template meets in a manifest that lacks something
        return False


def _golden_logits(bundle: _Bundle, file: PrecisionFile) -> np.ndarray:
    """Logits of the golden images and the noise at two batch sizes `(2, N, num_classes)`, from a process of its own.

    It checks the file first. The second size shows a batch that is fixed at the number of golden images.
    """
    golden, spec = bundle.path / "golden.npz", bundle.manifest.spec
    pixels, noise, logits, noise_logits = _arrays("golden", golden, "pixels", "noise", "logits", "noise_logits")
    for images, expected in ((pixels, logits), (noise, noise_logits)):
        if images.dtype != np.uint8 or images.shape[1:] != (spec.height, spec.width, spec.channels) or not len(images):
            raise _failed("golden", f"golden.npz does not fit the graph: images are {images.dtype} {images.shape}")
        if expected.dtype != np.float32 or expected.shape != (len(images), spec.num_classes):
            raise _failed("golden", f"golden.npz does not fit the graph: logits are {expected.dtype} {expected.shape}")
    images = np.concatenate([pixels, noise])
    try:
        return _logits(bundle, file, images, seconds=SECONDS, sizes=(comparison.CHUNK, SECOND_SIZE))
    except CnnbenchError as error:
        raise CheckError("graph", str(error), error.code) from None


def _logits(
    bundle: _Bundle,
    file: PrecisionFile,
    images: np.ndarray,
    *,
    seconds: float | None,
    sizes: Sequence[int],
    levels: Sequence[bool] = (True,),
) -> np.ndarray:
    """Logits of a file with graph optimisations on or off, at each of `sizes`: `(levels * sizes, N, num_classes)`."""
    with tempfile.TemporaryDirectory(prefix="cnnbench-") as out:
        np.save(Path(out) / "images.npy", images)
        request = child.Examination(
            model=str((bundle.path / file.file).absolute()),
            contract=bundle.manifest.contract,
            metadata=contract.manifest_metadata(bundle.manifest, file.precision),
            provider=bundle.provider,
            images=f"{out}/images.npy",
            passes=tuple(
                child.PassRequest(optimized=level, sizes=dict.fromkeys(sizes, len(images)), profile=False)
                for level in levels
            ),
            out=out,
        )
        parity.examine(request, about=str(bundle.path / file.file), seconds=seconds)
        files = [f"{out}/{index}-{size}.npy" for index in range(len(levels)) for size in sizes]
        return np.stack([np.load(name, allow_pickle=False) for name in files])


def _check_golden(bundle: _Bundle, file: PrecisionFile, logits: np.ndarray) -> Check:
    """Logits of float32 against PyTorch's, on noise too; of lower precision against its own when it was exported."""
    golden = bundle.path / "golden.npz"
    if file.precision == "fp32":
        expected = np.concatenate(_arrays("golden", golden, "logits", "noise_logits"))
    else:
        (expected,) = _arrays("golden", golden, f"logits_{file.precision}")
        logits = logits[:, : len(expected)]
    if expected.shape != logits.shape[1:]:
        raise _failed("golden", f"golden.npz holds logits {expected.shape}, the graph gives {logits.shape[1:]}")
    error, bound = float(np.abs(logits - expected).max()), _bound(bundle.manifest, file)
    largest = float(np.abs(expected).max())
    if file.precision != "fp32":
        bound = min(bound, LOOSEST_LOWER * largest)
    elif not bound <= LOOSEST * largest:
        raise _failed("golden", f"the manifest's error bound {bound:.2g} would hide another network")
    if not error <= bound:
        raise _failed("golden", f"golden logits of {file.file} differ by {error:.2g}; bound {bound:.2g}")
    detail = f"{file.file}: {len(expected)} images, largest logit error {error:.1e} (bound {bound:.1e})"
    return Check("golden", detail)


def _bound(manifest: Manifest, file: PrecisionFile) -> float:
    """How far a file's logits may be from the golden ones: by rounding; or, of lower precision, by what it costs.

    Other processors' kernels round 8-bit sums elsewhere, and then differ by about as much as from PyTorch.
    """
    if file.precision == "fp32":
        return manifest.reference.error_bound
    return max(figures.p999_abs_error for figures in file.passes)


def _check_reference(bundle: _Bundle) -> Check:
    """The stored predictions must add up to the accuracy that the manifest claims, and agree with the golden logits."""
    labels, predictions = _arrays("reference", bundle.path / "reference.npz", "labels", "predictions")
    if not {labels.dtype, predictions.dtype} == {np.dtype(np.int32)} or not labels.ndim == predictions.ndim == 1:
        raise _failed("reference", "reference.npz does not hold two rows of classes, int32")
    if len(labels) != len(predictions):
        raise _failed("reference", f"reference.npz has {len(labels)} labels and {len(predictions)} predictions")
    (logits,) = _arrays("golden", bundle.path / "golden.npz", "logits")
    correct, claimed = int((labels == predictions).sum()), bundle.manifest.reference
    if (len(labels), correct) != (claimed.images, claimed.correct):
        raise _failed(
            "reference",
            f"reference.npz gives {correct} of {len(labels)} images right; "
            f"the manifest claims {claimed.correct} of {claimed.images}",
        )
    golden = evenly_spaced(len(labels), len(logits))
    if len(golden) != len(logits) or (logits.argmax(axis=1) != predictions[golden]).any():
        raise _failed("reference", "reference.npz and golden.npz disagree on the class of a golden image")
    for file in bundle.manifest.kept:
        for figures in file.passes:
            if abs(figures.correct - correct) > figures.flips + figures.rounding_flips:
                raise _failed("reference", f"the manifest's accuracy of {file.file} is not what its flips allow")
    return Check("reference", f"{correct} of {len(labels)} images right in PyTorch, as claimed")


def _rescore(bundle: _Bundle, file: PrecisionFile, test: Split) -> Check:
    """Compare the predictions of the whole test split with the stored ones."""
    labels, expected = _arrays("reference", bundle.path / "reference.npz", "labels", "predictions")
    if len(labels) != len(test) or (labels != test.labels).any():
        raise _failed("rescore", "the labels of reference.npz are not the test split's")
    levels = (True,) if file.precision == "fp32" else (True, False)
    try:
        logits = _logits(bundle, file, test.images, seconds=None, sizes=(comparison.CHUNK,), levels=levels)
    except CnnbenchError as error:
        raise CheckError("rescore", str(error), error.code) from None
    predictions = logits.argmax(axis=2)
    correct, differing = (predictions == labels).sum(axis=1), int((predictions[0] != expected).sum())
    if file.precision == "fp32":
        allowed = _ties(logits[0], expected, bound=bundle.manifest.reference.error_bound)
        how = "by rounding"
        here = {True: int(correct[0]), False: int(correct[0])}  # the same network at both levels, within the bound
    else:
        allowed = max(2, len(labels) // 200)  # kernels of other processors round 8-bit sums elsewhere
        lost = _lost_here(bundle, file, int(correct.min()))
        how = f"from PyTorch's, {lost:.2f} points lost"
        here = dict(zip(levels, map(int, correct), strict=True))  # optimised 8-bit kernels may saturate
    _check_claims(file, here, allowed)
    return Check(
        "rescore", f"{file.file}: {correct[0]} of {len(labels)} images right, {differing} predictions differ {how}"
    )


def _check_claims(file: PrecisionFile, correct: dict[bool, int], allowed: int) -> None:
    """Compare the claims of each pass with the images that are right here, by level of graph optimisation.

    Raises:
        CheckError: A claim is off by more than `allowed` images.
    """
    for claimed in file.passes:
        here, level = correct[claimed.optimized], "on" if claimed.optimized else "off"
        if abs(claimed.correct - here) > allowed:
            raise _failed(
                "rescore",
                f"{file.file} has {here} images right here with graph optimisations {level}, "
                f"not what the manifest claims of it: {claimed.correct}",
            )


def _lost_here(bundle: _Bundle, file: PrecisionFile, correct: int) -> float:
    """Points of accuracy that a file of lower precision loses to PyTorch on this machine.

    Raises:
        CheckError: They are more than are accepted.
    """
    reference = bundle.manifest.reference
    lost = 100 * (reference.correct - correct) / reference.images
    if parity.loses_too_much(lost, file.budget_points):
        raise _failed(
            "rescore", f"{file.file} loses {lost:.2f} points here; at most {file.budget_points:g} are accepted"
        )
    return lost


def _ties(logits: np.ndarray, expected: np.ndarray, *, bound: float) -> int:
    """Images that rounding may decide otherwise.

    Args:
        logits: Of the float32 file, `(N, num_classes)`.
        expected: The stored predictions `(N,)`.
        bound: The error bound of a logit.

    Raises:
        CheckError: A prediction differs by more than rounding.
    """
    predictions = logits.argmax(axis=1)
    rows = np.flatnonzero(predictions != expected)
    beyond = int((logits[rows, predictions[rows]] - logits[rows, expected[rows]] > 2 * bound).sum())
    if beyond:
        raise _failed("rescore", f"{beyond} of {len(predictions)} predictions differ from the stored ones")
    second, first = np.sort(logits, axis=1)[:, -2:].T
    return int((first - second <= 2 * bound).sum())


def _arrays(check: str, path: Path, *names: str) -> list[np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:  # given a path it leaks the file
            if (size := sum(entry.file_size for entry in stored.zip.infolist())) > LARGEST_ARRAYS:
                raise ValueError(f"it unpacks to {size:,} bytes; expected at most {LARGEST_ARRAYS:,}")
            return [stored[name] for name in names]
    except Exception as error:  # zipfile, zlib and numpy's parser of headers each have their own
        raise CheckError(check, f"{path} cannot be read: {first_line(error)}", Exit.DATA) from None


def _failed(check: str, message: str) -> CheckError:
    return CheckError(check, message, Exit.VERDICT)
