"""From a tensor operation to the layer it is: a table from operator name to a small function.

Names are those of ATen, without the trailing underscore of in-place operations. An operation that is not in the table
is not a separate layer: it changes the output of the layer before (`POINTWISE` has the words for it), or, on the image
itself and with parameters, is reported as a layer under its own name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from cnnbench.analysis.layer import Layer, Sides, pair

POINTWISE = {
    "relu": "ReLU",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "gelu": "GELU",
    "silu": "SiLU",
    "hardtanh": "ReLU6",
    "hardswish": "Hardswish",
    "hardsigmoid": "Hardsigmoid",
    "leaky_relu": "LeakyReLU",
    "_prelu_kernel": "PReLU",
    "elu": "ELU",  # SELU and CELU too
    "mish": "Mish",
    "softplus": "Softplus",
    "_softmax": "Softmax",
    "_log_softmax": "LogSoftmax",
    "native_batch_norm": "BatchNorm",
    "_native_batch_norm_legit_no_training": "BatchNorm",
    "native_layer_norm": "LayerNorm",
    "native_group_norm": "GroupNorm",
    "_fused_rms_norm": "RMSNorm",
}
"""Operations on each position by itself: named beside the layer whose output they change."""


@dataclass(frozen=True)
class Call:
    """One tensor operation on something computed from the image."""

    operator: str
    args: tuple[Any, ...]
    inputs: list[Tensor]
    """Those that depend on the image."""
    outputs: list[Tensor]
    parameters: frozenset[str]
    """Names of the parameters it uses."""
    macs: int
    """MACs of this operation for one image, and of those on constants that it alone reads."""
    activations: int
    reads_image: bool
    """No layer lies between the image and its first input."""


def layer_of(call: Call, draft: Layer) -> Layer | None:
    """The layer that `call` is; None where it only changes the output of the layer before.

    Args:
        call: The operation.
        draft: A layer with the shapes of the call and the receptive field of its inputs.
    """
    if "attention" in call.operator:  # each backend of attention is its own operator
        return replace(draft, kind="attention")
    rule = OPERATORS.get(call.operator)
    layer = rule(call, draft) if rule else None
    if layer is None and call.reads_image and call.parameters:
        return replace(draft, kind=POINTWISE.get(call.operator, call.operator))
    return layer


def _convolution(call: Call, draft: Layer) -> Layer:
    weight, stride, padding, transposed, groups = (call.args[i] for i in (1, 3, 4, 6, 8))
    layer = replace(
        draft,
        kind="transposed convolution" if transposed else "convolution",
        kernel=_window(weight.shape[2:]),
        stride=_window(stride),
        padding=_window(padding),
    )
    return replace(layer, groups=groups, weights=weight.numel())


def _window(sides: Any) -> Sides | None:
    """Rows and columns; None for three dimensions."""
    return pair(sides) if len(sides) < 3 else None


def _max_pool(call: Call, draft: Layer) -> Layer:
    return _pool("max pool", call, draft)


def _average_pool(call: Call, draft: Layer) -> Layer:
    return _pool("average pool", call, draft)


def _pool(kind: str, call: Call, draft: Layer) -> Layer:
    kernel, stride, padding = (*call.args[1:], *[None] * 3)[:3]
    return replace(draft, kind=kind, kernel=pair(kernel), stride=pair(stride or kernel), padding=pair(padding or 0))


def _product(kind: str) -> Callable[[Call, Layer], Layer]:
    """A matrix product: with weights it is a linear layer, between two activations it is attention's."""

    def rule(call: Call, draft: Layer) -> Layer:
        if not call.parameters:
            return replace(draft, kind=kind)
        rows, inputs = call.inputs[0].shape[-2:]
        outputs = draft.output_shape[-1]
        layer = replace(draft, kind="linear", weights=inputs * outputs)
        if rows > 1:  # the same layer at every position, as a 1x1 convolution
            return replace(layer, input_shape=(rows, inputs), output_shape=(rows, outputs))
        return layer

    return rule


