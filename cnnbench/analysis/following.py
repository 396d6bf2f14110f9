"""Which positions of its inputs each tensor operation reads: a table from operator name to a small function.

Names are those of ATen, without the trailing underscore of in-place operations. Operations on each position alone keep
what was known; what is in neither table is not followed (attention, products over positions, sorting, sampling).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cnnbench.analysis.layer import tensors_in
from cnnbench.analysis.operators import POINTWISE
from cnnbench.analysis.positions import Factor, Positions
from cnnbench.analysis.reach import Axis, NotFollowedError

ALONE = {
    *("_prelu_kernel", "_to_copy", "detach", "alias", "lift_fresh", "contiguous", "dropout", "native_dropout", "rsub"),
    *("_conj", "resolve_conj", "fill", "zero", "softshrink", "rms_norm", "_safe_softmax"),
}
"""On each element alone, without torch's tag of pointwise operations, beside `operators.POINTWISE`. The statistics of
normalisations may be taken over positions; by convention they count as reading each alone."""


@dataclass(frozen=True)
class Step:
    """One tensor operation."""

    function: Any
    """An `OpOverload`."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Tensor]
    known: Callable[[Tensor], Positions | None]
    """Positions of a tensor that depends on the image; None for others."""

    def __getitem__(self, name: str) -> Any:
        """An argument by its name, given or by default."""
        for place, argument in enumerate(self.function._schema.arguments):
            if argument.name == name:
                given = self.args[place] if place < len(self.args) else self.kwargs.get(name, argument.default_value)
                return given
        raise KeyError(name)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the first output."""
        return tuple(self.outputs[0].shape)

    @property
    def first(self) -> tuple[Tensor, Positions]:
        """The first argument and its positions; not followed where it does not depend on the image."""
        tensor = self.args[0]
        positions = self.known(tensor) if isinstance(tensor, Tensor) else None
        if positions is None:
            raise NotFollowedError
        return tensor, positions


Rule = Callable[[Step], "Positions | list[Positions]"]


def follow(step: Step, inputs: Sequence[Positions | None]) -> list[Positions | None]:
    """What the positions of each output read, given that of each input that depends on the image.

    None where it is not followed. An output of something that reads the whole image everywhere does so too.
    """
    operator = step.function.overloadpacket.__name__.rstrip("_")
    rule = RULES.get(operator)
    if rule is None and (operator in ALONE or operator in POINTWISE or _is_pointwise(operator)):
        rule = _alone
    if rule is not None and all(positions is not None for positions in inputs):
        try:
            result = rule(step)
            several = result if isinstance(result, list) else [result] * len(step.outputs)
            return [*several]
        except NotFollowedError:
            pass
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            pass  # an overload with arguments that the rule does not know: of others' networks, none may end in one
    if any(positions is not None and all(positions.wholes) for positions in inputs):
        return [Positions.everywhere(output.shape) for output in step.outputs]
    return [None] * len(step.outputs)


@functools.cache
def _is_pointwise(operator: str) -> bool:
    """By torch's tag, which operations in place do not have."""
    packet = getattr(torch.ops.aten, operator, None)
    overloads = [] if packet is None else [getattr(packet, name) for name in packet.overloads()]
    return any(torch.Tag.pointwise in overload.tags for overload in overloads)


def _alone(step: Step) -> Positions:
    """Each position by itself; several inputs are joined, of the same shape or broadcast."""
    images = [(tensor, step.known(tensor)) for tensor in tensors_in((step.args, step.kwargs))]
    several = [positions.broadcast(step.shape) for _, positions in images if positions is not None]
    result = several[0]
    for other in several[1:]:
        result = result.union(other)
    return result


def _view(step: Step) -> Positions:
    return step.first[1].viewed(step.shape)


def _permute(step: Step) -> Positions:
    x, positions = step.first
    name = step.function.overloadpacket.__name__
    order = list(range(x.ndim))
    if name.startswith("permute"):
        order = [dim % x.ndim for dim in step["dims"]]
    elif x.ndim > 1:
        one, two = (step["dim0"], step["dim1"]) if name.startswith("transpose") else (0, 1)
        order[one], order[two] = order[two], order[one]
    return replace(positions, dims=tuple(positions.dims[dim] for dim in order)).ordered()


