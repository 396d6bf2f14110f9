"""Smaller files of the same network: float16, and 8-bit integers. `parity` decides whether one is kept."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx

from cnnbench import records
from cnnbench.bundles import contract
from cnnbench.bundles.parity.lower import LARGEST_HALF, SMALLEST_HALF
from cnnbench.pixels import to_graph_input
from cnnbench.records.bundle import Precision
from cnnbench.types import SEED, CnnbenchError, Exit, first_line

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")

CALIBRATION_IMAGES = 512
CALIBRATION_CHUNK = 64
WIDE = ("LayerNormalization", "Softmax", "Transpose")
"""Operators that stay in float32 in a float16 file, for ONNX Runtime on the CPU: 1.15 computes the first two from
functions that are not valid in opset 18, and 1.31 and 1.32 crash where they cast a transposed half for a MatMul
(microsoft/onnxruntime#28392)."""
BIASED = ("Conv", "ConvTranspose", "Gemm", "BatchNormalization", "InstanceNormalization", "LayerNormalization")
"""Operators whose third input the quantiser takes for a bias."""


def with_fp32(names: Sequence[str]) -> tuple[Precision, ...]:
    """The named precisions in the order of `PRECISIONS`, and always fp32: the others are made from it.

    Raises:
        CnnbenchError: An unknown name (exit 2).
    """
    for name in names:
        if name not in PRECISIONS:
            raise CnnbenchError(
                f"unknown precision {name!r}: expected {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}"
            )
    return tuple(name for name in PRECISIONS if name == "fp32" or name in names)


def make(precision: Precision, model: onnx.ModelProto, *, images: np.ndarray, dtype: str) -> onnx.ModelProto:
    """`model`, the float32 graph, in another precision.

    Args:
        precision: "fp32" gives the graph itself.
        model: The float32 graph.
        images: The training images `(N, H, W, C)` uint8.
        dtype: Type of the graph's input: "uint8" or "float32".

    Raises:
        CnnbenchError: It cannot be made (exit 4).
    """
    if precision == "fp32":
        return model
    try:
        return fp16(model) if precision == "fp16" else int8(model, images=images, dtype=dtype)
    except MemoryError:
        raise
    except Exception as error:  # whatever the converters meet in a graph that they do not know
        raise CnnbenchError(f"it cannot be made: {first_line(error)}", Exit.VERDICT) from None


def fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with weights and arithmetic in float16; preprocessing, inputs, outputs and `WIDE` stay as they are.

    A number that would round to 0 or to infinity becomes the nearest half that is neither.
    """
    from onnxconverter_common import float16

    source = copy.deepcopy(model)
    softmax, constants = _without_softmax(source.graph)  # added again below: it takes the logits in float32
    del source.graph.output[1:]
    nodes = [node for part in contract.graphs(source.graph) for node in part.node]
    wide = (node for node in nodes if node.op_type in WIDE or _makes_float32(node))
    kept = [node.name for node in (*_preprocessing(model.graph), *wide)]
    _separate_constants(source.graph, [node for node in source.graph.node if _stays(node, kept)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `parity.lower` counts the numbers at the limits
        half: onnx.ModelProto = float16.convert_float_to_float16(
            source,
            min_positive_val=float(SMALLEST_HALF),
            max_finite_val=float(LARGEST_HALF),
            keep_io_types=True,
            node_block_list=kept,
        )
    half.graph.node.extend(softmax)
    half.graph.initializer.extend(constants)
    half.graph.output.extend(model.graph.output[1:])
    return half


def _makes_float32(node: onnx.NodeProto) -> bool:
    """Whether an attribute of the node says that it returns float32, which the converter leaves as it is."""
    to_float = any(item.name in ("to", "dtype") and item.i == onnx.TensorProto.FLOAT for item in node.attribute)
    return to_float or any(item.name in ("value_float", "value_floats") for item in node.attribute)


def _stays(node: onnx.NodeProto, kept: Collection[str]) -> bool:
    """Whether the converter leaves the node in float32."""
    from onnxconverter_common import float16

    return node.name in kept or node.op_type in float16.DEFAULT_OP_BLOCK_LIST


def _separate_constants(graph: onnx.GraphProto, kept: Sequence[onnx.NodeProto]) -> None:
    """Give the nodes that stay in float32 their own constants.

    The converter rounds a constant for all of its users or for none; and where it finds a shape of a constant beside
    the graph, it casts what is not float16.
    """
    constants = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    for value in [value for value in graph.value_info if value.name in constants]:
        graph.value_info.remove(value)
    names = {node.name for node in kept}
    shared = {name for node in graph.node if node.name not in names for name in node.input} & constants
    for name in sorted(shared & {name for node in kept for name in node.input}):
        _use_copy(graph, name, f"{name}_float32", users=kept)


def _separate_biases(graph: onnx.GraphProto) -> None:
    """Give every node its own bias: the quantiser does so, too, but under a name that a value may have."""
    constants = {tensor.name for tensor in graph.initializer}
    seen: set[str] = set()
    for node in graph.node:
        bias = node.input[2] if node.op_type in BIASED and len(node.input) > 2 else ""
        if bias in seen:
            _use_copy(graph, bias, f"{bias}_of_{node.name}", users=[node])
        seen |= {bias} & constants


def _use_copy(graph: onnx.GraphProto, name: str, copy_name: str, *, users: Sequence[onnx.NodeProto]) -> None:
    """Add a copy of a constant, which these nodes take in its stead."""
    copied = graph.initializer.add()
    copied.CopyFrom(next(tensor for tensor in graph.initializer if tensor.name == name))
    copied.name = copy_name
    for node in users:
        node.input[:] = [copy_name if each == name else each for each in node.input]


def int8(model: onnx.ModelProto, *, images: np.ndarray, dtype: str) -> onnx.ModelProto:
    """`model` quantised statically: QDQ, weights int8 per channel, activations uint8.

    Activations are unsigned, since ONNX Runtime's kernels for signed ones are slower than float32.

    Args:
        model: The float32 graph.
        images: Training images `(N, H, W, C)` uint8; ranges of activations are measured on some of them.
        dtype: Type of the graph's input: "uint8" or "float32".
    """
    from onnxruntime import quantization

    prepared = copy.deepcopy(model)
    graph = prepared.graph
    excluded = [*_preprocessing(graph), *_softmax(graph), *_layer_norms(graph), *_token_means(graph)]
    _separate_biases(graph)
    with records.temporary_folder() as folder, _quiet():
        source, result = str(Path(folder) / "fp32.onnx"), str(Path(folder) / "int8.onnx")
        onnx.save(prepared, source)
        # without quant_pre_process: the exporter folded what could be folded, and wrote every shape that it would infer
        quantization.quantize_static(
            source,
            result,
            _Reader(calibration_images(images), dtype),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            # the sum of two products fits 16 bits: 255 * 64 * 2 = 32,640. x86-64 kernels without VNNI add two products
            # in 16 bits and saturate, so that weights of 8 bits would give other logits there than elsewhere
            reduce_range=True,
            extra_options={
                # else a branch would read what stood before a ReLU: the quantiser leaves it out, and sees no branches
                "QDQKeepRemovableActivations": len(list(contract.graphs(graph))) > 1,
                # the logits stay as they are computed: not rounded to 256 levels, and OpenCV's dnn reads the last layer
                "OpTypesToExcludeOutputQuantization": ["Gemm"],
            },
            nodes_to_exclude=[node.name for node in excluded],
        )
        return onnx.load(result)


class _Reader:
    """What the quantiser asks for images to measure on, until it gets None."""

    def __init__(self, images: np.ndarray, dtype: str) -> None:
        starts = range(0, len(images), CALIBRATION_CHUNK)
        self.batches = (to_graph_input(images[start : start + CALIBRATION_CHUNK], dtype) for start in starts)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {contract.INPUT: batch}


def calibration_images(images: np.ndarray) -> np.ndarray:
    """Up to `CALIBRATION_IMAGES` of the training images, drawn by a fixed seed, in their order."""
    indices = np.random.RandomState(SEED).permutation(len(images))[:CALIBRATION_IMAGES]
    chosen: np.ndarray = images[np.sort(indices)]
    return chosen


def _layer_norms(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Layer norms. The quantiser fails on those over several axes, and OpenCV's dnn on those that are quantised."""
    return [node for node in graph.node if node.op_type == "LayerNormalization"]


def _token_means(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Means over the tokens of `(N, tokens, C)`, and what makes these: in 8 bits OpenVINO computes the mean wrongly."""
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.value_info}
    makers = {name: node for node in graph.node for name in node.output}
    means = [node for node in graph.node if node.op_type == "ReduceMean" and ranks.get(node.input[0]) == 3]
    return [*means, *(makers[node.input[0]] for node in means if node.input[0] in makers)]


def _matrices(graph: onnx.GraphProto) -> set[str]:
    """Names of weights that have more than one axis."""
    return {tensor.name for tensor in graph.initializer if sum(size > 1 for size in tensor.dims) > 1}


def _preprocessing(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes before the first one that has weights of more than one axis: from pixels to normalised planes."""
    matrices = _matrices(graph)
    for node in graph.node:
        if any(name in matrices for name in node.input):
            return
        yield node


def _softmax(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes behind the logits: the division by a temperature, where there is one, and the softmax."""
    made, found = {contract.LOGITS}, []
    for node in graph.node:  # in the order in which they are computed
        if made & {*node.input}:
            found.append(node)
            made |= {*node.output}
    return found


def _without_softmax(graph: onnx.GraphProto) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Take the nodes behind the logits out of a graph, with the constants that are theirs alone; returns both."""
    nodes = _softmax(graph)
    for node in nodes:
        graph.node.remove(node)
    others = {name for node in graph.node for name in node.input}
    theirs = {name for node in nodes for name in node.input} - others
    constants = [tensor for tensor in graph.initializer if tensor.name in theirs]
    for tensor in constants:
        graph.initializer.remove(tensor)
    named = theirs | {name for node in nodes for name in node.output}
    for value in [value for value in graph.value_info if value.name in named]:
        graph.value_info.remove(value)  # the converter would change its type
    return nodes, constants


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the quantiser's advice."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
