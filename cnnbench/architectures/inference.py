"""Networks that are trained with parallel branches and run without: RepVGG, MobileOne, FastViT."""

from __future__ import annotations

import sys

import torch
from torch import nn

from cnnbench.architectures.handling import copy_network

MERGED = "inference form: parallel branches merged"
"""What is said of a network that is counted or timed in it."""
METHODS = ("fuse", "reparameterize", "switch_to_deploy")
"""Of timm's modules, which `timm.utils.reparameterize_model` calls."""


def merge_branches(network: nn.Module) -> nn.Module | None:
    """A copy of a network of timm's, in evaluation mode, with its parallel branches merged; None where it has none.

    Ding et al. 2021, RepVGG, arXiv:2101.03697, section 3.3. Weights are needed to merge them, so that a network on the
    meta device is merged on the CPU, with whatever lies in memory for weights, and returned to the meta device.
    """
    merging = [module for module in network.modules() if any(hasattr(module, name) for name in METHODS)]
    if not merging or any(not type(module).__module__.startswith("timm.") for module in merging):
        return None
    reparameterize = sys.modules["timm.utils"].reparameterize_model  # loaded with any network of timm's
    copy = copy_network(network).eval()
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    with torch.no_grad(), torch.device("cpu"):
        merged: nn.Module = reparameterize(copy.to_empty(device="cpu") if device.type == "meta" else copy, inplace=True)
    return merged.to(device)