def _unsqueeze(step: Step) -> Positions:
    x, positions = step.first
    place = step["dim"] % (x.ndim + 1)
    return replace(positions, dims=(*positions.dims[:place], (Factor(1),), *positions.dims[place:]))


def _squeeze(step: Step) -> Positions:
    x, positions = step.first
    names = [argument.name for argument in step.function._schema.arguments]
    dims = step["dim"] if "dim" in names else range(x.ndim)
    gone = {dim % x.ndim for dim in ([dims] if isinstance(dims, int) else dims) if x.shape[dim] == 1}
    return replace(positions, dims=tuple(d for place, d in enumerate(positions.dims) if place not in gone))


def _expand(step: Step) -> Positions:
    return step.first[1].broadcast(step.shape)


def _cut(positions: Positions, dim: int, start: int, stop: int, step: int = 1) -> Positions:
    """Positions `start` to `stop` of a dimension, each `step`-th."""
    size = len(range(start, stop, step))
    factors = positions.dims[dim]
    total = math.prod(factor.size for factor in factors)
    if (start, stop, step) == (0, total, 1):
        return positions
    if positions.is_plain(dim):
        return positions.with_dim(dim, [Factor(size)])
    if positions.sides(dim):
        return positions.along(
            dim, lambda axis: axis.read(lambda i: [start + i * step], period=1, advance=step), size=size
        )
    (factor, *more) = factors
    axis = positions.axes[factor.axis] if factor.axis >= 0 else None
    if more or axis is None:
        return positions.joined(dim, size)
    taken = axis.taken(factor.place, slice(start, stop, step))
    return positions.with_axis(factor.axis, taken).with_dim(dim, [replace(factor, size=size)])


def _slice(step: Step) -> Positions:
    x, positions = step.first
    dim = step["dim"] % x.ndim
    start, stop, _ = slice(step["start"], step["end"]).indices(x.shape[dim])
    return _cut(positions, dim, start, stop, step["step"])


def _taken(positions: Positions, dim: int, index: int) -> Positions:
    """One position of a dimension, without the dimension."""
    one = _cut(positions, dim, index, index + 1)
    if not one.is_plain(dim) and not one.sides(dim):
        one = one.joined(dim)
    return replace(one, dims=(*one.dims[:dim], *one.dims[dim + 1 :]))


def _select(step: Step) -> Positions:
    x, positions = step.first
    dim = step["dim"] % x.ndim
    return _taken(positions, dim, step["index"] % x.shape[dim])


def _unbind(step: Step) -> list[Positions]:
    x, positions = step.first
    dim = step["dim"] % x.ndim
    return [_taken(positions, dim, index) for index in range(x.shape[dim])]


def _split(step: Step) -> list[Positions]:
    x, positions = step.first
    dim, start, parts = step["dim"] % x.ndim, 0, []
    for output in step.outputs:
        parts.append(_cut(positions, dim, start, start + output.shape[dim]))
        start += output.shape[dim]
    return parts


def _cat(step: Step) -> Positions:
    tensors = step["tensors"]
    dim = step["dim"] % tensors[0].ndim
    several = [positions for tensor in tensors if (positions := step.known(tensor)) is not None]
    if len(tensors) > 1 and any(positions.sides(dim) for positions in several):
        raise NotFollowedError  # one map below or beside the other
    several = [positions.joined(dim, step.shape[dim]) for positions in several]
    result = several[0]
    for other in several[1:]:
        result = result.union(other)
    return result


def _stack(step: Step) -> Positions:
    tensors = step["tensors"]
    place = step["dim"] % (tensors[0].ndim + 1)
    new = (Factor(len(tensors)),)
    several = [
        replace(positions, dims=(*positions.dims[:place], new, *positions.dims[place:]))
        for tensor in tensors
        if (positions := step.known(tensor)) is not None
    ]
    result = several[0]
    for other in several[1:]:
        result = result.union(other)
    return result


