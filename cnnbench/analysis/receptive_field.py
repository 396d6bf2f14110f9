"""Receptive fields measured: which pixels the gradient of one output unit reaches."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from cnnbench.analysis.tracer import Field, Layer, _pair
from cnnbench.types import ImageSpec

NARROW = 80
"""Pixels across the axis that is measured: enough for every network here, and no more than that to compute."""


BUDGET_S = 20
"""Seconds that measuring along one axis may take; layers beyond it (of a network of hundreds) stay unmeasured."""


def measured(network: nn.Module, spec: ImageSpec, layers: list[Layer]) -> list[Field]:
    """The receptive field of each of `layers`, as `anatomy.layers` lists them, by gradient support.

    The network runs as a linearised copy of itself with one channel: weights 1 / fan-in, identity activations, average
    for max pooling, batch norm off, in float64, on an input larger than the largest field, so that nothing cancels,
    underflows, or is hidden by a maximum or a border. The unit is in the middle of its map. None where the copy does
    not run (a network made for one size of image, attention), past `BUDGET_S`, and for layers that only move values.
    """
    rows = _extents(network, spec, layers, axis=0)
    columns = _extents(network, spec, layers, axis=1)
    return [_joined(r, c) for r, c in zip(rows, columns, strict=True)]


def _joined(rows: int | str | None, columns: int | str | None) -> Field:
    if isinstance(rows, int) and isinstance(columns, int):
        return (rows, columns)
    return "image" if rows == columns == "image" else None


def _extents(network: nn.Module, spec: ImageSpec, layers: list[Layer], axis: int) -> list[int | str | None]:
    """Pixels along one axis; the input is long along it alone, which the other's border does not change."""
    sides = [min(spec.height, NARROW), min(spec.width, NARROW)]
    largest = max((layer.field[axis] for layer in layers if isinstance(layer.field, tuple)), default=1)
    jump = max(layer.jump[axis] for layer in layers)
    # room for the unit in the middle to be off the centre, in whole steps of the coarsest map as the original is
    sides[axis] = (spec.height, spec.width)[axis] + -(-(largest + 4 * jump) // jump) * jump
    pixels = torch.ones(1, 1, *sides, dtype=torch.float64, device="cpu", requires_grad=True)
    watch = Linearised(pixels)
    try:
        with watch:
            network(pixels)
    except Exception:  # whatever another library's network raises for an input that it was not made for
        return [None] * len(layers)
    return _matched(watch.outputs, layers, pixels, axis, jump)


def _matched(
    outputs: list[tuple[str, Tensor]], layers: list[Layer], pixels: Tensor, axis: int, jump: int
) -> list[int | str | None]:
    """Hand each layer the output that it is: both lists are in the order of execution."""
    found: list[int | str | None] = []
    deadline = time.monotonic() + BUDGET_S
    remaining = iter(outputs)
    for layer in layers:
        kind = KINDS.get(layer.kind)
        if kind is None:
            found.append(None)
            continue
        output = next((tensor for word, tensor in remaining if word == kind), None)
        late = time.monotonic() > deadline
        extent = None if output is None or late else _support(output, pixels, axis)
        # a stride may leave the last few pixels of any input unread
        whole = extent is not None and extent > pixels.shape[2 + axis] - jump
        found.append("image" if whole else extent)
    return found


def _support(output: Tensor, pixels: Tensor, axis: int) -> int | None:
    """Extent of the pixels that the middle unit of `output` depends on."""
    place: Any = (0, slice(None), *(side // 2 for side in output.shape[2:]))
    unit = output[place].sum()
    (gradient,) = torch.autograd.grad(unit, pixels, retain_graph=True, allow_unused=True)
    if gradient is None:
        return None
    reached = gradient[0, 0].abs().sum(dim=1 - axis).nonzero().flatten()
    if not len(reached):
        return None
    return int(reached[-1] - reached[0]) + 1


KINDS = {
    "convolution": "convolution",
    "max pool": "pool",
    "average pool": "pool",
    "add": "join",
    "concatenate": "join",
    "multiply": "join",
    "linear": "linear",
    "global average pool": "whole",
    "global max pool": "whole",
}
"""Kinds of layer that are measured, and the word for them in what `Linearised` notes."""

IDENTITIES = {
    "batch_norm",
    "layer_norm",
    "group_norm",
    "relu",
    "relu_",
    "tanh",
    "sigmoid",
    "sigmoid_",
    "gelu",
    "silu",
    "silu_",
    "hardtanh",
    "hardtanh_",
    "hardswish",
    "hardswish_",
    "leaky_relu",
    "leaky_relu_",
    "dropout",
    "dropout_",
    "feature_dropout",
    "alpha_dropout",
}
JOINS = {
    "add",
    "add_",
    "__add__",
    "__iadd__",
    "__radd__",
    "cat",
    "concat",
    "mul",
    "mul_",
    "__mul__",
    "__imul__",
    "__rmul__",
}


@dataclass
class Linearised(TorchFunctionMode):
    """Runs a network whose weights have no values: of each layer only its place, kernel and stride count."""

    pixels: Tensor
    outputs: list[tuple[str, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        real = [tensor for tensor in tensors if tensor.device.type != "meta"]
        if not real:
            return func(*args, **kwargs)
        x = real[0]
        if name in IDENTITIES:
            return x
        if name == "conv2d":
            return self._noted("convolution", _convolved(*args, **kwargs))
        if name in ("max_pool2d", "avg_pool2d"):
            return self._noted("pool", _pooled(name, *args, **kwargs))
        if name == "linear":  # every unit of the layer is the mean of its inputs: one stands for all
            return self._noted("linear", x.mean(dim=-1, keepdim=True))
        if name == "adaptive_avg_pool2d" and args[1] not in (1, (1, 1), [1, 1]):
            return x  # its windows would follow the size of the input, which is larger here
        if name in ("amax", "mean", "adaptive_avg_pool2d") and x.ndim == 4:
            return self._noted("whole", _reduced(name, *args, **kwargs))
        if len(real) < len(tensors):
            return x  # a learned or fixed offset or scale changes no support
        out = func(*args, **kwargs)
        return self._noted("join", out) if name in JOINS and len(real) > 1 else out

    def _noted(self, word: str, output: Tensor) -> Tensor:
        self.outputs.append((word, output))
        return output


def _convolved(
    x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    kernel = torch.full((1, 1, *weight.shape[2:]), 1 / weight.shape[2:].numel(), dtype=x.dtype, device="cpu")
    return F.conv2d(x.mean(dim=1, keepdim=True), kernel, None, stride, padding, dilation)


def _pooled(
    name: str, x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, *rest: Any, **kwargs: Any
) -> Tensor:
    if name == "max_pool2d":
        dilation, rest = kwargs.get("dilation", rest[0] if rest else 1), rest[1:]
        if dilation not in (1, (1, 1), [1, 1]):  # an average pool has none, a convolution has
            kernel = torch.ones(1, 1, *_pair(kernel_size), dtype=x.dtype, device="cpu")
            return _convolved(x, kernel, None, kernel_size if stride is None else stride, padding, dilation)
    ceil_mode = kwargs.get("ceil_mode", bool(rest and rest[0]))
    return F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode=ceil_mode)


def _reduced(name: str, x: Tensor, size: Any = None, *rest: Any, **kwargs: Any) -> Tensor:
    keep = name == "adaptive_avg_pool2d" or kwargs.get("keepdim", bool(rest and rest[0]))
    return x.mean(dim=(2, 3), keepdim=keep)
