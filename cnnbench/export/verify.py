"""Prove a bundle again from disk: no torch, no training code, only what the bundle holds."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnbench import datasets, records
from cnnbench.runtime import providers
from cnnbench.runtime.predict import Model
from cnnbench.types import CnnbenchError, Exit, Manifest


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, and what was seen."""

    name: str
    seen: str


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
    if not (path / "manifest.json").is_file():
        raise CnnbenchError(
            f"no bundle at {path}: expected a folder with manifest.json, as `export` writes it", Exit.DATA
        )
    manifest = records.read(path / "manifest.json", Manifest)
    checks = [_hashes(path, manifest), _graph(path, manifest)]
    model = Model(path, providers.open_session(path / "model.onnx", provider))
    checks += [_golden(path, model, manifest), _reference(path, manifest)]
    if rescore:
        checks.append(_rescore(path, model, manifest, root, folder))
    _report(path, checks, provider, json)
    return Exit.OK


def _hashes(path: Path, manifest: Manifest) -> Check:
    for name, expected in manifest.files.items():
        if not (path / name).is_file():
            raise CnnbenchError(f"{path / name} is missing; export the bundle again", Exit.VERDICT)
        if records.sha256(path / name) != expected["sha256"]:
            raise CnnbenchError(
                f"{path / name} was edited: its content does not match the manifest's hash", Exit.VERDICT
            )
    return Check("hashes", f"{len(manifest.files)} files as written")


def _graph(path: Path, manifest: Manifest) -> Check:
    import onnx
    from google.protobuf.message import DecodeError

    from cnnbench.export import contract

    try:
        model = onnx.load(str(path / "model.onnx"), load_external_data=False)
    except DecodeError as error:
        raise CnnbenchError(f"{path / 'model.onnx'} is not a readable ONNX file: {error}", Exit.DATA) from None
    contract.check(model, manifest.spec)
    if manifest.contract != contract.signature(manifest.spec):
        raise CnnbenchError(f"{path / 'manifest.json'} states another contract than its image spec", Exit.VERDICT)
    stated = {item.key: item.value for item in model.metadata_props}
    expected = contract.metadata(
        manifest.arch, manifest.data["name"], manifest.class_names, manifest.spec, manifest.weights_sha256
    )
    if stated != expected:
        differing = sorted(key for key in {*stated, *expected} if stated.get(key) != expected.get(key))
        raise CnnbenchError(f"model.onnx and manifest.json disagree on {', '.join(differing)}", Exit.VERDICT)
    return Check("graph", "valid ONNX, contract and metadata as stated, weights inside")


def _golden(path: Path, model: Model, manifest: Manifest) -> Check:
    pixels, expected = _arrays(path / "golden.npz", "pixels", "logits")
    try:
        error = float(np.abs(model.logits(pixels) - expected).max())
    except ValueError as mismatch:
        raise CnnbenchError(f"golden.npz does not fit the graph: {mismatch}", Exit.VERDICT) from None
    tolerance = max(result.tolerance for result in manifest.verdict)
    if not error <= tolerance:
        raise CnnbenchError(f"golden logits differ by {error:.2g}; tolerance {tolerance:.2g}", Exit.VERDICT)
    return Check("golden", f"{len(pixels)} images, largest logit error {error:.1e} (tolerance {tolerance:.1e})")


def _reference(path: Path, manifest: Manifest) -> Check:
    """The stored predictions must add up to the accuracy that the manifest claims, and agree with the golden logits."""
    labels, predictions = _arrays(path / "reference.npz", "labels", "predictions")
    (logits,) = _arrays(path / "golden.npz", "logits")
    first = logits.argmax(axis=1)
    accuracy = float((labels == predictions).mean())
    claimed = manifest.verdict[0]
    if (len(labels), accuracy) != (claimed.images, claimed.torch_accuracy):
        raise CnnbenchError(
            f"reference.npz gives {accuracy:.2%} on {len(labels)} images; "
            f"the manifest claims {claimed.torch_accuracy:.2%} on {claimed.images}",
            Exit.VERDICT,
        )
    if (first != predictions[: len(first)]).any():
        raise CnnbenchError("reference.npz and golden.npz disagree on the class of a golden image", Exit.VERDICT)
    return Check("reference", f"accuracy {accuracy:.2%} on {len(labels)} images, as claimed")


def _rescore(path: Path, model: Model, manifest: Manifest, root: str | None, folder: str | None) -> Check:
    from cnnbench.export.verdict import CHUNK, batched

    data = datasets.open_recorded(manifest.data, root, folder)
    labels, expected = _arrays(path / "reference.npz", "labels", "predictions")
    logits = batched(model.logits, data.test.images, CHUNK)
    found = logits.argmax(axis=1)
    tolerance = max(result.tolerance for result in manifest.verdict)
    rows = np.flatnonzero(found != expected)
    margins = logits[rows, found[rows]] - logits[rows, expected[rows]]
    flips = int((margins > 2 * tolerance).sum())
    if (labels != data.test.labels).any() or flips:
        raise CnnbenchError(f"{flips} of {len(found)} predictions differ from the stored ones", Exit.VERDICT)
    accuracy = float((found == data.test.labels).mean())
    return Check(
        "rescore", f"accuracy {accuracy:.2%} on {len(found)} images, {len(rows)} predictions differ by rounding"
    )


def _arrays(path: Path, *names: str) -> list[np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:  # given a path it leaks the file
            return [stored[name] for name in names]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CnnbenchError(f"{path} cannot be read: {error}", Exit.DATA) from None


def _report(path: Path, checks: list[Check], provider: str, as_json: bool) -> None:
    if as_json:
        import json

        document: dict[str, Any] = {"bundle": str(path), "provider": provider, "verdict": "proven"}
        print(json.dumps({**document, "checks": {check.name: check.seen for check in checks}}, indent=2))
        return
    for check in checks:
        print(f"{check.name:10} {check.seen}")
    print(f"{path} is proven on {provider}")
