"""Other forms of a verified network: Triton's model repository, and weights for further training."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cnnbench import records
from cnnbench.bundles.parity import comparison
from cnnbench.records.bundle import Contract, Manifest, TensorSpec
from cnnbench.types import CnnbenchError

if TYPE_CHECKING:
    from cnnbench.training.classifier import Classifier

Target = Literal["triton", "safetensors"]

TRITON_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}


def triton(bundle: Path, repository: Path) -> tuple[Path, ...]:
    """Write each file of a bundle into a Triton model repository, as its own model; returns their folders.

    `<repository>/<name>/config.pbtxt`, `labels.txt` and `1/model.onnx`, where the name is the task's, with the
    precision behind it where that is not fp32: see "Model Repository" and "Model Configuration" in Triton's manual.

    Raises:
        CnnbenchError: The repository cannot be written, or something else has the model's name (exit 2).
    """
    manifest = records.read(bundle / "manifest.json", Manifest)
    folders = []
    for file in manifest.kept:
        suffix = "" if file.precision == "fp32" else f"_{file.precision}"
        name = re.sub(r"[^A-Za-z0-9_.-]", "-", manifest.task) + suffix
        model = repository / name
        if model.exists() and not (model / "config.pbtxt").is_file():
            raise CnnbenchError(f"{model} exists and is not a Triton model: it would be lost; choose another --out")
        with records.replacing_folder(model) as partial:
            (partial / "1").mkdir()
            shutil.copyfile(bundle / file.file, partial / "1" / "model.onnx")
            (partial / "labels.txt").write_text("".join(f"{label}\n" for label in manifest.class_names))
            (partial / "config.pbtxt").write_text(_config(name, manifest.contract))
        folders.append(model)
    return tuple(folders)


def _config(name: str, contract: Contract) -> str:
    """Triton's model configuration; the batch is not among its dims."""

    def tensor(value: TensorSpec, *more: str) -> str:
        dims = ", ".join(str(size) for size in value.shape[1:])
        fields = [f'name: "{value.name}"', f"data_type: {TRITON_TYPES[value.dtype]}", f"dims: [ {dims} ]", *more]
        return "  {\n" + "".join(f"    {field}\n" for field in fields) + "  }"

    outputs = ",\n".join(tensor(output, 'label_filename: "labels.txt"') for output in contract.outputs)
    return (
        f'name: "{name}"\nbackend: "onnxruntime"\ndefault_model_filename: "model.onnx"\n'
        f"max_batch_size: {max(comparison.BATCH_SIZES)}\n"
        f"input [\n{tensor(contract.input)}\n]\noutput [\n{outputs}\n]\ndynamic_batching {{ }}\n"
    )


def safetensors(classifier: Classifier, path: Path, *, weights_sha256: str) -> Path:
    """Write the weights and buffers, by the names of the network's `state_dict`, and what it takes to rebuild it.

    `cnnbench.architectures.build(arch, spec)` gives the network that takes them; arch and spec are in the metadata.
    Returns `path`.

    Raises:
        CnnbenchError: The file cannot be written, or would not hold all of the network (exit 2).
    """
    from safetensors.torch import save_file

    assert classifier.spec is not None
    metadata = {
        "arch": classifier.arch,
        "spec": json.dumps(asdict(classifier.spec)),
        "dataset": classifier.data.name if classifier.data else "",
        "class_names": json.dumps(classifier.class_names),
        "weights_sha256": weights_sha256,
    }
    unsaved = classifier.unsaved_buffers()
    if unsaved:
        raise CnnbenchError(
            f"{classifier.arch} has the buffer {next(iter(unsaved))}, which its state_dict leaves out: a file of "
            "weights would give another network; register it with persistent=True"
        )
    # clones: the file format refuses weights that share memory
    tensors = {name: tensor.clone().contiguous() for name, tensor in classifier.network.state_dict().items()}
    with records.replacing(path) as partial:
        save_file(tensors, partial, metadata)
    return path


def check_place(target: Target, place: Path) -> None:
    """Refuse a place that the target cannot have.

    Raises:
        CnnbenchError: A file where a folder is expected, or the other way round (exit 2).
    """
    if target == "triton" and place.is_file():
        raise CnnbenchError(f"--for triton --out {place}: it is a file; expected a folder")
    if target == "safetensors" and place.is_dir():
        raise CnnbenchError(f"--for safetensors --out {place}: it is a folder; expected the name of a file")
