"""Prove a bundle again from disk: no torch, no training code, only what the bundle holds.

A bundle may come from a stranger. Its graphs are parsed, checked and run in a process of their own; what is read here
is JSON, YAML, and arrays that are never unpickled; its predict.py is never run.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np

from cnnbench import records
from cnnbench.bundles import card, contract
from cnnbench.bundles.parity import comparison as verdict
from cnnbench.bundles.parity import run as proof
from cnnbench.bundles.quantise import PRECISIONS
from cnnbench.datasets.choice import open_recorded
from cnnbench.records.schema import FileHash, Manifest, Variant
from cnnbench.runtime import predict, sandbox
from cnnbench.types import CnnbenchError, Exit

SECONDS = 300.0
"""What checking one file and running its few golden images may take."""
SECOND_SIZE = 7
LARGEST_ARRAYS = 2**30
"""Bytes: a few images, and two numbers for each test image, are far less."""
LOOSEST, LOOSEST_LOWER = 0.01, 0.15
"""Of the largest golden logit, for float32 and for less: whatever a manifest says, no bound is wider."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, and what was seen."""

    name: str
    seen: str


class CheckError(CnnbenchError):
    """What a check did not accept; `check` is its name."""

    def __init__(self, check: str, message: str, code: Exit) -> None:
        super().__init__(message, code)
        self.check = check


def verify(
    bundle: str,
    provider: str = "cpu",
    rescore: bool = False,
    root: str | None = None,
    folder: str | None = None,
    json: bool = False,
) -> int:
    """Prove a bundle again from disk: hashes, ONNX checker, contract, golden outputs, reference predictions.

    Args:
        bundle: A folder that `export` wrote.
        provider: Where to run it: cpu or cuda; it runs there or fails.
        rescore: Also score the whole test split again and compare every prediction.
        root: Folder of the downloaded datasets, for --rescore.
        folder: Folder of your own images, for --rescore.
        json: Print the checks as one JSON document.
    """
    path = Path(bundle)
    checks = prove(path, provider, rescore, root, folder)
    _report(path, checks, provider, json)
    return Exit.OK


def prove(
    path: Path, provider: str, rescore: bool = False, root: str | None = None, folder: str | None = None
) -> list[Check]:
    """Run every check; see `verify`.

    Raises:
        CheckError: One does not accept the bundle (exit 3 where something cannot be read, else 4).
        CnnbenchError: The bundle or the test images are missing (exit 3), or the provider cannot be used (exit 6).
    """
    if not (path / "manifest.json").is_file():
        raise CnnbenchError(
            f"no bundle at {path}: expected a folder with manifest.json, as `export` writes it", Exit.DATA
        )
    if provider != "cpu":
        from cnnbench.runtime.providers import require

        require(provider)
    manifest = records.read(path / "manifest.json", Manifest)
    checks = [_hashes(path, manifest), _manifest(path, manifest), _card(path, manifest)]
    found = {variant.precision: _golden_logits(path, manifest, variant, provider) for variant in manifest.kept}
    checks += [
        Check("graph", f"{len(found)} valid ONNX, contract and metadata as stated, weights inside"),
        *(_golden(path, manifest, variant, found[variant.precision]) for variant in manifest.kept),
        _reference(path, manifest),
    ]
    if rescore:
        data = open_recorded(manifest.data, root=root, folder=folder)
        if (data.class_names, data.spec) != (manifest.class_names, manifest.spec):
            raise _failed("rescore", "the manifest's class names or image spec are not those of the test images")
        checks += [_rescore(path, manifest, variant, provider, data.test) for variant in manifest.kept]
    return checks


def _hashes(path: Path, manifest: Manifest) -> Check:
    for name, expected in manifest.files.items():
        if Path(name).name != name:
            raise _failed("hashes", f"the manifest names {name}, which is not a file of the bundle's own folder")
        if not (path / name).is_file():
            raise _failed("hashes", f"{path / name} is missing; export the bundle again")
        found = FileHash(records.sha256(path / name), (path / name).stat().st_size)
        if found != expected:
            raise _failed("hashes", f"{path / name} was edited: its content does not match the manifest's hash")
    # a module of a name that predict.py imports would run in its stead; what a repository keeps hidden cannot
    more = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}
    if more := more - {*manifest.files, "manifest.json"}:
        raise _failed("hashes", f"{path} also holds {', '.join(sorted(more))}: not of the bundle; remove it")
    return Check("hashes", f"{len(manifest.files)} files as written, and no other")


