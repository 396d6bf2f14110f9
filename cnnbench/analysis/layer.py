"""One layer of a network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

Call = tuple[str, str, int]
"""A call of a function of torch: the name of the module that ran it, the function, and how many it came after there."""

Sides = tuple[int, int]
"""Rows and columns."""

Extent = int | Literal["image"]
"""Pixels along one side; "image" where a layer joins all positions along it."""

Field = tuple[Extent, Extent] | Literal["image"] | None
"""Rows and columns seen by one output unit; "image" where it is all of both, None where no formula is followed."""


@dataclass(frozen=True)
class Origin:
    """The call of which a layer is the result."""

    call: Call
    sides: tuple[int | None, ...] | None
    """Dimensions of the result that are rows and columns of a map, each None where it has no such positions any more;
    empty where they share or divide dimensions (tokens, windows), None where they are not followed."""
    periods: Sides = (1, 1)
    """Positions along rows and columns until they read alike again."""


@dataclass(frozen=True)
class Layer:
    """One step of a network: a convolution, a pooling, a matrix product, a sum or concatenation of branches.

    Shapes are without the batch. Operations on each position alone (batch norm, ReLU) are named in `fused_ops` of the
    layer whose output they change, and their parameters are counted there.
    """

    name: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    kernel: Sides | None = None
    stride: Sides | None = None
    padding: Sides | None = None
    groups: int = 1
    field: Field = None
    jump: tuple[float, float] = (1, 1)
    """Pixels from one output unit's receptive field to the next one's, on average; 0 where that is not followed."""
    branch: str = ""
    """Branch after a fork: a, b, ... in the order of execution; nested forks have several letters."""
    weights: int = 0
    params: int = 0
    macs: int = 0
    activations: int = 0
    depth: int = 0
    fused_ops: tuple[str, ...] = ()
    sources: tuple[int, ...] = ()
    """Indices, in the list of layers, of those whose output this one reads; -1 is the image."""
    origin: Origin | None = dataclasses.field(default=None, compare=False, repr=False)
    """Where it was called; None where that call has several layers, of which this is not the last."""

    @property
    def fully_connected(self) -> int | None:
        """Weights that a fully connected layer between the same two tensors would need."""
        return math.prod(self.input_shape) * math.prod(self.output_shape) if self.weights else None


def pair(value: Any) -> Sides:
    """Rows and columns of an operator's argument: a number, or a list of one or two."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return (int(values[0]), int(values[-1]))


def field_of(rows: Extent, columns: Extent) -> Field:
    """The field of these extents."""
    return "image" if rows == columns == "image" else (rows, columns)


def pixels_of(field: Field) -> Sides | None:
    """A field as rows and columns; None where a side of it is the whole image, or it is not known."""
    if not isinstance(field, tuple):
        return None
    rows, columns = field
    return None if rows == "image" or columns == "image" else (rows, columns)


def field_text(field: Field) -> str:
    """`5x5`, `image`, `5 x image`, or `not by formula`."""
    if not isinstance(field, tuple):
        return field or "not by formula"
    return ("x" if pixels_of(field) else " x ").join(map(str, field))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in an operator's arguments or results, however nested, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
