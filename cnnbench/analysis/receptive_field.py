"""Receptive fields measured: which pixels the gradient of one output unit reaches."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from cnnbench.analysis.layer import Field, Layer, pair, tensors_in
from cnnbench.types import ImageSpec

NARROW = 80
"""Pixels across the axis that is not measured: enough for every network here, and no more than that to compute."""

BUDGET_S = 20
"""Seconds that measuring along one axis may take; layers beyond it (of a network of hundreds) stay unmeasured."""

Extent = int | Literal["image"] | None
"""Pixels along one axis; see `Field`."""


def measure_fields(network: nn.Module, spec: ImageSpec, *, layers: list[Layer]) -> list[Field]:
    """The receptive field of each of `layers`, as `trace` lists them, by gradient support.

    The network runs as a linearised copy of itself with one channel: weights 1 / fan-in, identity activations, average
    for max pooling, batch norm off, in float64, on an input larger than the largest field, so that nothing cancels,
    underflows, or is hidden by a maximum or a border. The unit is in the middle of its map. None where the copy does
    not run (a network made for one size of image, attention), past `BUDGET_S`, and for layers that only move values.
    """
    rows = _extents(network, spec, layers, axis=0)
    columns = _extents(network, spec, layers, axis=1)
    return [_field(r, c) for r, c in zip(rows, columns, strict=True)]


def _field(rows: Extent, columns: Extent) -> Field:
    if isinstance(rows, int) and isinstance(columns, int):
        return (rows, columns)
    return "image" if rows == columns == "image" else None


def _extents(network: nn.Module, spec: ImageSpec, layers: list[Layer], axis: int) -> list[Extent]:
    """Extent of every layer's field along one axis; the input is long along that axis alone."""
    sides = [min(spec.height, NARROW), min(spec.width, NARROW)]
    largest = max((layer.field[axis] for layer in layers if isinstance(layer.field, tuple)), default=1)
    jump = max(layer.jump[axis] for layer in layers)
    # room for the unit in the middle to be off the centre, in whole steps of the coarsest map as the original is
    sides[axis] = (spec.height, spec.width)[axis] + -(-(largest + 4 * jump) // jump) * jump
    pixels = torch.ones(1, 1, *sides, dtype=torch.float64, device="cpu", requires_grad=True)
    copy = Linearised(pixels)
    try:
        with copy:
            network(pixels)
    except Exception:  # whatever another library's network raises for an input that it was not made for
        return [None] * len(layers)
    deadline = time.monotonic() + BUDGET_S
    extents: list[Extent] = []
    for output in _outputs_of(layers, copy.outputs):
        late = time.monotonic() > deadline
        extent = None if output is None or late else _support(output, pixels, axis)
        # a stride may leave the last few pixels of any input unread
        reaches_all = extent is not None and extent > pixels.shape[2 + axis] - jump
        extents.append("image" if reaches_all else extent)
    return extents


def _outputs_of(layers: list[Layer], recorded: list[tuple[str, Tensor]]) -> list[Tensor | None]:
    """The recorded output of each layer: both lists are in the order of execution."""
    remaining = iter(recorded)
    outputs: list[Tensor | None] = []
    for layer in layers:
        kind = KINDS.get(layer.kind)
        outputs.append(None if kind is None else next((output for word, output in remaining if word == kind), None))
    return outputs


def _support(output: Tensor, pixels: Tensor, axis: int) -> int | None:
    """Extent of the pixels that the middle unit of `output` depends on."""
    middle: Any = (0, slice(None), *(side // 2 for side in output.shape[2:]))
    unit = output[middle].sum()
    try:
        (gradient,) = torch.autograd.grad(unit, pixels, retain_graph=True, allow_unused=True)
    except RuntimeError:  # a network that has taken its output off the graph, or written over what the graph needs
        return None
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
    "global average pool": "global",
    "global max pool": "global",
}
"""Kinds of layer that are measured, and the kind under which `Linearised` records their outputs."""

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
"""Functions of each position by itself: the copy leaves them out."""

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
"""Functions that join branches."""


@dataclass
class Linearised(TorchFunctionMode):
    """Runs a network whose weights have no values: only the order, kernels and strides of its layers count."""

    pixels: Tensor
    outputs: list[tuple[str, Tensor]] = field(default_factory=list)
    """Kind, one of `KINDS`' values, and output of each recorded function."""

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        tensors = list(tensors_in(args))
        with_values = [tensor for tensor in tensors if tensor.device.type != "meta"]
        if not with_values:
            return func(*args, **kwargs)
        x = with_values[0]
        if name in IDENTITIES:
            return x
        if name in LINEAR:
            form = LINEAR[name]
            output = form.apply(x, dict(zip(form.parameters, args, strict=False)) | kwargs)
            if output is not None:
                return x if output is x else self._record(form.kind, output)
        if len(with_values) < len(tensors):
            return x  # a learned or fixed offset or scale changes no support
        output = func(*args, **kwargs)
        return self._record("join", output) if name in JOINS and len(with_values) > 1 else output

    def _record(self, kind: str, output: Tensor) -> Tensor:
        self.outputs.append((kind, output))
        return output


Options = Mapping[str, Any]
"""Arguments of a function by name."""


def _convolution(x: Tensor, options: Options) -> Tensor:
    sides = options["weight"].shape[2:]
    kernel = torch.full((1, 1, *sides), 1 / sides.numel(), dtype=x.dtype, device="cpu")
    geometry = {name: options[name] for name in ("stride", "padding", "dilation") if name in options}
    return F.conv2d(x.mean(dim=1, keepdim=True), kernel, **geometry)


def _max_pool(x: Tensor, options: Options) -> Tensor:
    if options.get("dilation", 1) in (1, (1, 1), [1, 1]):
        return _average_pool(x, options)
    kernel_size, stride = options["kernel_size"], options.get("stride")  # an average pool has no dilation
    kernel = torch.ones(1, 1, *pair(kernel_size), dtype=x.dtype, device="cpu")
    return _convolution(x, {**options, "weight": kernel, "stride": kernel_size if stride is None else stride})


def _average_pool(x: Tensor, options: Options) -> Tensor:
    geometry = {name: options[name] for name in ("stride", "padding", "ceil_mode") if name in options}
    return F.avg_pool2d(x, options["kernel_size"], **geometry)


def _linear(x: Tensor, options: Options) -> Tensor:
    return x.mean(dim=-1, keepdim=True)  # every unit of the layer is the mean of its inputs: a single one suffices


def _global(x: Tensor, options: Options) -> Tensor | None:
    return x.mean(dim=(2, 3), keepdim=options.get("keepdim", False)) if x.ndim == 4 else None


def _adaptive(x: Tensor, options: Options) -> Tensor | None:
    if options["output_size"] not in (1, (1, 1), [1, 1]):
        return x  # its windows would follow the size of the input, which is larger here
    return _global(x, {"keepdim": True})


@dataclass(frozen=True)
class LinearForm:
    """How a function of torch runs in the copy."""

    kind: str
    parameters: tuple[str, ...]
    """Names of its positional arguments."""
    apply: Callable[[Tensor, Options], Tensor | None]
    """From the first input that depends on the image; None where the function runs as it is, the input itself where it
    is left out."""


LINEAR = {
    "conv2d": LinearForm(
        "convolution", ("input", "weight", "bias", "stride", "padding", "dilation", "groups"), _convolution
    ),
    "max_pool2d": LinearForm(
        "pool", ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"), _max_pool
    ),
    "avg_pool2d": LinearForm("pool", ("input", "kernel_size", "stride", "padding", "ceil_mode"), _average_pool),
    "linear": LinearForm("linear", ("input", "weight", "bias"), _linear),
    "mean": LinearForm("global", ("input", "dim", "keepdim"), _global),
    "amax": LinearForm("global", ("input", "dim", "keepdim"), _global),
    "adaptive_avg_pool2d": LinearForm("global", ("input", "output_size"), _adaptive),
}
"""Functions that the copy runs in a linear form, and how."""