def _manifest(path: Path, manifest: Manifest) -> Check:
    """What the manifest says must hold together before anything is computed from it."""
    known = [
        contract.signature(manifest.spec, kind, softmax)
        for kind in get_args(contract.InputKind)
        for softmax in (False, True)
    ]
    if manifest.contract not in known:
        raise _failed("manifest", f"{path / 'manifest.json'} states another contract than its image spec")
    if not manifest.task or manifest.task.startswith(".") or Path(manifest.task).name != manifest.task:
        raise _failed("manifest", f"the task {manifest.task!r} is no name for a folder")
    missing = {"predict.py", "golden.npz", "reference.npz", "README.md"} - {*manifest.files}
    missing |= {variant.file for variant in manifest.kept} - {*manifest.files}
    if missing:
        raise _failed("manifest", f"the manifest has no hash of {', '.join(sorted(missing))}")
    if any(variant.bytes != manifest.files[variant.file].bytes for variant in manifest.kept):
        raise _failed("manifest", "the manifest states another size of a file than it has")
    precisions = [variant.precision for variant in manifest.kept]
    if "fp32" not in precisions or len({*precisions}) < len(precisions) or not {*precisions} <= {*PRECISIONS}:
        raise _failed(
            "manifest", f"the manifest keeps files of {', '.join(precisions) or 'no'} precision; expected fp32"
        )
    if manifest.reference.images < 1 or not all(variant.passes for variant in manifest.kept):
        raise _failed("manifest", "the manifest keeps a file without a pass over the test images")
    for variant in manifest.kept:
        worst = min(found.correct for found in variant.passes)
        lost = 100 * (manifest.reference.correct - worst) / manifest.reference.images
        if abs(lost - variant.lost_points) > 1e-6 or (
            variant.precision != "fp32" and lost > variant.budget_points + 1e-9
        ):
            raise _failed("manifest", f"{variant.file} loses {lost:.2f} points by its passes, not what is claimed")
    fp32 = next(variant for variant in manifest.kept if variant.precision == "fp32")
    if reason := proof.not_the_network(fp32.passes, manifest.reference):
        raise _failed("manifest", f"the manifest keeps a file that is not the trained network: {reason}")
    return Check("manifest", f"{' and '.join(precisions)}, {manifest.reference.images} test images")


def _card(path: Path, manifest: Manifest) -> Check:
    """The card claims what the manifest does; and whether predict.py is the one we know."""
    if card.read_front_matter(path / "README.md") != card.front_matter(manifest):
        raise _failed("card", f"{path / 'README.md'} claims something else than manifest.json")
    same = records.sha256(path / "predict.py") == records.sha256(Path(predict.__file__))
    known = "as in this version" if same else "of another version or edited: read it before you run it"
    text = "" if _as_written(path, manifest) else "; its text is of another version or edited"
    return Check("card", f"claims what the manifest does{text}; predict.py {known}")


def _as_written(path: Path, manifest: Manifest) -> bool:
    try:
        return (path / "README.md").read_text() == card.text(manifest)
    except Exception:  # what the template meets in a manifest that lacks something
        return False


def _golden_logits(path: Path, manifest: Manifest, variant: Variant, provider: str) -> np.ndarray:
    """Logits of the golden images and the noise at two batch sizes `(2, N, num_classes)`, from a process of its own.

    It checks the file first. The second size shows a batch that is fixed at the number of golden images.
    """
    pixels, noise = _arrays("golden", path / "golden.npz", "pixels", "noise")
    spec = manifest.spec
    logits, noise_logits = _arrays("golden", path / "golden.npz", "logits", "noise_logits")
    for images, expected in ((pixels, logits), (noise, noise_logits)):
        if images.dtype != np.uint8 or images.shape[1:] != (spec.height, spec.width, spec.channels) or not len(images):
            raise _failed("golden", f"golden.npz does not fit the graph: images are {images.dtype} {images.shape}")
        if expected.dtype != np.float32 or expected.shape != (len(images), spec.num_classes):
            raise _failed("golden", f"golden.npz does not fit the graph: logits are {expected.dtype} {expected.shape}")
    images = np.concatenate([pixels, noise])
    return _logits(path, manifest, variant, provider, images, "graph", SECONDS, (verdict.CHUNK, SECOND_SIZE))


