"""Receptive fields measured: which pixels the gradient of one output unit reaches."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.analysis.calls import running
from cnnbench.analysis.layer import Call, Extent, Field, Layer, Sides, field_of
from cnnbench.analysis.linearised import Linearised
from cnnbench.architectures.handling import copy_network
from cnnbench.types import ImageSpec

NARROW = 96
"""Pixels across the axis that is not measured, where three units of the coarsest map are not more: as few as do."""
BUDGET_ELEMENTS = 50_000_000
"""Activations, of convolutions and products, up to which the copy runs with all channels: in float64, and each several
times, they need some gigabytes."""
COARSE = 32
"""Pixels of which large images are multiples, which many networks count on."""
BUDGET_S = 20
"""Seconds that measuring along one axis may take; layers beyond it (of a network of hundreds) stay unmeasured."""
MEASURED = {
    *("convolution", "transposed convolution", "linear", "max pool", "average pool", "add", "concatenate", "multiply"),
    *("global average pool", "global max pool", "adaptive average pool", "adaptive max pool"),
}
"""Kinds of layer that are measured: all that join pixels or branches."""
MAPS = {kind for kind in MEASURED if "convolution" in kind or "pool" in kind}
"""Those whose results are `(N, C, H, W)` by definition."""


def measure_fields(network: nn.Module, spec: ImageSpec, *, layers: list[Layer]) -> list[Field]:
    """The receptive field of each of `layers`, as `trace` lists them, by gradient support.

    The network runs as a linearised copy of itself, see `linearised`, on an input larger than the largest field, so
    that nothing is hidden by a border; a network made for one size of image on that one, where a field that a border
    cuts is unknown. The unit is in the middle of its map; where positions differ (behind upsampling), the largest of
    them. None from where the copy does not run, past `BUDGET_S`, for tokens, and for layers that only move values.
    """
    if any(parameter.device.type != "meta" for parameter in network.parameters()):
        network = copy_network(network).to("meta")
    rows = _extents(network, spec, layers, axis=0)
    columns = _extents(network, spec, layers, axis=1)
    return [None if r is None or c is None else field_of(r, c) for r, c in zip(rows, columns, strict=True)]


def _extents(network: nn.Module, spec: ImageSpec, layers: list[Layer], axis: int) -> list[Extent | None]:
    """Extent of every layer's field along one axis; the input is long along that axis alone."""
    across = (spec.height, spec.width)[1 - axis]
    # at least three units of the coarsest map, of which the middle one does not lie in padding alone
    narrow = max(NARROW, 3 * max((_step(layer, 1 - axis) for layer in layers), default=1))
    sides = [min(across, narrow)] * 2
    largest = max(filter(None, (_pixels(layer, axis) for layer in layers)), default=1)
    jump = max(1, *(_step(layer, axis) for layer in layers)) if layers else 1
    # room for the unit in the middle to be off the centre, in whole steps of the coarsest map as the original is
    usual = (spec.height, spec.width)
    step = jump if usual[axis] % COARSE else math.lcm(jump, COARSE)
    sides[axis] = usual[axis] + -(-(largest + 4 * jump) // step) * step
    pixels, outputs = _run(network, spec, layers, sides)
    fixed = False
    if not outputs or layers[-1].origin is None or layers[-1].origin.call not in outputs:
        again = _run(network, spec, layers, usual)  # it may be made for one size of image
        if fixed := len(again[1]) > len(outputs):
            pixels, outputs = again
    deadline = time.monotonic() + BUDGET_S
    extents: list[Extent | None] = []
    for layer in layers:
        output = outputs.get(layer.origin.call) if layer.origin and layer.kind in MEASURED else None
        if output is None or layer.origin is None or time.monotonic() > deadline:
            extents.append(None)
            continue
        ends = _extent(output, pixels, layer, axis)
        larger = (_pixels(layer, axis) or 0) > usual[axis] - jump
        extents.append(_extent_of(ends, pixels.shape[2 + axis], jump, fixed=fixed, larger=larger))
    return extents


def _extent_of(ends: Sides | None, size: int, jump: int, *, fixed: bool, larger: bool) -> Extent | None:
    """From the first and the last pixel that are reached.

    On a `fixed` image a border may cut it: unknown, as where the field may be `larger` than the image.
    """
    if ends is None:
        return None
    extent = ends[1] - ends[0] + 1
    if extent > size - jump:  # a stride may leave the last few pixels of any input unread
        return None if fixed and larger else "image"
    return None if fixed and (ends[0] == 0 or ends[1] == size - 1) else extent


def _pixels(layer: Layer, axis: int) -> int | None:
    """Field by formula, along one axis; None where it is not known or the whole image."""
    extent = layer.field[axis] if isinstance(layer.field, tuple) else None
    return extent if isinstance(extent, int) else None


def _step(layer: Layer, axis: int) -> int:
    """Pixels until the positions of a layer's output read alike again."""
    return math.ceil(layer.jump[axis] * (layer.origin.periods[axis] if layer.origin else 1))


def _run(
    network: nn.Module, spec: ImageSpec, layers: list[Layer], sides: Sequence[int]
) -> tuple[Tensor, dict[Call, Tensor]]:
    """The pixels that the copy ran on, and the results of its layers as far as it ran: with one channel or, where that
    does not do, with all."""
    wanted = frozenset(layer.origin.call for layer in layers if layer.origin)
    resized: Any = {
        layer.origin.call: (layer.input_shape[1:], layer.output_shape[1:])
        for layer in layers
        if layer.origin and layer.kind.startswith("adaptive")
    }
    best: tuple[Tensor, dict[Call, Tensor]] | None = None
    for channels in (1, spec.channels):
        pixels = torch.ones(1, channels, *sides, dtype=torch.float64, device="cpu", requires_grad=True)
        ran = False
        with running(network) as path, torch.enable_grad():
            usual = tuple(sides) == (spec.height, spec.width)
            copy = Linearised(path, wanted, resized=resized, channels=bool(best), usual=usual)
            try:
                with copy:
                    network(pixels.clone())
                ran = True
            except Exception:  # whatever another library's network raises for an input that it was not made for
                pass
        if best is None or len(copy.outputs) > len(best[1]):
            best = (pixels, copy.outputs)
        if ran or _elements(layers, spec, sides) > BUDGET_ELEMENTS:
            break
    assert best is not None
    return best


def _elements(layers: list[Layer], spec: ImageSpec, sides: Sequence[int]) -> float:
    """What the layers put out for an image of `sides`."""
    usual = sum(max(layer.activations, math.prod(layer.output_shape)) for layer in layers)
    return usual * math.prod(sides) / (spec.height * spec.width)


def _extent(output: Tensor, pixels: Tensor, layer: Layer, axis: int) -> Sides | None:
    """First and last pixel along `axis` that a unit in the middle of `output` depends on; the most of a period."""
    origin = layer.origin
    assert origin is not None
    if not origin.sides:
        if origin.sides == () or layer.kind not in MAPS or output.ndim != 4:
            return None  # the middle of tokens may lie at a border
        places = [2, 3]
    else:
        places = [side for side in origin.sides if side is not None]
    if output.ndim == 3 and not places:  # tokens: the sum over all channels of one
        places = [1]
    if layer.kind == "linear" and places and output.ndim - 1 not in places:  # windows and the positions within them
        places = [*range(1, output.ndim - 1)]
    starts = {place: output.shape[place] // 2 for place in places}
    along = origin.sides[axis] if origin.sides else None
    steps = range(origin.periods[axis]) if along is not None else range(1)
    extents = []
    for step in steps:
        index: Any = [slice(None)] * output.ndim
        for place, start in starts.items():
            index[place] = min(start + (step if place == along else 0), output.shape[place] - 1)
        extents.append(_support(output, tuple(index), pixels, axis))
    return max((ends for ends in extents if ends), key=lambda ends: ends[1] - ends[0], default=None)


def _support(output: Tensor, index: Any, pixels: Tensor, axis: int) -> Sides | None:
    """First and last pixel that a unit of `output` depends on."""
    if not output.requires_grad:
        return None
    try:
        unit = output[index].sum()
        (gradient,) = torch.autograd.grad(unit, pixels, retain_graph=True, allow_unused=True)
    except Exception:  # whatever autograd has against what others' networks did, such as writing over what it needs
        return None
    if gradient is None:
        return None
    reached = gradient[0].abs().sum(dim=(0, 2 - axis)).nonzero().flatten()
    if not len(reached):
        return None
    return int(reached[0]), int(reached[-1])