def _moved(by: int) -> Callable[[Axis], Axis]:
    """Every position where the one `by` positions before it was."""
    return lambda axis: axis.read(lambda i: [i - by], period=1, advance=1)


def _roll(step: Step) -> Positions:
    x, positions = step.first
    if not step["dims"]:
        raise NotFollowedError
    for dim, by in zip(step["dims"], step["shifts"], strict=True):
        if not positions.is_plain(dim % x.ndim):
            positions = positions.along(dim % x.ndim, _moved(by), size=x.shape[dim])
    return positions


def _pad(step: Step) -> Positions:
    x, positions = step.first
    pads = step["pad"] if "pad" in [a.name for a in step.function._schema.arguments] else step["padding"]
    for back, (before, after) in enumerate(zip(pads[::2], pads[1::2], strict=True), 1):
        dim = x.ndim - back
        if before or after:
            positions = positions.along(dim, _moved(before), size=x.shape[dim] + before + after)
    return positions


def _per_side(step: Step, value: Any, sides: int) -> list[int]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return [*values, *[values[-1]] * sides][:sides]


def _convolution(step: Step) -> Positions:
    x, positions = step.first
    weight, sides = step["weight"], x.ndim - 2
    if step["groups"] > 1 and not positions.is_plain(1):
        raise NotFollowedError
    positions = positions.joined(1, step.shape[1])
    options = zip(*(_per_side(step, step[name], sides) for name in ("stride", "padding", "dilation")), strict=True)
    for side, (stride, padding, dilation) in enumerate(options):
        kernel, dim = weight.shape[2 + side], 2 + side
        change = _windows(kernel, stride, padding, dilation, transposed=step["transposed"])
        if kernel > 1 or stride > 1 or padding:
            positions = positions.along(dim, change, size=step.shape[dim])
    return positions.ordered()


def _windows(kernel: int, stride: int, padding: int, dilation: int, *, transposed: bool = False) -> Any:
    if transposed:
        return lambda axis: axis.spread(kernel, stride=stride, padding=padding, dilation=dilation)
    return lambda axis: axis.window(kernel, stride=stride, padding=padding, dilation=dilation)


def _pool(step: Step) -> Positions:
    x, positions = step.first
    names = [argument.name for argument in step.function._schema.arguments]
    sides = len(step["kernel_size"])
    strides = _per_side(step, step["stride"] or step["kernel_size"], sides)
    paddings = _per_side(step, step["padding"], sides)
    dilations = _per_side(step, step["dilation"] if "dilation" in names else 1, sides)
    kernels = _per_side(step, step["kernel_size"], sides)
    for side in range(sides):
        dim = x.ndim - sides + side
        change = _windows(kernels[side], strides[side], paddings[side], dilations[side])
        positions = positions.along(dim, change, size=step.shape[dim])
    return positions


Neighbours = Callable[[int, int, int], Sequence[int]]
"""Neighbours of position i among m, where n are made of them: from i, m and n."""


def _resize(before: int, after: int, neighbours: Neighbours) -> Callable[[Axis], Axis]:
    return lambda axis: axis.resized(before, after, neighbours=lambda i: neighbours(i, before, after))


def _resized(neighbours: Neighbours) -> Rule:
    """A rule for what makes n positions of m; `neighbours(i, m, n)` are those that position i is made of."""

    def rule(step: Step) -> Positions:
        x, positions = step.first
        names = [argument.name for argument in step.function._schema.arguments]
        corners = "align_corners" in names and step["align_corners"]
        for dim in range(2, x.ndim):
            before, after = x.shape[dim], step.shape[dim]
            if before == after or positions.is_plain(dim):
                positions = positions if before == after else positions.with_dim(dim, [Factor(after)])
                continue
            if corners:
                raise NotFollowedError  # its positions fit at the borders, and so drift between them
            if after == 1:
                positions = positions.joined(dim)
                continue
            positions = positions.along(dim, _resize(before, after, neighbours), size=after)
        return positions

    return rule


