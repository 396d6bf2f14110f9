"""Parameters, multiply-adds, activations and depth, on the meta device: no memory, no data, no arithmetic."""

from __future__ import annotations

from torch import nn

from cnnbench.analysis.layer import Layer
from cnnbench.analysis.tracer import trace_architecture, trace_copy
from cnnbench.types import COST_SPEC, Cost, ImageSpec


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
    return total(*trace_copy(network, spec))


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
