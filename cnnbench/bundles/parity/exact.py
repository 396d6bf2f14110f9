"""A file evaluated in float64, without torch: onnx's reference implementation, with faster kernels where it is slow.

ONNX Runtime has no float64 convolution on the CPU. In float64 two correct programs of one network agree to about 1e-15
of the largest logit, so that what differs is not rounding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_grid_sample import GridSample as AnyGridSample
from onnx.reference.ops.op_max_pool import MaxPool as AnyMaxPool
from onnx.reference.ops.op_pad import Pad_18 as AnyPad
from onnx.reference.ops.op_topk import TopK_11 as AnyTopK
from scipy import special

from cnnbench.bundles import contract
from cnnbench.bundles.parity import attributes
from cnnbench.types import CnnbenchError, Exit, first_line

Literals = Mapping[np.float32, float]
"""float32 numbers of a file to the numbers that they are roundings of."""


class InFloat64:
    """The graph of `model` with weights, constants, casts and outputs in float64.

    Args:
        model: A file that keeps the contract.
        literals: What the float32 numbers in the graph round: 1e-5 for a float32 epsilon of 9.99999975e-06.
        parameters: Constants by name that are no literals, whatever their values.

    Raises:
        CnnbenchError: onnx's reference implementation does not know an operator, or ignores what one is given (exit 4).
    """

    def __init__(self, model: onnx.ModelProto, *, literals: Literals, parameters: frozenset[str]) -> None:
        wide = onnx.ModelProto()
        wide.CopyFrom(model)
        del wide.graph.value_info[:]
        for graph in contract.graphs(wide.graph):
            for tensor in graph.initializer:
                _widen(tensor, {} if tensor.name in parameters else literals)
            for node in graph.node:
                _widen_node(node, {} if {*node.output} & parameters else literals)
        for value in (*wide.graph.input, *wide.graph.output):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                value.type.tensor_type.elem_type = TensorProto.DOUBLE
        with _in_one_line():
            self._evaluator = ReferenceEvaluator(wide, new_ops=OPERATORS)
            attributes.refuse_ignored(_run_nodes(self._evaluator))
        for node in _run_nodes(self._evaluator):
            for name, value in list(vars(node).items()):
                if isinstance(value, float | np.floating):  # attributes are float32 in every ONNX file
                    setattr(node, name, literals.get(np.float32(value), float(value)))

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """Logits `(N, num_classes)` float64 of inputs as the graph takes them.

        Raises:
            CnnbenchError: The graph cannot be evaluated (exit 4).
        """
        if inputs.dtype == np.float32:
            inputs = inputs.astype(np.float64)
        with np.errstate(all="ignore"), _in_one_line():
            result: np.ndarray = self._evaluator.run([contract.LOGITS], {contract.INPUT: inputs})[0]  # type: ignore[index]
        return result


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Turn whatever onnx and numpy raise for a graph into one line."""
    try:
        yield
    except (MemoryError, CnnbenchError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise CnnbenchError(f"the ONNX file cannot be evaluated in float64: {reason}", Exit.VERDICT) from None


def _run_nodes(evaluator: Any) -> Iterator[Any]:
    """The evaluator's nodes, and those of the graphs within them."""
    for node in evaluator.rt_nodes_:
        yield node
        for value in vars(node).values():
            if isinstance(value, ReferenceEvaluator):
                yield from _run_nodes(value)


def _widen(tensor: TensorProto, literals: Literals) -> None:
    if tensor.data_type != TensorProto.FLOAT:
        return
    values = numpy_helper.to_array(tensor)
    wide = np.array(values, dtype=np.float64)
    if literals:
        for value in np.unique(values):
            wide[values == value] = literals.get(value, float(value))
    name = tensor.name
    tensor.CopyFrom(numpy_helper.from_array(wide, name))


def _widen_node(node: onnx.NodeProto, literals: Literals) -> None:
    if node.op_type == "ConstantOfShape" and not node.attribute:  # zeros in float32 unless it says otherwise
        node.attribute.append(onnx.helper.make_attribute("value", numpy_helper.from_array(np.zeros(1))))
    for attribute in node.attribute:
        if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.DOUBLE
        if attribute.type == AttributeProto.TENSOR:
            _widen(attribute.t, literals)
        if node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
            values = attribute.floats if attribute.name == "value_floats" else [attribute.f]
            wide = np.array([literals.get(np.float32(value), value) for value in values], dtype=np.float64)
            tensor = numpy_helper.from_array(wide if attribute.name == "value_floats" else wide[0])
            attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


WINDOW = ("auto_pad", "pads", "strides", "dilations", "ceil_mode")


def _kernel_shape(weight: np.ndarray, options: Mapping[str, Any]) -> tuple[int, ...]:
    said = tuple(options.get("kernel_shape") or weight.shape[2:])
    if said != weight.shape[2:]:
        raise ValueError(f"kernel_shape {said} with a weight of {weight.shape}")
    return said


class Conv(OpRun):
    """Convolution as a sum of matrix products, one per place of the kernel."""

    op_domain = ""
    read_elsewhere = (*WINDOW, "kernel_shape")

    def _run(
        self,
        images: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray | None = None,
        *,
        group: int | None = None,
        **options: Any,
    ) -> tuple[np.ndarray]:
        window = _Window(images, _kernel_shape(weight, options), options)
        count, groups, outputs = len(images), group or 1, len(weight)
        grouped = weight.reshape(groups, outputs // groups, *weight.shape[1:])
        result = np.zeros((count, groups, outputs // groups, math.prod(window.size)), images.dtype)
        for place, pixels in window.shifted(fill=0):
            columns = pixels.reshape(count, groups, weight.shape[1], -1)
            cut: Any = (..., *place)
            result += np.matmul(np.ascontiguousarray(grouped[cut]), columns)
        result = result.reshape(count, outputs, *window.size)
        if bias is not None:
            result += bias.reshape(1, -1, *[1] * len(window.size))
        return (result,)


class ConvTranspose(OpRun):
    """Transposed convolution: each pixel adds its multiple of the kernel. onnx's own knows no groups."""

    op_domain = ""
    read_elsewhere = ("kernel_shape",)

    def _run(
        self,
        images: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray | None = None,
        *,
        group: int | None = None,
        **options: Any,
    ) -> tuple[np.ndarray]:
        if options.get("output_shape") or (options.get("auto_pad") or "NOTSET") != "NOTSET":
            raise NotImplementedError("ConvTranspose with output_shape or auto_pad")
        kernel, axes, groups = _kernel_shape(weight, options), weight.ndim - 2, group or 1
        strides, dilations, more = (
            options.get(name) or [default] * axes
            for name, default in (("strides", 1), ("dilations", 1), ("output_padding", 0))
        )
        pads = options.get("pads") or [0] * 2 * axes
        sides = images.shape[2:]
        rows = list(zip(sides, kernel, strides, dilations, more, strict=True))
        full = [(side - 1) * step + (size - 1) * gap + 1 + extra for side, size, step, gap, extra in rows]
        outputs = groups * weight.shape[1]
        result = np.zeros((len(images), outputs, *full), images.dtype)
        grouped = weight.reshape(groups, -1, *weight.shape[1:])
        columns = images.reshape(len(images), groups, len(weight) // groups, -1)
        for place in itertools.product(*map(range, kernel)):
            cut: Any = (..., *place)
            added = np.matmul(np.ascontiguousarray(grouped[cut].transpose(0, 2, 1)), columns)
            starts = [(at * gap, side, step) for at, (side, _, step, gap, _) in zip(place, rows, strict=True)]
            where: Any = (..., *(slice(at, at + (side - 1) * step + 1, step) for at, side, step in starts))
            result[where] += added.reshape(len(images), outputs, *sides)
        if bias is not None:
            result += bias.reshape(1, -1, *[1] * axes)
        inside: Any = (..., *(slice(pads[axis], full[axis] - pads[axis + axes]) for axis in range(axes)))
        return (np.ascontiguousarray(result[inside]),)


class MaxPool(AnyMaxPool):
    """Largest value under the kernel; where their places are asked for, too, onnx's own."""

    op_domain = ""

    def _run(self, images: np.ndarray, **options: Any) -> tuple[np.ndarray, ...]:  # type: ignore[override]
        if len(self.onnx_node.output) > 1:
            both: tuple[np.ndarray, ...] = super()._run(images, **options)  # type: ignore[no-untyped-call]
            return both
        window = _pooling_window(images, options)
        result: np.ndarray | None = None
        for _, pixels in window.shifted(fill=-np.inf):
            result = pixels if result is None else np.maximum(result, pixels)
        assert result is not None
        return (np.ascontiguousarray(result),)


class AveragePool(OpRun):
    """Mean under the kernel, with or without the padding."""

    op_domain = ""
    read_elsewhere = (*WINDOW, "kernel_shape")

    def _run(self, images: np.ndarray, *, count_include_pad: int | None = None, **options: Any) -> tuple[np.ndarray]:
        window = _pooling_window(images, options)
        total: Any = sum(pixels for _, pixels in window.shifted(fill=0))
        return (total / window.counted(padding=bool(count_include_pad)),)


class HardSwish(OpRun):
    """x clip(x / 6 + 1 / 2), whose sixth onnx's own rounds to float32."""

    op_domain = ""

    def _run(self, values: np.ndarray) -> tuple[np.ndarray]:
        return (values * np.clip(values / 6 + 0.5, 0, 1),)


class Erf(OpRun):
    """scipy's error function."""

    op_domain = ""

    def _run(self, values: np.ndarray) -> tuple[np.ndarray]:
        return (special.erf(values),)


class Pad(AnyPad):
    """Padding, of which a negative width cuts off; numpy's knows none."""

    op_domain = ""

    def _run(  # type: ignore[override]
        self,
        values: np.ndarray,
        pads: np.ndarray,
        constant: np.ndarray | None = None,
        axes: np.ndarray | None = None,
        **options: Any,
    ) -> tuple[np.ndarray]:
        cut = [slice(None)] * values.ndim
        chosen = range(values.ndim) if axes is None else axes
        for axis, head, tail in zip(chosen, pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True):
            cut[axis] = slice(max(-head, 0), values.shape[axis] - max(-tail, 0))
        added = np.maximum(pads, 0)
        result: tuple[np.ndarray] = super()._run(values[tuple(cut)], added, constant, axes, **options)  # type: ignore[no-untyped-call]
        return result


class TopK(AnyTopK):
    """The largest or smallest values; where no order is asked for, not in the one that `sorted` would give."""

    op_domain = ""

    def _run(self, *inputs: np.ndarray, sorted: int | None = None, **options: Any) -> tuple[np.ndarray, ...]:
        both: tuple[np.ndarray, ...] = super()._run(*inputs, **options)  # type: ignore[no-untyped-call]
        return both if sorted else tuple(np.flip(part, axis=options["axis"]) for part in both)


class GridSample(AnyGridSample):
    """The names that its modes have in opset 16 to 19, and places in float64, which onnx's own rounds to float32."""

    op_domain = ""

    def _run(self, *inputs: np.ndarray, mode: str | None = None, **options: Any) -> tuple[np.ndarray]:
        names = {"bilinear": "linear", "bicubic": "cubic"}
        options["mode"] = names.get(mode or "", mode)
        result: tuple[np.ndarray] = super()._run(*inputs, **options)  # type: ignore[no-untyped-call]
        return result

    def _gs_denormalize_coordinates(self, n: np.ndarray, dims: Sequence[int], align_corners: bool) -> np.ndarray:
        denormalize: Any = self._gs_denormalize
        places = [denormalize(at, size, align_corners) for at, size in zip(n, dims, strict=True)]
        return np.array(places, dtype=np.float64)


OPERATORS = [Conv, ConvTranspose, MaxPool, AveragePool, HardSwish, Erf, Pad, TopK, GridSample]


def _pooling_window(images: np.ndarray, options: Mapping[str, Any]) -> _Window:
    return _Window(images, options["kernel_shape"], options)


class _Window:
    """Where the kernel of a convolution or a pooling lies on images `(N, C, ...)`, by the rules of ONNX."""

    def __init__(self, images: np.ndarray, kernel: Sequence[int], options: Mapping[str, Any]) -> None:
        auto_pad, pads, strides, dilations, ceil_mode = map(options.get, WINDOW)
        axes = len(kernel)
        self.images, self.kernel = images, tuple(kernel)
        self.strides, self.dilations = strides or [1] * axes, dilations or [1] * axes
        reach = [(size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True)]
        sides = images.shape[2:]
        self.head, self.tail = self._padding(sides, reach, auto_pad or "NOTSET", pads or [0] * 2 * axes)
        self.size: list[int] = []
        for side, span, head, tail, stride in zip(sides, reach, self.head, self.tail, self.strides, strict=True):
            steps = (side + head + tail - span) / stride
            size = (math.ceil(steps) if ceil_mode else math.floor(steps)) + 1
            # a window that would begin beyond the image and its left padding is left out, as in torch
            self.size.append(size - 1 if ceil_mode and (size - 1) * stride >= side + head else size)
        self._reach = reach

    def _padding(
        self, sides: Sequence[int], reach: Sequence[int], auto_pad: str, pads: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        if not auto_pad.startswith("SAME"):
            axes = len(sides)
            return ([0] * axes, [0] * axes) if auto_pad == "VALID" else (list(pads[:axes]), list(pads[axes:]))
        rows = zip(sides, reach, self.strides, strict=True)
        total = [max((math.ceil(side / stride) - 1) * stride + span - side, 0) for side, span, stride in rows]
        small, large = [value // 2 for value in total], [value - value // 2 for value in total]
        return (small, large) if auto_pad == "SAME_UPPER" else (large, small)

    def counted(self, *, padding: bool) -> np.ndarray:
        """Pixels under the kernel at each place `(*size)`, with those of the padding or without.

        What ceil_mode adds beyond the padding never counts.
        """
        result = np.ones(())
        for side, head, tail, size, stride, kernel, step in zip(
            self.images.shape[2:],
            self.head,
            self.tail,
            self.size,
            self.strides,
            self.kernel,
            self.dilations,
            strict=True,
        ):
            places = np.arange(size)[:, None] * stride - head + np.arange(kernel) * step
            first, end = (-head, side + tail) if padding else (0, side)
            result = result[..., None] * ((places >= first) & (places < end)).sum(axis=1)
        return result

    def shifted(self, *, fill: float) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """Each place in the kernel, with the pixels that lie under it `(N, C, *size)`; padding holds `fill`."""
        widths = [(0, 0), (0, 0)]
        for side, head, tail, size, stride, span in zip(
            self.images.shape[2:], self.head, self.tail, self.size, self.strides, self._reach, strict=True
        ):
            beyond = (size - 1) * stride + span - side - head - tail  # what ceil_mode adds
            widths.append((head, tail + max(beyond, 0)))
        padded = np.pad(self.images, widths, constant_values=fill)
        for place in itertools.product(*map(range, self.kernel)):
            rows = zip(place, self.dilations, self.size, self.strides, strict=True)
            cut = [slice(at * step, at * step + (size - 1) * stride + 1, stride) for at, step, size, stride in rows]
            yield place, padded[(slice(None), slice(None), *cut)]
