"""What every exported graph takes and returns, its metadata, and what a file must not hold. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import onnx
from google.protobuf.message import Message

from cnnbench.records.bundle import Contract, Manifest, TensorSpec
from cnnbench.types import CnnbenchError, Exit, ImageSpec, first_line

INPUT, LOGITS, PROBABILITIES = "pixels", "logits", "probabilities"
OPSET = 18
"""The lowest that torch's exporter writes without converting."""
IR_VERSION = 8
"""The one that came with opset 18, so that the runtimes that know the opset can read the file."""
OLDEST_ONNXRUNTIME = "1.15.0"
"""The oldest release that the tests run every committed file on; opset 18 itself came with 1.14."""
LARGEST_FILE = 2**31 - 1
"""Bytes: protobuf's own limit for one message, and so for a file that needs no other."""
RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}
LARGEST_TEXT, MOST_NODES = 16 * 2**20, 50_000
"""Bytes of a file beside its constants (nodes, names and texts), and nodes; the largest networks have thousands."""
DOMAINS = ("", "ai.onnx")
"""Operators come from the ONNX standard alone: others need code that a runtime may not have, or should not trust."""

InputKind = Literal["uint8", "float"]


def contract_of(spec: ImageSpec, *, kind: InputKind = "uint8", probabilities: bool = False) -> Contract:
    """Names, types and shapes of the graph's input and outputs, as the manifest states them.

    Args:
        spec: The images and the number of classes.
        kind: "uint8" for images `(batch, H, W, C)` as a decoder gives them; "float" for `(batch, C, H, W)` in [0, 1].
        probabilities: Whether their softmax follows the logits.
    """
    height, width, channels, classes = spec.height, spec.width, spec.channels, spec.num_classes
    images = {
        "uint8": TensorSpec(INPUT, "uint8", ("batch", height, width, channels)),
        "float": TensorSpec(INPUT, "float32", ("batch", channels, height, width)),
    }
    names = [LOGITS, *[PROBABILITIES] * probabilities]
    outputs = tuple(TensorSpec(name, "float32", ("batch", classes)) for name in names)
    return Contract(images[kind], outputs, OPSET, IR_VERSION, OLDEST_ONNXRUNTIME)


def metadata(
    *,
    arch: str,
    precision: str,
    dataset: str,
    class_names: tuple[str, ...],
    contract: Contract,
    weights_sha256: str,
    accuracy: float,
) -> dict[str, str]:
    """The `metadata_props` of a file, for a reader who has nothing but the file.

    `trained_accuracy` is PyTorch's top-1 on the test split; the accuracy of a file of lower precision is in the
    manifest.
    """
    pixels = contract.input
    ranges = {"uint8": "as an image decoder gives them", "float32": "channels first, in [0, 1]"}
    return {
        "architecture": arch,
        "precision": precision,
        "dataset": dataset,
        "class_names": json.dumps(class_names),
        "input": f"{pixels.dtype} ({', '.join(map(str, pixels.shape))}), {ranges[pixels.dtype]}",
        "trained_accuracy": repr(accuracy),
        "weights_sha256": weights_sha256,
    }


def manifest_metadata(manifest: Manifest, precision: str) -> dict[str, str]:
    """The metadata that a bundle's file of this precision must have."""
    return metadata(
        arch=manifest.arch,
        precision=precision,
        dataset=manifest.data.name,
        class_names=manifest.class_names,
        contract=manifest.contract,
        weights_sha256=manifest.weights_sha256,
        accuracy=manifest.reference.accuracy,
    )


def read(path: Path) -> onnx.ModelProto:
    """Parse a file. An untrusted file is only ever parsed in a separate process: see `parity.child`.

    Raises:
        CnnbenchError: It is missing, too large, not an ONNX file, or holds more than one (exit 3).
    """
    if not path.is_file():
        raise CnnbenchError(f"{path} is missing", Exit.DATA)
    if path.stat().st_size > LARGEST_FILE:
        size = f"{path.stat().st_size:,}"
        raise CnnbenchError(f"{path} has {size} bytes; an ONNX file has at most {LARGEST_FILE:,}", Exit.DATA)
    data = path.read_bytes()
    if data[4:8] == b"ORTM":  # the mark of the format: a runtime that is given the bytes would run another graph
        raise CnnbenchError(f"{path} is a file of ONNX Runtime's own format: expected ONNX alone", Exit.DATA)
    try:
        model = onnx.load_model_from_string(data)
    except MemoryError:
        raise
    except Exception as error:  # protobuf's classes differ between its implementations
        raise CnnbenchError(f"{path} is not a readable ONNX file: {first_line(error)}", Exit.DATA) from None
    model.DiscardUnknownFields()  # protobuf carries along what it does not know, anywhere in a message
    if excess := len(data) - model.ByteSize():
        raise CnnbenchError(f"{path} holds {excess:,} bytes that are no part of its ONNX model", Exit.DATA)
    return model


