"""Smaller files of the same network: float16, and 8-bit integers. `parity` decides whether one is kept."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from cnnbench.bundles import contract
from cnnbench.pixels import to_graph_input
from cnnbench.types import SEED, CnnbenchError, Exit, first_line

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")

CALIBRATION_IMAGES = 512
CALIBRATION_CHUNK = 64


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


def file_name(precision: Precision) -> str:
    """The name in a bundle of the file of this precision."""
    return "model.onnx" if precision == "fp32" else f"model_{precision}.onnx"


def make(precision: Precision, model: onnx.ModelProto, *, images: np.ndarray, dtype: str) -> onnx.ModelProto:
    """`model`, the float32 graph, in another precision.

    Args:
        precision: "fp32" gives the graph itself.
        model: The float32 graph.
        images: The training images `(N, H, W, C)` uint8.
        dtype: Of the graph's input: "uint8" or "float32".

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
    """`model` with weights and arithmetic in float16; preprocessing, inputs and outputs stay as they are."""
    from onnxconverter_common import float16

    preprocessing = list(_preprocessing(model.graph))
    softmax = _softmax(model.graph)  # added again below: it takes the logits in float32
    source = copy.deepcopy(model)
    for node in softmax:
        source.graph.node.remove(node)
    del source.graph.output[1:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a weight below 1e-7 is rounded; the verification measures the effect
        half: onnx.ModelProto = float16.convert_float_to_float16(
            source, keep_io_types=True, node_block_list=[node.name for node in preprocessing]
        )
    half.graph.node.extend(softmax)
    half.graph.output.extend(model.graph.output[1:])
    # the converter rounds every constant, and casts those of blocked nodes back
    outside = {name for node in preprocessing for name in node.input}
    outside -= {name for node in list(model.graph.node)[len(preprocessing) :] for name in node.input}
    exact = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in outside}
    for tensor in half.graph.initializer:
        if tensor.name in exact:
            tensor.CopyFrom(exact[tensor.name])
    for value in [value for value in half.graph.value_info if value.name in exact]:
        half.graph.value_info.remove(value)
    return half


def int8(model: onnx.ModelProto, *, images: np.ndarray, dtype: str) -> onnx.ModelProto:
    """`model` quantised statically: QDQ, weights int8 per channel, activations uint8.

    Activations are unsigned, since ONNX Runtime's kernels for signed ones are slower than float32.

    Args:
        model: The float32 graph.
        images: Training images `(N, H, W, C)` uint8; ranges of activations are measured on some of them.
        dtype: Of the graph's input: "uint8" or "float32".
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            chosen = calibration_images(images)
            starts = range(0, len(chosen), CALIBRATION_CHUNK)
            self.batches = iter(chosen[start : start + CALIBRATION_CHUNK] for start in starts)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {contract.INPUT: to_graph_input(batch, dtype)}

    with tempfile.TemporaryDirectory(prefix="cnnbench-") as folder, _quiet():
        source, prepared, result = (str(Path(folder) / name) for name in ("fp32.onnx", "prepared.onnx", "int8.onnx"))
        onnx.save(model, source)
        quant_pre_process(source, prepared, skip_optimization=True)  # the exporter folded what could be folded
        quantization.quantize_static(
            prepared,
            result,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[node.name for node in (*_preprocessing(model.graph), *_softmax(model.graph))],
        )
        return onnx.load(result)


def calibration_images(images: np.ndarray) -> np.ndarray:
    """Up to `CALIBRATION_IMAGES` of the training images, drawn by a fixed seed, in their order."""
    indices = np.random.RandomState(SEED).permutation(len(images))[:CALIBRATION_IMAGES]
    chosen: np.ndarray = images[np.sort(indices)]
    return chosen


def _preprocessing(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes before the first one that has weights of more than one axis: from pixels to normalised planes."""
    matrices = {tensor.name for tensor in graph.initializer if sum(size > 1 for size in tensor.dims) > 1}
    for node in graph.node:
        if any(name in matrices for name in node.input):
            return
        yield node


def _softmax(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that take the logits."""
    return [node for node in graph.node if contract.LOGITS in node.input]


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the quantiser's advice."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