def _logits(
    path: Path,
    manifest: Manifest,
    variant: Variant,
    provider: str,
    images: np.ndarray,
    check: str,
    seconds: float | None,
    sizes: tuple[int, ...] = (verdict.CHUNK,),
) -> np.ndarray:
    """Logits at each of `sizes`, `(sizes, N, num_classes)`."""
    stated = contract.metadata(
        manifest.arch,
        variant.precision,
        manifest.data.name,
        manifest.class_names,
        manifest.contract,
        manifest.weights_sha256,
        manifest.reference.accuracy,
    )
    with tempfile.TemporaryDirectory(prefix="cnnbench-") as out:
        np.save(Path(out) / "images.npy", images)
        asked = {
            "provider": provider,
            "optimized": True,
            "images": f"{out}/images.npy",
            "sizes": dict.fromkeys(sizes, len(images)),
            "profile": False,
        }
        try:
            sandbox.call(
                "cnnbench.bundles.parity.child:examine",
                {
                    "model": str((path / variant.file).absolute()),
                    "contract": msgspec.to_builtins(manifest.contract),
                    "stated": stated,
                    "passes": [asked],
                    "out": out,
                },
                about=str(path / variant.file),
                seconds=seconds,
                memory=proof.PROVIDER_MEMORY.get(provider, 0),
            )
        except CnnbenchError as error:
            raise CheckError(check, str(error), error.code) from None
        return np.stack([np.load(f"{out}/0-{size}.npy", allow_pickle=False) for size in sizes])


def _golden(path: Path, manifest: Manifest, variant: Variant, found: np.ndarray) -> Check:
    """Logits of float32 against PyTorch's, on noise too; of lower precision against its own when it was exported."""
    if variant.precision == "fp32":
        expected = np.concatenate(_arrays("golden", path / "golden.npz", "logits", "noise_logits"))
    else:
        (expected,) = _arrays("golden", path / "golden.npz", f"logits_{variant.precision}")
        found = found[:, : len(expected)]
    if expected.shape != found.shape[1:]:
        raise _failed("golden", f"golden.npz holds logits {expected.shape}, the graph gives {found.shape[1:]}")
    error, bound = float(np.abs(found - expected).max()), _bound(manifest, variant)
    largest = float(np.abs(expected).max())
    if variant.precision != "fp32":
        bound = min(bound, LOOSEST_LOWER * largest)
    elif not bound <= LOOSEST * largest:
        raise _failed("golden", f"the manifest's error bound {bound:.2g} would hide another network")
    if not error <= bound:
        raise _failed("golden", f"golden logits of {variant.file} differ by {error:.2g}; bound {bound:.2g}")
    seen = f"{variant.file}: {len(expected)} images, largest logit error {error:.1e} (bound {bound:.1e})"
    return Check("golden", seen)


def _bound(manifest: Manifest, variant: Variant) -> float:
    """How far a file's logits may be from the golden ones: by rounding; or, of lower precision, by what it costs.

    Other processors' kernels round 8-bit sums elsewhere, and then differ by about as much as from PyTorch.
    """
    if variant.precision == "fp32":
        return manifest.reference.error_bound
    return max(found.p999_abs_error for found in variant.passes)


