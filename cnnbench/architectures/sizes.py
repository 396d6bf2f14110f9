"""Whether a network can take images of a size: a forward pass on the meta device, which computes shapes alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.types import CnnbenchError, Exit, ImageSpec, Terminated, first_line

Builder = Callable[[ImageSpec], nn.Module]

USUAL_SIDES = (2, 4, 8, 16, 28, 32, 64, 96, 128, 160, 192, 224, 256, 299, 384, 512)
"""Sides that are tried, in this order; a network that refuses even the last is not helped by larger images."""

LARGEST_ON_CPU = 224
"""The largest side that is tried where a network may have to run on the CPU."""


class DoesNotFit(Exception):  # noqa: N818 - an answer, not an error of ours
    """A network refused its input, or could not be built: the shapes up to the layer that refused, and its reason."""

    def __init__(self, trace: list[str], reason: str) -> None:
        super().__init__(reason)
        self.trace = trace
        self.reason = reason


def build_on_meta(builder: Builder, spec: ImageSpec, *, name: str, on_cpu: bool = False) -> nn.Module:
    """The network on the meta device, checked with a forward pass.

    Args:
        builder: What builds it.
        spec: The images.
        name: What errors call it.
        on_cpu: See `probe_forward`.

    Raises:
        CnnbenchError: It cannot be built or cannot take the images, or what it returns is not one logit per class
            (exit 2).
    """
    try:
        network, shape = probe_forward(builder, spec, on_cpu=on_cpu)
    except DoesNotFit as refusal:
        steps = " -> ".join([spec.size, *refusal.trace])
        accepted = _accepted(builder, spec, on_cpu)
        fails = f"cannot take {spec.size} images" if accepted else f"fails on {spec.size} images"
        raise CnnbenchError(f"{name} {fails}: {steps}: {refusal.reason}{accepted}") from None
    if shape != (1, spec.num_classes):
        raise CnnbenchError(
            f"{name} is not an image classifier: for one image it returns {shape}, expected (1, {spec.num_classes})"
        )
    return network


def probe_forward(builder: Builder, spec: ImageSpec, *, on_cpu: bool = False) -> tuple[nn.Module, Any]:
    """The network on the meta device, and the shape of its output for one image (a type's name if it is no tensor).

    Args:
        builder: What builds the network.
        spec: The images.
        on_cpu: Whether a network that the meta device cannot build or run is built and run on the CPU: it may read
            the values of tensors.

    Raises:
        DoesNotFit: The builder or a layer raises.
    """
    try:
        return _probe(builder, spec, "meta")
    except DoesNotFit:
        if not on_cpu:
            raise
    with torch.random.fork_rng(devices=[]):
        network, shape = _probe(builder, spec, "cpu")
    return network.to("meta"), shape


def _probe(builder: Builder, spec: ImageSpec, device: str) -> tuple[nn.Module, Any]:
    trace: list[str] = []
    entered: list[str] = []

    def note_layer(layer: nn.Module, inputs: Any) -> None:
        entered.append(type(layer).__name__)

    def note_shape(layer: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            sides = f"{output.shape[2]}x{output.shape[3]}"
            last = trace[-1] if trace else spec.size
            if sides != last.split(" ")[-1].rpartition("x")[0]:  # a step for each change of size, not each layer
                trace.append(f"{type(layer).__name__} {sides}x{output.shape[1]}")

    with torch.device(device), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers without inputs
        hooks = []
        try:
            network = builder(spec)
            if not isinstance(network, nn.Module):
                raise CnnbenchError(f"the builder returned a {type(network).__name__}: expected a torch.nn.Module")
            for layer in network.eval().modules():
                if not list(layer.children()):
                    hooks += [layer.register_forward_pre_hook(note_layer), layer.register_forward_hook(note_shape)]
            output = network(torch.empty(1, spec.channels, spec.height, spec.width).fill_(0.5))
        except (CnnbenchError, Terminated):
            raise
        except ImportError as error:
            raise CnnbenchError(f"the network cannot be built: {first_line(error)}", Exit.ENVIRONMENT) from None
        except SystemExit as error:  # it would end the verb, and might look like success
            raise DoesNotFit([*trace, *entered[-1:]], _exit(error)) from None
        except Exception as error:  # whatever a layer, ours or another library's, raises for a shape it cannot take
            raise DoesNotFit([*trace, *entered[-1:]], first_line(error).rstrip(".")) from None
        finally:
            for hook in hooks:
                hook.remove()
    return network, tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__


def _exit(error: SystemExit) -> str:
    return f"it ends the process (SystemExit: {first_line(error)})"


def build_with_values(builder: Builder, spec: ImageSpec, *, name: str) -> nn.Module:
    """The network on the default device, once `build_on_meta` has found that it takes the images.

    Raises:
        CnnbenchError: The builder raises, or returns what it has built in an earlier call (exit 2).
    """
    try:
        network = builder(spec)
    except (CnnbenchError, Terminated):
        raise
    except SystemExit as error:
        raise CnnbenchError(f"{name} cannot be built: {_exit(error)}") from None
    except Exception as error:
        raise CnnbenchError(f"{name} cannot be built: {type(error).__name__}: {first_line(error)}") from None
    if any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers())):  # as `build_on_meta` left it
        raise CnnbenchError(
            f"the builder of {name} returns modules of an earlier call: it must build a new network at every call"
        )
    return network


def _accepted(builder: Builder, spec: ImageSpec, on_cpu: bool) -> str:
    """The smallest square that the network takes, where larger images help."""

    def fits(side: int) -> bool:
        try:
            probe_forward(builder, replace(spec, height=side, width=side), on_cpu=on_cpu)
        except DoesNotFit:
            return False
        return True

    sides = [side for side in USUAL_SIDES if side <= LARGEST_ON_CPU or not on_cpu]
    refused = min(spec.height, spec.width)
    accepted = next((side for side in sides if side > refused and fits(side)), None)
    if accepted is None:
        return ""
    refused = max([refused, *(side for side in sides if side < accepted)])
    while accepted - refused > 1:
        middle = (refused + accepted) // 2
        refused, accepted = (refused, middle) if fits(middle) else (middle, accepted)
    return f"; the smallest square it takes is {accepted}x{accepted}"
