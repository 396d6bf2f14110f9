"""One layer of a network, and the arithmetic of receptive fields."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

Sides = tuple[int, int]
"""Rows and columns."""

Field = Sides | Literal["image"] | None
"""Pixels seen by one output unit; "image" where a layer joins all positions, None behind attention (not followed)."""


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
    jump: Sides = (1, 1)
    """Pixels from one output unit's receptive field to the next one's."""
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

    @property
    def fully_connected(self) -> int | None:
        """Weights that a fully connected layer between the same two tensors would need."""
        return math.prod(self.input_shape) * math.prod(self.output_shape) if self.weights else None


def windowed(
    layer: Layer, kind: str, *, kernel: Sides, stride: Sides, padding: Sides = (0, 0), dilation: Sides = (1, 1)
) -> Layer:
    """`layer` as one that slides a window over its input.

    r += (k_eff - 1) * j, then j *= s, for rows and for columns (Araujo, Norris, Sim: Distill 2019).
    """
    field = layer.field
    if isinstance(field, tuple):
        reach = [dilation[i] * (kernel[i] - 1) * layer.jump[i] for i in (0, 1)]
        field = (field[0] + reach[0], field[1] + reach[1])
    jump = (layer.jump[0] * stride[0], layer.jump[1] * stride[1])
    return replace(layer, kind=kind, kernel=kernel, stride=stride, padding=padding, field=field, jump=jump)


def largest_field(fields: list[Field]) -> Field:
    """The receptive field behind several branches: the largest, for rows and for columns."""
    if None in fields:
        return None
    if "image" in fields:
        return "image"
    sides = [field for field in fields if isinstance(field, tuple)]
    return (max(rows for rows, _ in sides), max(columns for _, columns in sides))


def pair(value: Any) -> Sides:
    """Rows and columns of an operator's argument: a number, or a list of one or two."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return (int(values[0]), int(values[-1]))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in an operator's arguments or results, however nested, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
