"""Whether a network can take images of a size: one is sent through it on the meta device, without arithmetic."""

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
"""Tried in this order for one that is taken; a network that refuses even the last is not helped by larger images."""


class DoesNotFit(Exception):  # noqa: N818 - an answer, not an error of ours
    """Carries the shapes up to the layer that refused, and its reason."""

    def __init__(self, trace: list[str], reason: str) -> None:
        super().__init__(reason)
        self.trace = trace
        self.reason = reason


def checked(name: str, builder: Builder, spec: ImageSpec) -> nn.Module:
    """The network on the meta device, once an image has passed through it.

    Raises:
        CnnbenchError: It cannot take the images, or what it returns is not one logit a class (exit 2).
    """
    try:
        network, shape = send_through(builder, spec)
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


def send_through(builder: Builder, spec: ImageSpec) -> tuple[nn.Module, Any]:
    """The network, and the shape of what one image becomes in it (the type's name where that is no tensor).

    Raises:
        DoesNotFit: A layer refuses what it is given.
    """
    trace = [spec.size]
    entered: list[str] = []

    def before(layer: nn.Module, inputs: Any) -> None:
        entered.append(type(layer).__name__)

    def after(layer: nn.Module, inputs: Any, output: Any) -> None:
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
                    hooks += [layer.register_forward_pre_hook(before), layer.register_forward_hook(after)]
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
            send_through(builder, replace(spec, height=side, width=side))
        except DoesNotFit:
            return False
        return True

    refused = min(spec.height, spec.width)
    taken = next((side for side in USUAL_SIDES if side > refused and fits(side)), None)
    if taken is None:
        return ""
    refused = max([refused, *(side for side in USUAL_SIDES if side < taken)])
    while taken - refused > 1:
        middle = (refused + taken) // 2
        refused, taken = (refused, middle) if fits(middle) else (middle, taken)
    return f"; the smallest square it takes is {taken}x{taken}"