def _bilinear(call: Call, draft: Layer) -> Layer:
    return replace(draft, kind="bilinear", weights=call.args[1].numel())


def _reduction(kind: str) -> Callable[[Call, Layer], Layer | None]:
    """A mean or maximum over positions."""

    def rule(call: Call, draft: Layer) -> Layer | None:
        if len(draft.input_shape) != 3 or draft.output_shape[1:] == draft.input_shape[1:]:
            return None  # over no map, or adaptive pooling to the size that the map has
        if draft.output_shape[1:] in ((), (1, 1)):
            return replace(draft, kind=kind)
        return replace(draft, kind=kind.replace("global", "adaptive"))

    return rule


def _join(kind: str) -> Callable[[Call, Layer], Layer | None]:
    """Several branches become one; with a constant or with itself, a tensor only changes its values."""

    def rule(call: Call, draft: Layer) -> Layer | None:
        branches = {id(tensor) for tensor in call.inputs}
        return replace(draft, kind=kind) if len(branches) > 1 else None

    return rule


def _slice(call: Call, draft: Layer) -> Layer | None:
    """Every n-th row or column is a 1x1 window with stride n; a slice without a step moves values only."""
    if len(call.args) <= 4 or call.args[4] <= 1 or len(draft.input_shape) != 3:
        return None
    dimension, step = call.args[1] % 4, call.args[4]
    if dimension < 2:  # images or channels, not positions
        return None
    stride = (step, 1) if dimension == 2 else (1, step)
    return replace(draft, kind=SUBSAMPLING, kernel=(1, 1), stride=stride, padding=(0, 0))


def _transform(kind: str) -> Callable[[Call, Layer], Layer | None]:
    """A Fourier transform."""

    def rule(call: Call, draft: Layer) -> Layer | None:
        return replace(draft, kind=kind)

    return rule


def _pad(call: Call, draft: Layer) -> Layer | None:
    return replace(draft, kind="zero padding") if draft.input_shape != draft.output_shape else None


SUBSAMPLING = "subsampling"
"""Kind of the layer that slices with a step are."""

OPERATORS: dict[str, Callable[[Call, Layer], Layer | None]] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _max_pool,
    "avg_pool2d": _average_pool,
    "addmm": _product("linear"),
    "mm": _product("linear"),
    "bmm": _product("matrix product"),
    "baddbmm": _product("matrix product"),
    "mean": _reduction("global average pool"),
    "_adaptive_avg_pool2d": _reduction("global average pool"),
    "adaptive_max_pool2d": _reduction("global max pool"),
    "amax": _reduction("global max pool"),
    "_trilinear": _bilinear,
    "add": _join("add"),
    "cat": _join("concatenate"),
    "mul": _join("multiply"),
    "maximum": _join("maximum"),
    "stack": _join("stack"),
    "slice": _slice,
    "constant_pad_nd": _pad,
    "_fft_r2c": _transform("FFT"),
    "_fft_c2c": _transform("FFT"),
    "_fft_c2r": _transform("inverse FFT"),
}
"""Rules: each takes the call and a draft with its shapes, and returns the layer, or None where the call is none."""


def is_row_step(layer: Layer) -> bool:
    """Whether a layer is a slice of rows alone."""
    return layer.kind == SUBSAMPLING and layer.stride is not None and layer.stride[1] == 1


def is_column_step(layer: Layer) -> bool:
    """Whether a layer is a slice of columns alone."""
    return layer.kind == SUBSAMPLING and layer.stride is not None and layer.stride[0] == 1


def both_steps(rows: Layer, columns: Layer) -> Layer:
    """`x[:, :, ::n, ::m]` is two slices to torch and one layer to a reader."""
    assert rows.stride is not None
    assert columns.stride is not None
    return replace(columns, input_shape=rows.input_shape, stride=(rows.stride[0], columns.stride[1]))
