"""Is every number in a file the trained network's? Each floating-point constant is accounted for, bit by bit. numpy."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from cnnbench.bundles import contract
from cnnbench.records.bundle import Constant, Proof
from cnnbench.types import CnnbenchError, Exit, ImageSpec

Rule = Literal["tensor", "transpose", "pieces", "literal", "empty", ""]
LARGEST_LITERAL = 8
"""Different numbers of a constant that may all be literals: the scales of a Resize, say."""
MOST_PIECES = 16
"""Of a constant that is put together from parts of tensors: the gates of a recurrent layer, forward and backward."""
SELU = (1.0507009873554804934193349852946, 1.6732632423543772848170429916717)
"""Its scale and alpha: Klambauer et al. 2017, arXiv:1706.02515."""
KNOWN = (math.pi, math.sqrt(2 / math.pi), 0.044715, math.log(2), 1 / math.log(2), math.log(10), 3.0, 6.0, *SELU)
"""Numbers of decomposed operators that follow from no argument: GELU's, the logarithms', the hard sigmoid's, SELU's."""


def constants(model: onnx.ModelProto) -> Iterator[tuple[str, str, np.ndarray]]:
    """Every floating-point constant of a file: its name, the type of the operator that uses it, and its values."""
    for graph in contract.graphs(model.graph):
        users = {name: node.op_type for node in graph.node for name in node.input}
        for tensor in graph.initializer:
            if tensor.data_type in FLOATS:
                yield tensor.name, users.get(tensor.name, "no operator"), numpy_helper.to_array(tensor)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR and attribute.t.data_type in FLOATS:
                    yield node.output[0], node.op_type, numpy_helper.to_array(attribute.t)
                elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                    values = attribute.floats if attribute.name == "value_floats" else attribute.f
                    yield node.output[0], node.op_type, np.array(values, dtype=np.float32)


FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Accounts:
    """What every floating-point constant of a file is, and the numbers that its literals are roundings of."""

    constants: tuple[Constant, ...]
    literals: tuple[float, ...]

    @property
    def of_parameters(self) -> frozenset[str]:
        """Names of the constants that are no literals."""
        return of_parameters(self.constants)


def of_parameters(constants: Iterable[Constant]) -> frozenset[str]:
    """Names of the constants that are no literals."""
    return frozenset(entry.name for entry in constants if entry.rule != "literal")


def account(
    model: onnx.ModelProto, tensors: Mapping[str, np.ndarray], *, floats: Sequence[float], integers: Collection[int]
) -> Accounts:
    """Say of every floating-point constant of a file what it is.

    Args:
        model: The file.
        tensors: The float32 tensors of the reference network by name.
        floats: The floats that its operators are given.
        integers: The integers that its operators are given, and the sizes of its tensors.

    Raises:
        CnnbenchError: A constant is none of the network's tensors, up to its layout, and no literal (exit 4).
    """
    network = Numbers(tensors, floats=floats, integers=integers)
    result, used = [], dict.fromkeys(_attribute_literals(model, network.literals))
    for name, user, values in constants(model):
        rule, source, exact = network.rule(name, values)
        if not rule:
            shape = "x".join(map(str, values.shape)) or "a scalar"
            raise CnnbenchError(
                f"the ONNX file is not the trained network: its constant {name} ({shape}, first value "
                f"{values.flat[0]!s}), which {user} uses, is neither a tensor of the network nor a number of its "
                "operators",
                Exit.VERDICT,
            )
        result.append(Constant(name, rule, source, sha256(values)))
        used |= dict.fromkeys(exact)
    rounded = [value for value in used if math.isfinite(value) and float(np.float32(value)) != value]
    return Accounts(tuple(result), tuple(sorted(rounded)))


def sha256(values: np.ndarray) -> str:
    """Hash of a constant: its type, its shape and its bytes."""
    head = f"{values.dtype} {values.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(values).tobytes()).hexdigest()


def compare(model: onnx.ModelProto, proof: Proof) -> None:
    """Compare every constant of a file with what its proof says of it.

    Raises:
        CnnbenchError: One is missing, new or other than it was (exit 4).
    """
    expected = {entry.name: entry for entry in proof.constants}
    found = {name: values for name, _, values in constants(model)}
    actual = {name: sha256(values) for name, values in found.items()}
    for name in (*expected, *actual):
        if name not in actual:
            raise CnnbenchError(f"the file has no constant {name}, which the proof names", Exit.VERDICT)
        if name not in expected or expected[name].sha256 != actual[name]:
            state = "not the one that the proof is of" if name in expected else "in no proof"
            raise CnnbenchError(f"the file's constant {name} is {state}", Exit.VERDICT)
        if not _may_hold(expected[name], found[name]):
            raise CnnbenchError(
                f"the file's constant {name} cannot be what the proof calls it: {expected[name].rule} "
                f"{expected[name].source[:80]!r}",
                Exit.VERDICT,
            )


def _may_hold(entry: Constant, values: np.ndarray) -> bool:
    """Whether a constant can be what its rule and its source say."""
    if entry.rule == "literal":
        distinct = np.unique(values)
        return not entry.source and (len(distinct) <= LARGEST_LITERAL or bool((distinct == np.round(distinct)).all()))
    if entry.rule == "empty":
        return not entry.source and not values.size
    return bool(values.size and re.search(SOURCES[entry.rule], entry.source))


SOURCES = {"tensor": ".", "transpose": r". as \d+(,\d+)*$", "pieces": r".\[[:,]*\d+:\d+\]$"}
"""How `Numbers.rule` writes the source of a constant."""


def compare_normalisation(model: onnx.ModelProto, spec: ImageSpec) -> None:
    """Compare what the file takes from the pixels first, and divides them by, with a spec.

    Raises:
        CnnbenchError: It is another mean or deviation (exit 4).
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    operands = [
        (node.op_type, numpy_helper.to_array(tensors[node.input[1]]).ravel())
        for node in model.graph.node[:FIRST_NODES]
        if node.op_type in ("Sub", "Div") and len(node.input) == 2 and node.input[1] in tensors
    ]
    means = [index for index, (kind, _) in enumerate(operands) if kind == "Sub"]
    if not means or [kind for kind, _ in operands[means[0] :]][:2] != ["Sub", "Div"]:
        return  # it is written otherwise; the evaluation in float64 shows what it does
    expected = {
        "mean": spec.mean or (0.0,) * spec.channels,
        "standard deviation": spec.std or (1.0,) * spec.channels,
    }
    for (what, values), (_, actual) in zip(expected.items(), operands[means[0] :], strict=False):
        if not np.array_equal(np.array(values, np.float32), actual):
            raise CnnbenchError(
                f"the file normalises by the {what} {', '.join(f'{value:.6g}' for value in actual[:4])}; the manifest "
                f"claims {', '.join(f'{value:.6g}' for value in values[:4])}",
                Exit.VERDICT,
            )