def _reference(path: Path, manifest: Manifest) -> Check:
    """The stored predictions must add up to the accuracy that the manifest claims, and agree with the golden logits."""
    labels, predictions = _arrays("reference", path / "reference.npz", "labels", "predictions")
    if not {labels.dtype, predictions.dtype} == {np.dtype(np.int32)} or not labels.ndim == predictions.ndim == 1:
        raise _failed("reference", "reference.npz does not hold two rows of classes, int32")
    if len(labels) != len(predictions):
        raise _failed("reference", f"reference.npz has {len(labels)} labels and {len(predictions)} predictions")
    (logits,) = _arrays("golden", path / "golden.npz", "logits")
    correct, claimed = int((labels == predictions).sum()), manifest.reference
    if (len(labels), correct) != (claimed.images, claimed.correct):
        raise _failed(
            "reference",
            f"reference.npz gives {correct} of {len(labels)} images right; "
            f"the manifest claims {claimed.correct} of {claimed.images}",
        )
    places = proof.spread(len(labels), len(logits))
    if len(places) != len(logits) or (logits.argmax(axis=1) != predictions[places]).any():
        raise _failed("reference", "reference.npz and golden.npz disagree on the class of a golden image")
    for variant in manifest.kept:
        for found in variant.passes:
            if abs(found.correct - correct) > found.flips + found.rounding_flips:
                raise _failed("reference", f"the manifest's accuracy of {variant.file} is not what its flips allow")
    return Check("reference", f"{correct} of {len(labels)} images right in PyTorch, as claimed")


def _rescore(path: Path, manifest: Manifest, variant: Variant, provider: str, test: Any) -> Check:
    labels, expected = _arrays("reference", path / "reference.npz", "labels", "predictions")
    if len(labels) != len(test) or (labels != test.labels).any():
        raise _failed("rescore", "the labels of reference.npz are not the test split's")
    (logits,) = _logits(path, manifest, variant, provider, test.images, "rescore", None)
    found = logits.argmax(axis=1)
    rows = np.flatnonzero(found != expected)
    correct = int((found == labels).sum())
    if variant.precision == "fp32":
        width = 2 * manifest.reference.error_bound
        beyond = int((logits[rows, found[rows]] - logits[rows, expected[rows]] > width).sum())
        if beyond:
            raise _failed("rescore", f"{beyond} of {len(found)} predictions differ from the stored ones")
        second, first = np.sort(logits, axis=1)[:, -2:].T
        allowed = int((first - second <= width).sum())  # ties that rounding may decide otherwise
        how = "by rounding"
    else:
        lost = 100 * (manifest.reference.correct - correct) / len(found)
        if lost > variant.budget_points + 1e-9:
            raise _failed(
                "rescore", f"{variant.file} loses {lost:.2f} points here; its budget is {variant.budget_points:g}"
            )
        allowed = max(2, len(found) // 200)  # kernels of other processors round 8-bit sums elsewhere
        how = f"from PyTorch's, {lost:.2f} points lost"
    if any(abs(claimed.correct - correct) > allowed for claimed in variant.passes):
        raise _failed("rescore", f"{variant.file} has {correct} images right here, not what the manifest claims of it")
    return Check(
        "rescore", f"{variant.file}: {correct} of {len(found)} images right, {len(rows)} predictions differ {how}"
    )


def _arrays(check: str, path: Path, *names: str) -> list[np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:  # given a path it leaks the file
            if (size := sum(entry.file_size for entry in stored.zip.infolist())) > LARGEST_ARRAYS:
                raise ValueError(f"it unpacks to {size:,} bytes; expected at most {LARGEST_ARRAYS:,}")
            return [stored[name] for name in names]
    except Exception as error:  # zipfile, zlib and numpy's parser of headers each have their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckError(check, f"{path} cannot be read: {reason}", Exit.DATA) from None


def _failed(check: str, message: str) -> CheckError:
    return CheckError(check, message, Exit.VERDICT)


def _report(path: Path, checks: list[Check], provider: str, as_json: bool) -> None:
    if as_json:
        import json

        seen: dict[str, list[str]] = {}
        for check in checks:
            seen.setdefault(check.name, []).append(check.seen)
        document: dict[str, Any] = {"bundle": str(path), "provider": provider, "verdict": "proven"}
        print(json.dumps({**document, "checks": seen}, indent=2))
        return
    for check in checks:
        print(f"{check.name:10} {check.seen}")
    print(f"{path} is proven on {provider}")
