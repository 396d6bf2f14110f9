"""A network run as a linearised copy of itself, of which only the order, kernels and strides of the layers count.

Weights are 1 / fan-in, activations the identity, maxima means and products sums, in float64, so that nothing cancels,
saturates, underflows or is hidden by a maximum: the gradient of an output is not zero where it depends on a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench.analysis.calls import Calls
from cnnbench.analysis.layer import Call, Sides, tensors_in

IDENTITIES = {
    *("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm"),
    *("relu", "relu6", "tanh", "sigmoid", "gelu", "silu", "hardtanh", "hardswish", "hardsigmoid", "leaky_relu", "mish"),
    *("elu", "selu", "celu", "softplus", "softsign", "logsigmoid", "prelu", "rrelu", "threshold", "hardshrink"),
    *("softshrink", "tanhshrink", "clamp", "clip", "clamp_min", "clamp_max", "abs", "exp"),
    *("log", "sqrt", "rsqrt", "square", "pow", "__pow__", "neg", "erf", "sin", "cos", "nan_to_num", "logit"),
    *("dropout", "feature_dropout", "alpha_dropout", "dropout2d", "hardtanh", "round", "floor", "sign"),
}
"""Functions of each position by itself, and normalisations: the copy leaves them out, in place or not."""
JOINS = {
    *("mul", "multiply", "__mul__", "__rmul__", "__imul__", "sub", "subtract", "__sub__", "__rsub__", "__isub__"),
    *("div", "divide", "true_divide", "__truediv__", "__rtruediv__", "__itruediv__", "__div__", "__rdiv__"),
    *("add", "__add__", "__radd__", "__iadd__", "maximum", "minimum", "fmax", "fmin", "lerp", "addcmul", "where"),
}
"""Functions of several tensors, position by position: their sum in the copy."""


def _live(tensor: Tensor) -> bool:
    """Whether a tensor depends on the image."""
    return tensor.device.type != "meta" and tensor.requires_grad


class NotLinearisedError(Exception):
    """A function that the copy has no form of."""


class Linearised(Calls):
    """Runs a network whose parameters are on the meta device; what depends on the image has values and a gradient.

    Args:
        path: Names of the running modules.
        wanted: Calls whose results are kept.
        resized: Input and output sides of the adaptive poolings, in the network for images of the usual size.
        channels: Whether tensors have all their channels; else one, which is enough for most networks.
        usual: Whether the image has its usual size; else a size that the network resizes to may be no part of it.
    """

    def __init__(
        self,
        path: list[str],
        wanted: frozenset[Call],
        *,
        resized: Mapping[Call, tuple[Sides, Sides]],
        channels: bool,
        usual: bool,
    ) -> None:
        super().__init__(path)
        self.wanted, self.resized, self.channels, self.usual = wanted, resized, channels, usual
        self.outputs: dict[Call, Tensor] = {}

    def called(self, call: Call, func: Any, *, args: Any, kwargs: dict[str, Any]) -> Any:
        result = self._run(call, func, args, kwargs)
        if call in self.wanted and isinstance(result, Tensor):
            self.outputs[call] = result.clone()  # the network may write over its own
        return result

    def _run(self, call: Call, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        tensors = list(tensors_in((args, kwargs)))
        images = [tensor for tensor in tensors if _live(tensor)]
        name = call[1] if call[1].startswith("__") else call[1].rstrip("_")
        if not images:
            return func(*args, **kwargs)
        in_place = call[1] != name or name in ("__iadd__", "__imul__", "__isub__", "__itruediv__")
        if name in IDENTITIES:
            return images[0] if in_place or kwargs.get("inplace") else images[0].clone()
        if name in FORMS:
            result = FORMS[name](self, call, args, kwargs)
            if result is not None:
                return result
        if name in JOINS:
            return self._joined(images, [tensor for tensor in tensors if not _live(tensor)], in_place=in_place)
        if any(tensor.device.type == "meta" for tensor in tensors):
            raise NotLinearisedError(name)
        return func(*args, **kwargs)

    def _joined(self, images: list[Tensor], constants: list[Tensor], *, in_place: bool) -> Tensor:
        """The sum of what depends on the image; what does not changes no support, but may repeat it."""
        first, *others = images
        if in_place:
            for other in others:
                first.add_(other)
            return first
        result = first.clone() if not others else first + others[0]
        for other in others[1:]:
            result = result + other
        if not self.channels:
            return result
        shape = np.broadcast_shapes(result.shape, *(constant.shape for constant in constants))
        return result if result.shape == shape else result.expand(shape).clone()

    def with_channels(self, x: Tensor, count: int, *, dim: int) -> Tensor:
        """One channel as the `count` that a layer puts out, where channels are kept."""
        if not self.channels:
            return x
        shape = [-1] * x.ndim
        shape[dim] = count
        return x.expand(shape).clone()


Form = Callable[[Linearised, Call, Any, "dict[str, Any]"], Any]
"""How the copy runs a function; None where it runs as it is."""


@dataclass(frozen=True)
class Options:
    """Arguments of a call by name."""

    names: tuple[str, ...]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, name: str, default: Any = None) -> Any:
        place = self.names.index(name)
        return self.args[place] if place < len(self.args) else self.kwargs.get(name, default)


CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
MAX_POOL = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
AVERAGE: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
CONVOLVE = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
TRANSPOSE = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}


def _kernel(sides: Any) -> Tensor:
    return torch.full((1, 1, *sides), 1 / math.prod(sides), dtype=torch.float64, device="cpu")


def _convolution(copy: Linearised, call: Call, args: Any, kwargs: Any, *, transposed: bool = False) -> Tensor:
    options = Options(TRANSPOSED if transposed else CONVOLUTION, args, kwargs)
    x, weight = options("input"), options("weight")
    names = ("stride", "padding", "dilation", *(("output_padding",) if transposed else ()))
    geometry = {name: options(name, 0 if "padding" in name else 1) for name in names}
    function: Any = (TRANSPOSE if transposed else CONVOLVE)[x.ndim]
    output = function(x.mean(dim=1, keepdim=True), _kernel(weight.shape[2:]), **geometry)
    return copy.with_channels(output, weight.shape[1] * options("groups", 1) if transposed else weight.shape[0], dim=1)


def _max_pool(copy: Linearised, call: Call, args: Any, kwargs: Any, *, sides: int) -> Any:
    options = Options(MAX_POOL, args, kwargs)
    x, kernel = options("input"), _sides(options("kernel_size"), sides)
    stride = _sides(options("stride") or kernel, sides)
    if options("ceil_mode", False):
        extra = [-(x.shape[-sides + s] - kernel[s]) % stride[s] for s in range(sides)]
        x = F.pad(x, [by for s in reversed(range(sides)) for by in (0, extra[s])])
    flat = x.flatten(0, 1).unsqueeze(1)
    padding, dilation = options("padding", 0), options("dilation", 1)
    function: Any = CONVOLVE[sides + 2]
    output = function(flat, _kernel(kernel), stride=stride, padding=padding, dilation=dilation)
    values = output.view(*x.shape[:2], *output.shape[2:])
    return Extremum(values, values) if options("return_indices", False) else values


def _average_pool(copy: Linearised, call: Call, args: Any, kwargs: Any, *, function: Any) -> Tensor:
    """As it is, on a copy of its input: it needs that for the gradient, and the network may write over it."""
    output: Tensor = function(*(arg.clone() if isinstance(arg, Tensor) else arg for arg in args), **kwargs)
    return output


def _sides(value: Any, count: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,) * count


class Extremum(NamedTuple):
    """What `x.max(dim)` returns."""

    values: Tensor
    indices: Tensor


def _linear(copy: Linearised, call: Call, args: Any, kwargs: Any) -> Tensor:
    options = Options(("input", "weight", "bias"), args, kwargs)
    return copy.with_channels(options("input").mean(dim=-1, keepdim=True), options("weight").shape[0], dim=-1)


def _product(copy: Linearised, call: Call, args: Any, kwargs: Any) -> Tensor | None:
    """A matrix product with weights; of two images it runs as it is."""
    a, b = args[-2:]
    if _live(a) and _live(b):
        return None
    if _live(a):
        return copy.with_channels(a.mean(dim=-1, keepdim=True), b.shape[-1], dim=-1)
    joined: Tensor = b.mean(dim=-2, keepdim=True).expand(*b.shape[:-2], a.shape[-2], b.shape[-1]).clone()
    return joined


def _extremum(copy: Linearised, call: Call, args: Any, kwargs: Any) -> Any:
    """`x.max()`, `x.max(dim)` and `torch.max(a, b)`."""
    options = Options(("input", "dim", "keepdim"), args, kwargs)
    x, dim, keep = options("input"), options("dim"), options("keepdim", False)
    if isinstance(dim, Tensor):
        return x + dim if _live(dim) and _live(x) else (x if _live(x) else dim)
    if call[1] in ("amax", "amin"):
        return x.mean(dim=dim if dim is not None and dim != () else tuple(range(x.ndim)), keepdim=keep)
    if dim is None:
        return x.mean()
    values = x.mean(dim=dim, keepdim=keep)
    return Extremum(values, values.detach())


def _cumulative(copy: Linearised, call: Call, args: Any, kwargs: Any) -> Any:
    """Of a sum over all positions so far every position as the last one, which reads them all; softmax alike."""
    options = Options(("input", "dim"), args, {name: kwargs[name] for name in ("input", "dim") if name in kwargs})
    x = options("input")
    values = x + x.mean(dim=options("dim", -1), keepdim=True)
    return Extremum(values, values.detach()) if call[1] in ("cummax", "cummin") else values


def _unknown(copy: Linearised, call: Call, args: Any, kwargs: Any) -> Any:
    """Positions that lie elsewhere the nearer to the border they are: one in the middle says nothing of the others."""
    raise NotLinearisedError(call[1])


def _normalised(copy: Linearised, call: Call, args: Any, kwargs: Any) -> Tensor:
    """`F.normalize(x, p, dim)`: by default over channels."""
    x: Tensor = args[0] if args else kwargs["input"]
    return x + x.mean(dim=kwargs.get("dim", args[2] if len(args) > 2 else 1), keepdim=True)


def _spread(copy: Linearised, call: Call, args: Any, kwargs: Any) -> Any:
    """Variance, standard deviation and norm as the mean."""
    options = Options(("input", "dim"), args, {name: kwargs[name] for name in ("input", "dim") if name in kwargs})
    dim = options("dim")
    return options("input").mean(dim=dim, keepdim=kwargs.get("keepdim", False)) if dim is not None else None


def _adaptive(copy: Linearised, call: Call, args: Any, kwargs: Any) -> Tensor:
    """Windows as they lie in the network for images of the usual size; the copy's images are larger."""
    x: Tensor = args[0]
    size = kwargs.get("output_size", args[1] if len(args) > 1 else 1)
    for side, count in enumerate(_sides(size, x.ndim - 2)):
        dim = 2 + side
        if count == 1:
            x = x.mean(dim=dim, keepdim=True)
        elif count is not None and call in copy.resized:
            before, after = (sides[side] for sides in copy.resized[call])
            x = _pooled(x, dim, before, after)
    return x