FIRST_NODES = 5
"""Transpose, Cast and Div by 255, where the file takes bytes, then Sub and Div."""


def by_rounding(literals: Iterable[float]) -> dict[np.float32, float]:
    """Numbers by the float32 that they round to, for `exact.InFloat64`."""
    return {np.float32(value): value for value in literals}


def _attribute_literals(model: onnx.ModelProto, literals: Mapping[bytes, float]) -> Iterator[float]:
    """What the float attributes of a file are roundings of, those that operators have by default included.

    Raises:
        CnnbenchError: An operator of the network explains none of them (exit 4).
    """
    for graph in contract.graphs(model.graph):
        for node in graph.node:
            own = {
                item.name: [*item.floats, *([item.f] if item.type == AttributeProto.FLOAT else [])]
                for item in node.attribute
            }
            defaults = _defaults(node.op_type)
            for name, values in {**{name: [value] for name, value in defaults.items()}, **own}.items():
                if node.op_type == "Constant":
                    continue  # it is accounted for as a constant
                for value in values:
                    exact = _literal(np.float32(value).tobytes(), literals)
                    if exact is not None:
                        yield exact
                    elif value != defaults.get(name):
                        raise CnnbenchError(
                            f"the ONNX file is not the trained network: its {node.op_type} {node.name} has {name} "
                            f"{value:.9g}, which no operator of the network is given",
                            Exit.VERDICT,
                        )


