"""Whether a network can take images of a size: a forward pass on the meta device, which computes shapes alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.types import CnnbenchError, ImageSpec

Builder = Callable[[ImageSpec], nn.Module]

USUAL_SIDES = (2, 4, 8, 16, 28, 32, 64, 96, 128, 160, 192, 224, 256, 299, 384, 512)
"""Sides that are tried, in this order; a network that refuses even the last is not helped by larger images."""


class DoesNotFit(Exception):  # noqa: N818 - an answer, not an error of ours
    """A layer refused its input: the shapes up to that layer, and its reason."""

    def __init__(self, trace: list[str], reason: str) -> None:
        super().__init__(reason)
        self.trace = trace
        self.reason = reason


def build_on_meta(builder: Builder, spec: ImageSpec, *, name: str) -> nn.Module:
    """The network on the meta device, checked with a forward pass.

    Raises:
        CnnbenchError: It cannot take the images, or what it returns is not one logit per class (exit 2).
    """
    try:
        network, shape = probe_forward(builder, spec)
    except DoesNotFit as refusal:
        raise CnnbenchError(
            f"{name} cannot take {spec.size} images: {' -> '.join(refusal.trace)}: "
            f"{refusal.reason}{_accepted(builder, spec)}"
        ) from None
    if shape != (1, spec.num_classes):
        raise CnnbenchError(
            f"{name} is not an image classifier: for one image it returns {shape}, expected (1, {spec.num_classes})"
        )
    return network


def probe_forward(builder: Builder, spec: ImageSpec) -> tuple[nn.Module, Any]:
    """The network, and the shape of its output for one image (the type's name where that is no tensor).

    Raises:
        DoesNotFit: A layer raises for the shape of its input.
    """
    trace = [spec.size]
    entered: list[str] = []

    def note_layer(layer: nn.Module, inputs: Any) -> None:
        entered.append(type(layer).__name__)

    def note_shape(layer: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            sides = f"{output.shape[2]}x{output.shape[3]}"
            if sides != trace[-1].split(" ")[-1].rpartition("x")[0]:  # a step for each change of size, not each layer
                trace.append(f"{type(layer).__name__} {sides}x{output.shape[1]}")

    with torch.device("meta"), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers without inputs
        hooks = []
        try:
            network = builder(spec).eval()
            for layer in network.modules():
                if not list(layer.children()):
                    hooks += [layer.register_forward_pre_hook(note_layer), layer.register_forward_hook(note_shape)]
            output = network(torch.empty(1, spec.channels, spec.height, spec.width))
        except CnnbenchError:
            raise
        except Exception as error:  # whatever a layer, ours or another library's, raises for a shape it cannot take
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise DoesNotFit([*trace, *entered[-1:]], reason[0].rstrip(".")) from None
        finally:
            for hook in hooks:
                hook.remove()
    return network, tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__


def _accepted(builder: Builder, spec: ImageSpec) -> str:
    """The smallest square that the network takes, where larger images help."""

    def fits(side: int) -> bool:
        try:
            probe_forward(builder, replace(spec, height=side, width=side))
        except DoesNotFit:
            return False
        return True

    refused = min(spec.height, spec.width)
    accepted = next((side for side in USUAL_SIDES if side > refused and fits(side)), None)
    if accepted is None:
        return ""
    refused = max([refused, *(side for side in USUAL_SIDES if side < accepted)])
    while accepted - refused > 1:
        middle = (refused + accepted) // 2
        refused, accepted = (refused, middle) if fits(middle) else (middle, accepted)
    return f"; the smallest square it takes is {accepted}x{accepted}"