def _pooled(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    """Means over windows of `dim`, of which there would be `after` over `before` positions."""
    windows: list[Tensor] = []
    while (end := -(-(len(windows) + 1) * before // after)) <= x.shape[dim]:
        start = len(windows) * before // after
        windows.append(x.narrow(dim, start, end - start).mean(dim=dim, keepdim=True))
    return torch.cat(windows, dim=dim)


def _interpolate(copy: Linearised, call: Call, args: Any, kwargs: Any) -> Tensor:
    """To a size that follows the input's: to a fixed one, larger images are resized otherwise than the usual ones."""
    x = args[0]
    output: Tensor = F.interpolate(*args, **kwargs)
    for before, after in zip(x.shape[2:], output.shape[2:], strict=True):
        if not copy.usual and before % after and after % before:
            raise NotLinearisedError(f"interpolate from {before} to {after}")
    return output


def _pixel_shuffle(copy: Linearised, call: Call, args: Any, kwargs: Any) -> Tensor | None:
    by = args[1] if len(args) > 1 else kwargs["upscale_factor"]
    return None if copy.channels else args[0].repeat_interleave(by, dim=-2).repeat_interleave(by, dim=-1)


def _table() -> dict[str, Form]:
    forms: dict[str, Form] = {"linear": _linear, "interpolate": _interpolate, "pixel_shuffle": _pixel_shuffle}
    for sides in (1, 2, 3):
        forms[f"conv{sides}d"] = _convolution
        forms[f"conv_transpose{sides}d"] = partial(_convolution, transposed=True)
        forms[f"max_pool{sides}d"] = forms[f"max_pool{sides}d_with_indices"] = partial(_max_pool, sides=sides)
        forms[f"adaptive_avg_pool{sides}d"] = forms[f"adaptive_max_pool{sides}d"] = _adaptive
    forms |= {f"avg_pool{sides}d": partial(_average_pool, function=pool) for sides, pool in AVERAGE.items()}
    forms |= dict.fromkeys(("matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm"), _product)
    forms |= dict.fromkeys(("max", "min", "amax", "amin", "median", "nanmedian", "mode"), _extremum)
    forms |= dict.fromkeys(
        ("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "softmax", "log_softmax"), _cumulative
    )
    forms["normalize"] = _normalised
    forms |= dict.fromkeys(("flip", "fliplr", "flipud", "rot90", "sort", "argsort", "topk", "msort"), _unknown)
    return forms | dict.fromkeys(("var", "std", "norm"), _spread)


FORMS = _table()
"""Functions that the copy runs otherwise than torch does."""