@cache
def _defaults(operator: str) -> dict[str, float]:
    """The float attributes that an operator has where a file does not say."""
    attributes = onnx.defs.get_schema(operator, max_inclusive_version=contract.OPSET, domain="").attributes
    kinds = {name: item.default_value for name, item in attributes.items()}
    return {name: value.f for name, value in kinds.items() if value.type == AttributeProto.FLOAT}


class Numbers:
    """The numbers of a reference network, in which a file's constants are looked up.

    Args:
        tensors: Its float32 tensors by name.
        floats: The floats that its operators are given.
        integers: The integers that its operators are given, and the sizes of its tensors.
    """

    def __init__(
        self, tensors: Mapping[str, np.ndarray], *, floats: Sequence[float], integers: Collection[int]
    ) -> None:
        self.literals = _literals(floats, integers)
        self._tensors = _Tensors(tensors)

    def rule(self, name: str, values: np.ndarray) -> tuple[Rule, str, tuple[float, ...]]:
        """The rule that holds a constant, what it is made of, and of a literal the exact numbers; "" where none does.

        Args:
            name: The constant's name in the file.
            values: Its values.
        """
        tensors = self._tensors
        if values.size == 0:
            return "empty", "", ()
        if values.dtype != np.float32:
            return "", "", ()
        if name in tensors.by_name:  # it has these bits, and no others that happen to be somewhere
            return ("tensor", name, ()) if tensors.same(values, name) else ("", "", ())
        finders: dict[Rule, Callable[[np.ndarray], str]]
        finders = {"tensor": tensors.equal, "transpose": tensors.transposed, "pieces": tensors.pieces}
        exact = self._exact(values)
        if values.size > 1 or exact is None:  # a parameter may still hold the one number that it began with
            for rule, find in finders.items():
                if source := find(values):
                    return rule, source, ()
        return ("", "", ()) if exact is None else ("literal", "", exact)

    def _exact(self, values: np.ndarray) -> tuple[float, ...] | None:
        """What the few numbers of a constant are roundings of; None where one is not a literal, or there are many."""
        distinct = np.unique(values)
        if len(distinct) > LARGEST_LITERAL:
            return () if (distinct == np.round(distinct)).all() else None  # counts, as of pixels under a kernel
        exact = [_literal(value.tobytes(), self.literals) for value in distinct]
        known = tuple(value for value in exact if value is not None)
        return known if len(known) == len(exact) else None


def _literal(number: bytes, literals: Mapping[bytes, float]) -> float | None:
    value = float(np.frombuffer(number, np.float32)[0])
    if not math.isfinite(value) or value.is_integer() or abs(value) >= float(np.finfo(np.float32).max):
        return value
    return literals.get(number)


def _literals(floats: Sequence[float], integers: Collection[int]) -> dict[bytes, float]:
    """float32 numbers that operators may hold, by their bytes, to what they are roundings of.

    An argument comes before what follows from one: reciprocals and roots, as of an attention's scale, and negatives.
    """
    base = [*floats, *map(float, sorted(integers)), *KNOWN, 2.0, 0.5]
    derived = [_finite(f, value) for f in DERIVED for value in base]
    result: dict[bytes, float] = {}
    with np.errstate(all="ignore"):
        for value in (*base, *(value for value in derived if value is not None)):
            result.setdefault(np.float32(value).tobytes(), value)
    return result