def check(model: onnx.ModelProto, contract: Contract, *, metadata: dict[str, str], control_flow: bool = False) -> None:
    """Compare a graph with the contract, and its metadata with `metadata`.

    Args:
        model: The graph.
        contract: Names, types and shapes of its input and outputs.
        metadata: What its `metadata_props` must be.
        control_flow: Whether the network itself has branches or loops.

    Raises:
        CnnbenchError: It is not valid ONNX, needs another file or operators outside the standard, is in training mode,
            draws random numbers, has branches that the network does not have, other inputs, outputs or versions than
            the contract, or other metadata (exit 4).
    """
    _check_safety(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except MemoryError:
        raise
    except Exception as error:  # ValidationError, InferenceError, and what a hostile file provokes besides
        raise _refused(f"the ONNX checker refuses it: {first_line(error)}") from None
    _check_contract(model, contract)
    for node in _nodes(model):
        training = any(a.name == "training_mode" and a.i for a in node.attribute)
        if node.op_type == "Dropout" or training:
            raise _refused(f"node {node.name} ({node.op_type}) is in training mode")
        if node.op_type in RANDOM:
            raise _refused(f"node {node.name} ({node.op_type}) draws random numbers")
        if node.op_type in CONTROL_FLOW and not control_flow:
            raise _refused(f"node {node.name} ({node.op_type}) is a branch or a loop, which the network does not have")
    stored = {item.key: item.value for item in model.metadata_props}
    if stored != metadata:
        differing = sorted(key for key in {*stored, *metadata} if stored.get(key) != metadata.get(key))
        raise _refused(f"file and manifest disagree on {', '.join(differing)}")


def _is_text(message: Message) -> bool:
    """Whether every text of a message, and of those within it, is UTF-8; protobuf gives others as bytes."""
    for field, value in message.ListFields():
        if field.type in (field.TYPE_STRING, field.TYPE_MESSAGE):
            values = [value] if isinstance(value, str | bytes | Message) else value
            if not all(_is_text(each) if isinstance(each, Message) else isinstance(each, str) for each in values):
                return False
    return True


def has_control_flow(model: onnx.ModelProto) -> bool:
    """Whether a graph has branches or loops."""
    return any(node.op_type in CONTROL_FLOW for node in _nodes(model))


def _check_safety(model: onnx.ModelProto) -> None:
    """Refuse what must not be followed, before anything follows the file's own instructions."""
    if (count := sum(1 for _ in _nodes(model))) > MOST_NODES:
        raise _refused(f"it has {count:,} nodes: expected at most {MOST_NODES:,}")
    if not _is_text(model):
        raise _refused("one of its names is not UTF-8 text")
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "another file")
            raise _refused(f"its weights {tensor.name} lie in {place}")
        if tensor.data_type == onnx.TensorProto.STRING:
            raise _refused(f"its constant {tensor.name} is text: expected numbers")
    if any(attribute.name.startswith("value_string") for node in _nodes(model) for attribute in node.attribute):
        raise _refused("one of its constants is text: expected numbers")
    if shared := {value.name for value in model.graph.input} & {tensor.name for tensor in model.graph.initializer}:
        raise _refused(f"it has a constant instead of its input {', '.join(sorted(shared))}")
    if (size := model.ByteSize() - sum(tensor.ByteSize() for tensor in _tensors(model))) > LARGEST_TEXT:
        raise _refused(f"it has {size:,} bytes beside its constants: expected at most {LARGEST_TEXT:,}")
    foreign = {node.domain for node in _nodes(model)} | {item.domain for item in model.opset_import}
    if foreign := foreign - {*DOMAINS}:
        raise _refused(f"it uses operators of {', '.join(sorted(foreign))}; expected the ONNX standard's alone")
    if model.functions or model.training_info:
        raise _refused("it defines functions or training steps of its own")


def _check_contract(model: onnx.ModelProto, contract: Contract) -> None:
    dtypes = {"uint8": onnx.TensorProto.UINT8, "float32": onnx.TensorProto.FLOAT}
    for part, values, specs in (
        ("inputs", model.graph.input, (contract.input,)),
        ("outputs", model.graph.output, contract.outputs),
    ):
        actual = [(v.name, v.type.tensor_type.elem_type, _shape(v)) for v in values]
        expected = [(item.name, dtypes[item.dtype], list(item.shape)) for item in specs]
        if actual != expected:
            raise _refused(f"its inputs and outputs are not the contract's: {part} {actual}, expected {expected}")
    versions = (model.ir_version, [item.version for item in model.opset_import])
    if versions != (contract.ir_version, [contract.opset]):
        raise _refused(
            f"it is of IR version {versions[0]} and opset {versions[1]}; "
            f"expected {contract.ir_version} and {contract.opset}"
        )


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and those within its nodes, as `If` and `Loop` have."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from graphs(inner)


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in graphs(model.graph):
        yield from graph.node


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in graphs(model.graph):
        attributes = [attribute for node in graph.node for attribute in node.attribute]
        yield from graph.initializer
        for attribute in attributes:
            yield from (attribute.t, *attribute.tensors)  # an absent one reads as an empty one
        sparse = [part for a in attributes for part in (a.sparse_tensor, *a.sparse_tensors)]
        for tensor in (*graph.sparse_initializer, *sparse):
            yield from (tensor.values, tensor.indices)


def _shape(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _refused(reason: str) -> CnnbenchError:
    return CnnbenchError(f"the graph is refused: {reason}", Exit.VERDICT)