def _bins(i: int, before: int, after: int) -> Sequence[int]:
    """Bins of adaptive pooling."""
    return range(i * before // after, -(-(i + 1) * before // after))


def _nearest(i: int, before: int, after: int) -> Sequence[int]:
    return [i * before // after]


def _nearest_exact(i: int, before: int, after: int) -> Sequence[int]:
    return [(2 * i + 1) * before // (2 * after)]


def _interpolated(reach: int) -> Neighbours:
    """`reach` positions on each side of the centre at (i + 1/2) m/n - 1/2; one where it meets a position."""

    def neighbours(i: int, before: int, after: int) -> Sequence[int]:
        place, rest = divmod((2 * i + 1) * before - after, 2 * after)
        return [place] if rest == 0 else range(place - reach + 1, place + reach + 1)

    return neighbours


def _pixel_shuffle(step: Step) -> Positions:
    x, positions = step.first
    *batch, channels, rows, columns = x.shape
    by, n = step["upscale_factor"], len(batch)
    apart = positions.viewed((*batch, channels // by**2, by, by, rows, columns))
    order = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return replace(apart, dims=tuple(apart.dims[dim] for dim in order)).ordered().viewed(step.shape)


def _pixel_unshuffle(step: Step) -> Positions:
    x, positions = step.first
    *batch, channels, rows, columns = x.shape
    by, n = step["downscale_factor"], len(batch)
    apart = positions.viewed((*batch, channels, rows // by, by, columns // by, by))
    order = (*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return replace(apart, dims=tuple(apart.dims[dim] for dim in order)).ordered().viewed(step.shape)


def _channel_shuffle(step: Step) -> Positions:
    return step.first[1].joined(1)


def _unfold(positions: Positions, dim: int, size: int, **options: int) -> tuple[Positions, Factor]:
    """Windows of `size` along a dimension: their positions in its place, and the factor within them."""
    stride, padding, dilation = (options.get(name, 1) for name in ("stride", "padding", "dilation"))
    factor, count = positions.dims[dim][0], options["count"]
    axis = positions.axes[factor.axis] if factor.axis >= 0 else None
    if len(positions.dims[dim]) > 1 or factor.place or axis is None:
        if positions.is_plain(dim):
            return positions.with_dim(dim, [Factor(count)]), Factor(size)
        raise NotFollowedError
    inner = axis.low.ndim
    windows = axis.unfold(
        lambda i: [i * stride - padding + dilation * t for t in range(size)], period=1, advance=stride
    )
    positions = positions.with_axis(factor.axis, windows).with_dim(dim, [Factor(count, factor.axis)])
    return positions, Factor(size, factor.axis, inner)


def _tensor_unfold(step: Step) -> Positions:
    x, positions = step.first
    dim = step["dimension"] % x.ndim
    positions, inner = _unfold(positions, dim, step["size"], stride=step["step"], padding=0, count=step.shape[dim])
    return replace(positions, dims=(*positions.dims, (inner,))).ordered()


def _im2col(step: Step) -> Positions:
    x, positions = step.first
    inner = []
    for side in (0, 1):
        kernel, dilation, padding, stride = (
            step[name][side] for name in ("kernel_size", "dilation", "padding", "stride")
        )
        count = (x.shape[2 + side] + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        positions, factor = _unfold(
            positions, 2 + side, kernel, stride=stride, padding=padding, dilation=dilation, count=count
        )
        inner.append(factor)
    images, channels, rows, columns = positions.dims
    return replace(positions, dims=(images, (*channels, *inner), (*rows, *columns))).ordered()


def _product(step: Step) -> Positions:
    """With weights, a matrix product joins what lies along its inner dimension; of two images it is not followed."""
    a, b = [value for value in step.args if isinstance(value, Tensor)][-2:]
    left, right = step.known(a), step.known(b)
    if left is not None and right is None:
        return left.joined(a.ndim - 1, step.shape[-1])
    if right is not None and left is None:
        return right.joined(b.ndim - 2, step.shape[-2])
    raise NotFollowedError


def _reduction(step: Step) -> Positions:
    x, positions = step.first
    names = [argument.name for argument in step.function._schema.arguments]
    dims = step["dim"] if "dim" in names else None
    dims = range(x.ndim) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    gone = {dim % x.ndim for dim in dims}
    for dim in gone:
        positions = positions.joined(dim, 1)
    if "keepdim" in names and step["keepdim"]:
        return positions
    return replace(positions, dims=tuple(d for place, d in enumerate(positions.dims) if place not in gone))


def _cumulative(step: Step) -> Positions:
    """A sum over all positions so far, of which the last one reads all along the dimension; and softmax over them."""
    x, positions = step.first
    dim = step["dim"] % x.ndim
    factors = positions.dims[dim]
    if positions.is_plain(dim):
        return positions
    if len(factors) > 1 or factors[0].place:
        raise NotFollowedError
    rows, columns = positions.wholes
    return replace(positions, wholes=(rows or factors[0].axis == 0, columns or factors[0].axis == 1))


def _transform(step: Step) -> Positions:
    """A Fourier transform along some dimensions: every value depends on all along them."""
    x, positions = step.first
    for dim in step["dim"]:
        positions = positions.joined(dim % x.ndim, step.shape[dim])
    return positions


def _as_real(step: Step) -> Positions:
    positions = step.first[1]
    return replace(positions, dims=(*positions.dims, (Factor(2),)))


def _copy(step: Step) -> Positions:
    """What was there before is written over."""
    source = step.known(step.args[1])
    if source is None:
        raise NotFollowedError
    return source.broadcast(step.shape)


def _table(rules: dict[Rule, tuple[str, ...]]) -> dict[str, Rule]:
    return {name: rule for rule, names in rules.items() for name in names}


RULES: dict[str, Rule] = _table(
    {
        _view: ("view", "_unsafe_view", "reshape", "_reshape_alias", "_reshape_copy", "flatten", "unflatten"),
        _permute: ("permute", "transpose", "t", "numpy_T"),
        _unsqueeze: ("unsqueeze",),
        _squeeze: ("squeeze",),
        _expand: ("expand",),
        _slice: ("slice",),
        _select: ("select",),
        _unbind: ("unbind",),
        _split: ("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"),
        _cat: ("cat",),
        _stack: ("stack",),
        _roll: ("roll",),
        _pad: ("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"),
        _convolution: ("convolution",),
        _pool: ("max_pool2d_with_indices", "max_pool2d", "avg_pool1d", "avg_pool2d", "max_pool3d_with_indices"),
        _resized(_bins): (
            *("_adaptive_avg_pool2d", "adaptive_avg_pool1d", "adaptive_max_pool2d", "adaptive_max_pool1d"),
        ),
        _resized(_nearest): ("upsample_nearest2d", "upsample_nearest1d"),
        _resized(_nearest_exact): ("_upsample_nearest_exact2d",),
        _resized(_interpolated(1)): ("upsample_bilinear2d", "upsample_linear1d"),
        _resized(_interpolated(2)): ("upsample_bicubic2d",),
        _pixel_shuffle: ("pixel_shuffle",),
        _pixel_unshuffle: ("pixel_unshuffle",),
        _channel_shuffle: ("native_channel_shuffle", "channel_shuffle"),
        _tensor_unfold: ("unfold",),
        _im2col: ("im2col",),
        _product: ("mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "mv", "addmv"),
        _reduction: (
            *("mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "logsumexp", "prod"),
            *("linalg_vector_norm", "norm", "median", "nanmedian", "mode", "kthvalue"),
        ),
        _cumulative: ("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "_softmax", "_log_softmax"),
        _transform: ("_fft_r2c", "_fft_c2c", "_fft_c2r"),
        _as_real: ("view_as_real",),
        _copy: ("copy",),
    }
)
"""Rules: each takes the operation and returns the positions of its outputs, or raises `NotFollowedError`."""
