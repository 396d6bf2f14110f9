"""A bundle: exports/<task>/ with the ONNX file, its proof, and all that using it needs. Whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnbench import datasets, environment, records
from cnnbench.runtime import predict
from cnnbench.runtime.providers import open_session, tiny_model, usable
from cnnbench.types import CnnbenchError, Dataset, Exit, Manifest, Parity, RunRecord

if TYPE_CHECKING:
    from torch import nn

    from cnnbench.training.classifier import Classifier

GOLDEN_IMAGES = 16


def export(
    source: str,
    out: str = "exports",
    providers: str = "auto",
    root: str | None = None,
    folder: str | None = None,
    json: bool = False,
) -> int:
    """Turn a run into a proven ONNX bundle: exports/<task>/.

    The file is compared with PyTorch over the whole test split before anything is put in place; a difference exits 4
    and leaves an earlier bundle as it was.

    Args:
        source: A run folder (runs/<task>/seed<k>), a task folder (its best seed on validation), or a checkpoint in one.
        out: Folder of the bundles.
        providers: Where to verify: cpu, cuda, or both as cpu,cuda; auto means cpu, and cuda where it can be used.
        root: Folder of the downloaded datasets, if it is not the one the run used.
        folder: Folder of your own images, if it is not the one the run used.
        json: Print the manifest as one JSON document.
    """
    from cnnbench.training import runs

    names = chosen_providers(providers)
    checkpoint = runs.find(source)
    classifier = runs.load_classifier(checkpoint)
    record = _record_of(checkpoint)
    if (record.arch, record.spec, record.data["sha256"]) != (
        classifier.arch, classifier.spec, classifier.data["sha256"],
    ):  # fmt: skip
        raise CnnbenchError(
            f"{checkpoint} holds {classifier.arch} trained on {classifier.data['name']}, but the record beside it "
            f"is of {record.arch} on {record.data['name']}: the file was copied from another run",
            Exit.DATA,
        )
    data = datasets.open_recorded(classifier.data, root, folder)
    with replacing_folder(Path(out) / record.task) as partial:
        manifest = write(partial, classifier, data, record, records.sha256(checkpoint), names)
    report(manifest, Path(out) / record.task, json)
    return Exit.OK


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
    tested = record.test and checkpoint.name == "best.ckpt"
    if tested and record.test and record.test.checkpoint_sha256 != records.sha256(checkpoint):
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
    chosen = names.split(",")
    for name in chosen:
        open_session(tiny_model(), name)
    return chosen


def write(
    path: Path, classifier: Classifier, data: Dataset, record: RunRecord, checkpoint_sha256: str, names: list[str]
) -> Manifest:
    """Write a bundle into the empty folder `path`, proven on the providers in `names`.

    Raises:
        CnnbenchError: The file differs from the network (exit 4).
    """
    from cnnbench.export import contract, graph

    weights = graph.weights_sha256(classifier.network)
    metadata = contract.metadata(record.arch, data.name, data.class_names, record.spec, weights)
    graph.save(graph.to_onnx(classifier.network, record.spec, metadata), path / "model.onnx")
    reference = torch_logits(classifier.network, data.test.images)
    verdict = prove(path / "model.onnx", reference, data, names)
    np.savez(path / "golden.npz", pixels=data.test.images[:GOLDEN_IMAGES], logits=reference[:GOLDEN_IMAGES])
    np.savez_compressed(
        path / "reference.npz",
        labels=data.test.labels.astype(np.int32),
        predictions=reference.argmax(1).astype(np.int32),
    )
    shutil.copyfile(predict.__file__, path / "predict.py")
    manifest = Manifest(
        task=record.task, arch=record.arch, seed=record.seed,
        data={key: value for key, value in record.data.items() if key not in ("root", "folder")},
        spec=record.spec, class_names=data.class_names, cost=record.cost, contract=contract.signature(record.spec),
        weights_sha256=weights, run={"checkpoint_sha256": checkpoint_sha256}, verdict=verdict,
        files={
            file.name: {"sha256": records.sha256(file), "bytes": file.stat().st_size} for file in sorted(path.iterdir())
        },
        environment=environment.describe(),
    )  # fmt: skip
    records.write(path / "manifest.json", manifest)
    return manifest


def prove(model: Path, reference: np.ndarray, data: Dataset, names: list[str]) -> tuple[Parity, ...]:
    """The verdict on each provider.

    Raises:
        CnnbenchError: One of them differs from PyTorch (exit 4).
    """
    from cnnbench.export.verdict import parity

    results = []
    for name in names:
        session = open_session(model, name)
        result = parity(
            name, reference, lambda pixels, s=session: s.run(["logits"], {"pixels": pixels})[0],  # type: ignore[misc]
            data.test.images, data.test.labels,
        )  # fmt: skip
        if not result.passed:
            raise CnnbenchError(
                f"the ONNX file is not the trained network: on {name}, {result.flips} of {result.images} images change "
                f"class, largest logit error {result.max_abs_error:.2g} (tolerance {result.tolerance:.2g}); "
                "nothing was written",
                Exit.VERDICT,
            )
        results.append(result)
    return tuple(results)


def torch_logits(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """PyTorch's logits `(N, num_classes)` float32 on the CPU, for images `(N, H, W, C)` uint8."""
    import torch

    from cnnbench.export.verdict import CHUNK, batched
    from cnnbench.training.data import channels_first

    network = network.eval()

    def logits(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            result: np.ndarray = network(channels_first(torch.tensor(pixels)).float() / 255).numpy()
        return result

    return batched(logits, images, CHUNK)


def report(manifest: Manifest, path: Path, as_json: bool) -> None:
    """Print what was exported: the manifest, or a line for the bundle and one for each provider."""
    if as_json:
        print((path / "manifest.json").read_text(), end="")
        return
    print(f"{path}: {manifest.arch} on {manifest.data['name']}, {manifest.files['model.onnx']['bytes']:,} bytes")
    for result in manifest.verdict:
        print(
            f"  {result.provider}: accuracy {result.onnx_accuracy:.2%} on {result.images} test images "
            f"(PyTorch {result.torch_accuracy:.2%}), {result.flips} flips, {result.rounding_flips} by rounding, "
            f"largest logit error {result.max_abs_error:.1e} (tolerance {result.tolerance:.1e})"
        )


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it takes the place of `path`, else it is removed.

    Raises:
        CnnbenchError: The place cannot be written (exit 2).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        workplace = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise CnnbenchError(f"cannot write to {path.parent}: {error.strerror}; choose another --out") from None
    try:
        partial = workplace / "new"
        partial.mkdir()
        yield partial
        if path.exists():
            path.rename(workplace / "old")
        partial.rename(path)
    finally:
        if (workplace / "old").exists() and not path.exists():  # failed or interrupted between the two renames
            (workplace / "old").rename(path)
        shutil.rmtree(workplace, ignore_errors=True)
