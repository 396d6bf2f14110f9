"""Parameters, multiply-adds, activations and depth, on the meta device: no memory, no data, no arithmetic."""

from __future__ import annotations

from torch import nn

from cnnbench.analysis.layer import Layer
from cnnbench.analysis.tracer import trace, trace_architecture
from cnnbench.architectures.handling import copy_network
from cnnbench.types import COST_SPEC, CnnbenchError, Cost, ImageSpec, first_line


def cost(arch: str, spec: ImageSpec = COST_SPEC) -> Cost:
    """What `arch` costs for one image of `spec`.

    Raises:
        CnnbenchError: Unknown architecture, or a size it cannot take (exit 2).
    """
    return total(*trace_architecture(arch, spec))


def count(network: nn.Module, spec: ImageSpec) -> Cost:
    """What a network costs for one image of `spec`; its weights and its mode are left as they are.

    Raises:
        CnnbenchError: It cannot take such an image (exit 2).
    """
    copy = copy_network(network)
    try:
        copy = copy.to("meta")
        return total(copy, trace(copy, spec))
    except (RuntimeError, NotImplementedError):  # it may read the values of tensors
        pass
    try:
        return total(network, trace(copy_network(network).cpu(), spec))
    except Exception as error:  # whatever a module raises for a shape that it cannot take
        raise CnnbenchError(f"{type(network).__name__} fails on an image of {spec.size}: {first_line(error)}") from None


def total(network: nn.Module, layers: list[Layer]) -> Cost:
    """The cost of a network whose layers are known."""
    return Cost(
        params=sum(p.numel() for p in network.parameters()),
        macs=sum(layer.macs for layer in layers),
        activations=sum(layer.activations for layer in layers),
        depth=max((layer.depth for layer in layers), default=0),
    )


def fc_weights(layers: list[Layer]) -> int:
    """Weights that fully connected layers between the same tensors would need in the place of all layers."""
    return sum(layer.fully_connected or 0 for layer in layers)