DERIVED = (
    lambda v: -v,  # a difference as a sum
    lambda v: 1 / v,  # a quotient as a product; an upsampling's scale
    lambda v: -1 / v,
    lambda v: 1 - v,  # the rest of a share, as in lerp
    lambda v: 1 + v,
    lambda v: v**0.5,  # norms; the length of a vector
    lambda v: v**-0.5,  # attention: one over the root of a head's size
    lambda v: v**0.25,  # attention with both factors scaled
    lambda v: v**-0.25,
    lambda v: v - 1,  # the last place of a grid
    lambda v: v / 2,  # the middle of a grid
    lambda v: 2 / v,  # steps of a grid from -1 to 1
    lambda v: v / (v - 1),  # an unbiased variance
)


def _finite(function: object, value: float) -> float | None:
    try:
        result = function(value)  # type: ignore[operator]
    except (ZeroDivisionError, OverflowError, ValueError):
        return None
    return result if isinstance(result, float) and math.isfinite(result) else None


class _Tensors:
    """The reference network's tensors, to be found by their bits."""

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.by_name = tensors
        self._by_bytes: dict[bytes, str] = {}
        self._by_values: dict[bytes, list[str]] = {}
        for name, tensor in tensors.items():
            self._by_bytes.setdefault(_digest(tensor), name)
            self._by_values.setdefault(_digest(np.sort(tensor, axis=None)), []).append(name)

    def same(self, values: np.ndarray, name: str) -> bool:
        """Whether the tensor of this name has these bits."""
        tensor = self.by_name.get(name)
        return tensor is not None and tensor.size == values.size and tensor.tobytes() == values.tobytes()

    def equal(self, values: np.ndarray) -> str:
        """A tensor with the same bits in the same order."""
        return self._by_bytes.get(_digest(values), "")

    def transposed(self, values: np.ndarray) -> str:
        """A tensor with the same bits, its axes in another order."""
        bits = values.tobytes()
        for name in self._by_values.get(_digest(np.sort(values, axis=None)), []):
            tensor = self.by_name[name].squeeze()
            for order in itertools.permutations(range(tensor.ndim)):
                if np.ascontiguousarray(tensor.transpose(order)).tobytes() == bits:
                    return f"{name} as {','.join(map(str, order))}"
        return ""

    def pieces(self, values: np.ndarray) -> str:
        """Parts of tensors, one after the other: slices, concatenations, gates in another order."""
        for rows in (values.reshape(1, -1), *_rows(values)):
            if rows.size > 1 and (found := self._pieces_of(np.ascontiguousarray(rows))):
                return found
        return ""

    def _pieces_of(self, rows: np.ndarray) -> str:
        places: dict[bytes, list[tuple[str, int, int]]] = {}
        for name, tensor in self.by_name.items():
            for axis in range(tensor.ndim):
                if tensor.shape[axis] and tensor.size // tensor.shape[axis] == rows.shape[1]:
                    parts = np.ascontiguousarray(np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1))
                    for index, part in enumerate(parts):
                        places.setdefault(part.tobytes(), []).append((name, axis, index))
        pieces: list[tuple[str, int, int, int]] = []  # tensor, axis, first, last
        at = 0
        while at < len(rows):
            best: tuple[str, int, int, int] | None = None
            for name, axis, first in places.get(rows[at].tobytes(), []):
                length = 1
                while at + length < len(rows) and (name, axis, first + length) in places.get(
                    rows[at + length].tobytes(), ()
                ):
                    length += 1
                if best is None or length > best[3] - best[2]:
                    best = (name, axis, first, first + length)
            if best is None or len(pieces) == MOST_PIECES:
                return ""
            pieces.append(best)
            at += best[3] - best[2]
        return ", ".join(f"{name}[{':,' * axis}{first}:{last}]" for name, axis, first, last in pieces)


def _rows(values: np.ndarray) -> Iterator[np.ndarray]:
    """A constant cut along each axis, `(N, -1)`; then along its first axes together, as directions and gates lie."""
    for axis in range(values.ndim):
        yield np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    for axes in range(2, values.ndim + 1):
        yield values.reshape(math.prod(values.shape[:axes]), -1)


def _digest(values: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).digest()
