"""Parameters, multiply-adds, activations and depth, on the meta device: no memory, no data, no arithmetic."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from cnnbench.analysis.layer import Layer
from cnnbench.analysis.tracer import Traced, trace_architecture, trace_copy
from cnnbench.types import COST_SPEC, Cost, ImageSpec


def cost(arch: str, spec: ImageSpec = COST_SPEC) -> Cost:
    """What `arch` costs for one image of `spec`.

    Raises:
        CnnbenchError: Unknown architecture, or a size it cannot take (exit 2).
    """
    return traced_cost(trace_architecture(arch, spec))


def count(network: nn.Module, spec: ImageSpec) -> Cost:
    """What a network costs for one image of `spec`; its weights and its mode are left as they are.

    Raises:
        CnnbenchError: It cannot take such an image (exit 2).
    """
    return traced_cost(trace_copy(network, spec))


def traced_cost(traced: Traced) -> Cost:
    """The cost of a network that was traced, with the form that it was traced in."""
    return replace(total(traced.network, traced.layers), form=traced.form)


def total(network: nn.Module, layers: list[Layer]) -> Cost:
    """The cost of a network whose layers are known."""
    return Cost(
        params=sum(p.numel() for p in network.parameters()),
        macs=sum(layer.macs for layer in layers),
        activations=sum(layer.activations for layer in layers),
        depth=max((layer.depth for layer in layers), default=0),
    )


def fc_weights(layers: list[Layer]) -> int:
    """Weights that fully connected layers between the same tensors would need instead of all layers."""
    return sum(layer.fully_connected or 0 for layer in layers)
