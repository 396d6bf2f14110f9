"""Parameters and multiply-adds, on the meta device: no memory, no data, no arithmetic."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnnbench.architectures import build
from cnnbench.types import COST_SPEC, Cost, ImageSpec


def cost(arch: str, spec: ImageSpec = COST_SPEC) -> Cost:
    """What `arch` costs for one image of `spec`.

    Raises:
        CnnbenchError: Unknown architecture, or a size it cannot take (exit 2).
    """
    with torch.device("meta"):
        return count(build(arch, spec), spec)


def count(network: nn.Module, spec: ImageSpec) -> Cost:
    """Count a network whose parameters live on the meta device, by torch's own operator formulas.

    torch counts a multiply-add as two operations and only convolutions and matrix products; halved, its
    figures are the MACs that papers print.
    """
    network.eval()  # batch norm in training mode refuses a single value per channel
    pixels = torch.empty(1, spec.channels, spec.height, spec.width, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(pixels)
    return Cost(params=sum(p.numel() for p in network.parameters()), macs=counter.get_total_flops() // 2)
