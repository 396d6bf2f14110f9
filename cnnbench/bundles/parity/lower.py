"""Is a file of lower precision the float32 file, rounded? The same graph, each constant as near as it can be. No torch.

Nodes go by their names. What such a file has besides are casts, or pairs of QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, numpy_helper

from cnnbench.bundles import contract
from cnnbench.types import CnnbenchError, Exit

Lower = Literal["fp16", "int8"]
SMALLEST_HALF, LARGEST_HALF = np.finfo(np.float16).smallest_subnormal, np.finfo(np.float16).max
"""Limits of a float16 that is neither 0 nor infinite: 2**-24 and 65504."""
ROUNDING = 2.0**-23
"""Parts of a number: the quantiser divides it by its scale in float32, off by up to 2**-24, before it rounds.

And a bias's scale is the product of two others, rounded to float32.
"""
SATURATING = ("Relu", "Clip")
"""Operators that the quantiser leaves out where the quantised numbers behind them lie between their limits."""


@dataclass(frozen=True)
class Lowered:
    """A file of lower precision that is the float32 file, rounded.

    Args:
        rounded: How many constants of it are float16, or quantised.
        clamped: How many numbers of them would be 0 or infinite, and are at the limit of float16 instead.
    """

    rounded: int
    clamped: int


def compare(precision: Lower, model: onnx.ModelProto, *, fp32: onnx.ModelProto) -> Lowered:
    """Compare a file of lower precision with the float32 file: every node, every edge, every number of a constant.

    Args:
        precision: What `model` is.
        model: The file of lower precision; `contract.check` has accepted it.
        fp32: The float32 file.

    Raises:
        CnnbenchError: The graph is another one; or a constant is not the nearest half (fp16), is farther than half a
            step off (int8), has a scale that is not positive or so fine that sums saturate, differs where it is not
            rounded, or stands for nothing (exit 4).
    """
    comparison = _Comparison(precision, _Graph(model), _Graph(fp32))
    comparison.nodes()
    comparison.ends(model.graph, fp32.graph)
    comparison.nothing_else()
    if not comparison.rounded:
        raise _refused("none of its constants is")
    return Lowered(len(comparison.rounded), sum(comparison.rounded.values()))


class _Graph:
    """A file by names, those within branches and loops included: its nodes, who produces a value, its constants."""

    def __init__(self, model: onnx.ModelProto) -> None:
        parts = list(contract.graphs(model.graph))
        nodes = [node for part in parts for node in part.node]
        tensors = [tensor for part in parts for tensor in part.initializer]
        self.nodes = {node.name: node for node in nodes if node.op_type != "Constant"}
        self.producers = {name: (node, index) for node in nodes for index, name in enumerate(node.output) if name}
        made = {node.output[0]: _value(node) for node in nodes if node.op_type == "Constant"}
        self.constants = made | {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}
        if len(self.nodes) + len(made) < len(nodes) or len(self.constants) < len(tensors) + len(made):
            raise _refused("two of its nodes or constants have one name")


def _value(node: NodeProto) -> np.ndarray:
    """What a Constant node returns.

    Raises:
        CnnbenchError: It is not an array of numbers (exit 4).
    """
    (attribute,) = node.attribute
    types = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if attribute.name == "value":
        return numpy_helper.to_array(attribute.t)
    if attribute.name in types:
        return np.array(onnx.helper.get_attribute_value(attribute), dtype=types[attribute.name])
    raise _refused(f"its constant {node.output[0]} is not an array of numbers")


@dataclass(frozen=True)
class _Grid:
    """Numbers that integers stand for: `(q - zero) * scale`, each of the two for all or along an axis."""

    scale: np.ndarray
    zero: np.ndarray
    axis: int

    def along(self, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Its scale or its zero point in float64, as it is broadcast to a constant of this shape.

        Raises:
            CnnbenchError: It does not fit (exit 4).
        """
        if values.size == 1:
            return values.astype(np.float64).reshape(())
        if not -len(shape) <= self.axis < len(shape) or values.shape != (shape[self.axis],):
            raise _refused(f"{values.size} scales do not fit a constant of shape {shape}")
        return np.moveaxis(values.astype(np.float64).reshape(-1, *[1] * (len(shape) - 1)), 0, self.axis)

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the largest number, of a grid that has one scale."""
        integers, zero, scale = np.iinfo(self.zero.dtype), float(self.zero.item()), float(self.scale.item())
        return (integers.min - zero) * scale, (integers.max - zero) * scale


@dataclass(frozen=True)
class _Origin:
    """Where a value comes from: the name of a constant or an input, or a node and which output of it.

    `grids` are the quantisations on the way; of a constant, the one that it is stored in, if any.
    """

    name: str
    output: int | None
    grids: tuple[_Grid, ...]


LEAST_USED, MOST_USED = 50, 64
"""Steps on either side that the largest weight of a scale takes: no quantiser uses fewer, and more than 64
saturate the 16-bit sums of x86-64 processors without VNNI: 255 * 65 * 2 is more than 2**15 - 1.
"""


class _Comparison:
    """Comparison of a file of lower precision with the float32 file.

    `rounded` are the constants seen that are rounded, and how many numbers of each are clamped.
    """

    def __init__(self, precision: Lower, lower: _Graph, fp32: _Graph) -> None:
        self.precision, self.lower, self.fp32 = precision, lower, fp32
        self.rounded: dict[str, int] = {}
        self._seen: set[str] = set()

    def nodes(self) -> None:
        """Every node of float32 is there, with its attributes and what it takes."""
        for name, theirs in self.fp32.nodes.items():
            mine = self.lower.nodes.get(name)
            if mine is None and theirs.op_type in SATURATING:
                continue  # whatever takes its output looks at why it is not there
            kinds = [(node.op_type, node.domain, len(node.output)) for node in (mine, theirs) if node is not None]
            if mine is None or kinds[0] != kinds[1]:
                raise _refused(f"it has no {theirs.op_type} {name}, as float32 has")
            self._attributes(mine, theirs)
            origins = self._edges(mine.input, theirs.input, user=name)
            for origin in origins:
                if origin is not None and self._is_int32(origin):
                    self._bias(origin, products=origins[:2])

    def ends(self, mine: onnx.GraphProto, theirs: onnx.GraphProto) -> None:
        """The inputs and outputs of a graph are float32's; of the file's, or of one within a branch or a loop."""
        if [value.name for value in mine.input] != [value.name for value in theirs.input]:
            raise _refused("its graph has other inputs than float32's")
        outputs = ([value.name for value in graph.output] for graph in (mine, theirs))
        self._edges(*outputs, user="an output of the graph")

    def nothing_else(self) -> None:
        """No constant is left over."""
        if more := {*self.lower.constants} - self._seen:
            raise _refused(f"its constant {min(more)} stands for nothing in the float32 file")

    def _attributes(self, mine: NodeProto, theirs: NodeProto) -> None:
        own, expected = ({item.name: item for item in node.attribute} for node in (mine, theirs))
        for name in sorted({*own, *expected}):
            pair = [item for item in (own.get(name), expected.get(name)) if item is not None]
            kinds = {item.type for item in pair}
            same = len({item.SerializeToString(deterministic=True) for item in pair}) == 1
            if len(pair) == 2 and kinds == {AttributeProto.TENSOR}:
                self._unquantised(f"{mine.name}.{name}", *(numpy_helper.to_array(item.t) for item in pair))
            elif len(pair) == 2 and kinds == {AttributeProto.GRAPH}:
                self.ends(*(item.g for item in pair))
            elif len(pair) < 2 or not same:
                raise _refused(f"its {mine.op_type} {mine.name} has another {name} than float32's")

    def _edges(self, mine: Sequence[str], theirs: Sequence[str], *, user: str) -> list[_Origin | None]:
        """Compare what leads to the inputs of a node, or the outputs of a graph; None for an input that is left out."""
        if [not name for name in mine] != [not name for name in theirs]:
            raise _refused(f"{user} has other inputs than in float32")
        return [self._edge(*names, user=user) if names[0] else None for names in zip(mine, theirs, strict=True)]

    def _edge(self, mine: str, theirs: str, *, user: str) -> _Origin:
        origin = self._trace(mine)
        if theirs in self.fp32.constants:
            self._constant(origin, theirs)
            return origin
        producer = self.fp32.producers.get(theirs)
        while producer is not None and producer[0].name not in self.lower.nodes:
            if not any(self._saturates(grid, producer[0]) for grid in origin.grids):
                raise _refused(f"it has no {producer[0].op_type} {producer[0].name}, as float32 has")
            theirs = producer[0].input[0]
            producer = self.fp32.producers.get(theirs)
        expected = (theirs, None) if producer is None else (producer[0].name, producer[1])
        if (origin.name, origin.output) != expected or origin.name in self.lower.constants:
            raise _refused(f"{user} takes {origin.name}, and in float32 {expected[0]}")
        return origin

    def _trace(self, name: str) -> _Origin:
        """Where a value comes from, past the nodes that a converter inserted."""
        grids: list[_Grid] = []
        while name not in self.lower.constants and name in self.lower.producers:
            node, index = self.lower.producers[name]
            if node.name in self.fp32.nodes:
                return _Origin(node.name, index, tuple(grids))
            name = self._before(node, grids)
        self._seen.add(name)
        return _Origin(name, None, tuple(grids))

    def _before(self, node: NodeProto, grids: list[_Grid]) -> str:
        """What an inserted node takes; where it quantises, its grid is added to `grids`."""
        source: str = node.input[0]
        to = next((item.i for item in node.attribute if item.name == "to"), None)
        if self.precision == "fp16" and node.op_type == "Cast" and to in (TensorProto.FLOAT, TensorProto.FLOAT16):
            return source
        if self.precision != "int8" or node.op_type != "DequantizeLinear":
            raise _refused(f"its {node.op_type} {node.name} is not in the float32 file")
        grid = self._grid(node)
        constant = source in self.lower.constants
        if not constant:
            producer, _ = self.lower.producers.get(source, (node, 0))
            pair = producer.op_type == "QuantizeLinear" and producer.name not in self.fp32.nodes
            if not pair or list(producer.input[1:]) != list(node.input[1:]) or grid.scale.size != 1:
                raise _refused(f"its {node.op_type} {node.name} undoes no QuantizeLinear of the same single scale")
            source = producer.input[0]
        if source in self.lower.constants and (grids or not constant):
            raise _refused(f"its constant {source} is quantised more than once")
        grids.append(grid)
        return source

    def _grid(self, node: NodeProto) -> _Grid:
        """How a node quantises or dequantises.

        Raises:
            CnnbenchError: Its scale is not a positive number, or they are no constants (exit 4).
        """
        names = list(node.input[1:])
        if len(names) != 2 or not {*names} <= {*self.lower.constants}:
            raise _refused(f"its {node.op_type} {node.name} has no constant scale and zero point")
        self._seen |= {*names}
        scale, zero = (self.lower.constants[name] for name in names)
        if scale.dtype != np.float32 or not (np.isfinite(scale) & (scale > 0)).all() or scale.size != zero.size:
            raise _refused(f"its scale {names[0]} is not positive throughout")
        if zero.dtype != np.uint8 and zero.any():
            raise _refused(f"its zero point {names[1]} is not 0: expected 0 for {zero.dtype}")
        axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
        return _Grid(scale, zero, axis)

    def _saturates(self, grid: _Grid, node: NodeProto) -> bool:
        """Whether all that a grid stands for lies between a Relu's or a Clip's limits, up to half a step."""
        if node.op_type not in SATURATING:
            return False
        limits = [-np.inf, np.inf] if node.op_type == "Clip" else [0.0, np.inf]
        for index, name in enumerate(node.input[1:]):
            if name and name not in self.fp32.constants:
                return False
            limits[index] = float(self.fp32.constants[name]) if name else limits[index]
        half_step = float(grid.scale.item()) / 2
        return limits[0] - half_step <= grid.limits[0] and grid.limits[1] <= limits[1] + half_step

    def _constant(self, origin: _Origin, name: str) -> None:
        """Compare a constant with the one of float32 that it stands for, which is `name`."""
        actual, expected = self.lower.constants.get(origin.name), self.fp32.constants[name]
        if actual is None or origin.output is not None:
            raise _refused(f"it has no constant where float32 has {name}")
        if not origin.grids:
            self._unquantised(origin.name, actual, expected)
            return
        (grid,) = origin.grids
        if actual.dtype != grid.zero.dtype or actual.shape != expected.shape or expected.dtype != np.float32:
            raise _refused(f"its constant {origin.name} is not the size or type of float32's {name}")
        scale = grid.along(grid.scale, actual.shape)
        apart = np.abs((actual - grid.along(grid.zero, actual.shape)) * scale - expected)
        excess = apart - scale / 2 - ROUNDING * np.abs(expected)
        if not (excess <= 0).all():
            steps = float((apart / scale).max())
            raise _refused(
                f"its constant {origin.name} is {steps:.3g} steps from float32's {name}; expected at most half a step"
            )
        if actual.dtype == np.int8:
            others = tuple(axis for axis, size in enumerate(scale.shape) if size == 1) if scale.ndim else None
            largest = np.abs(expected).max(axis=others, keepdims=True)
            if ((scale * LEAST_USED > largest) & (largest > 0)).any():
                raise _refused(f"the scale of its constant {origin.name} is too coarse for float32's {name}")
            if (most := int(np.abs(actual.astype(np.int16)).max(initial=0))) > MOST_USED:
                raise _refused(
                    f"its constant {origin.name} has a weight of {most} steps, and processors without VNNI saturate; "
                    f"expected at most {MOST_USED}: export it again"
                )
        self.rounded[origin.name] = 0

    def _unquantised(self, name: str, actual: np.ndarray, expected: np.ndarray) -> None:
        """Compare a constant that is not quantised: the nearest halves, or the same bits."""
        if actual.dtype == np.float16 and expected.dtype == np.float32 and actual.shape == expected.shape:
            nearest, clamped = halves(expected)
            if actual.tobytes() != nearest.tobytes():
                raise _refused(f"its constant {name} is not the nearest half of float32's throughout")
            self.rounded[name] = int(clamped.sum())
        elif (actual.dtype, actual.shape, actual.tobytes()) != (expected.dtype, expected.shape, expected.tobytes()):
            raise _refused(f"its constant {name} is not float32's")

    def _is_int32(self, origin: _Origin) -> bool:
        return origin.output is None and any(grid.zero.dtype == np.int32 for grid in origin.grids)

    def _bias(self, bias: _Origin, *, products: Sequence[_Origin | None]) -> None:
        """Kernels add a bias to a sum of products, and so take its scale to be that of the products."""
        scales = [origin.grids[0].scale for origin in products if origin is not None and origin.grids]
        if len(scales) != 2:
            raise _refused(f"its constant {bias.name} is int32, and no bias of quantised products")
        expected = scales[0].astype(np.float64).ravel() * scales[1].ravel()
        actual = bias.grids[0].scale.ravel()
        if actual.shape != expected.shape or not (np.abs(actual - expected) <= ROUNDING * expected).all():
            raise _refused(f"the scale of its constant {bias.name} is not that of the products that it is added to")


def halves(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The float16 of float32 numbers: the nearest, and where that is 0 or infinite the limit; and where that is."""
    with np.errstate(over="ignore", under="ignore"):
        nearest = values.astype(np.float16)
    vanished, overflown = (nearest == 0) & (values != 0), np.isinf(nearest) & np.isfinite(values)
    limits = np.where(vanished, SMALLEST_HALF, LARGEST_HALF) * np.sign(values).astype(np.float16)
    return np.where(vanished | overflown, limits, nearest), vanished | overflown


def _refused(reason: str) -> CnnbenchError:
    return CnnbenchError(f"it is not the float32 file, rounded: {reason}", Exit.VERDICT)
