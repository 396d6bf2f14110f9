"""What is done to networks as a whole, whatever modules and parameters they have."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def copy_network(network: Network) -> Network:
    """A copy of a network that shares no memory with it; parameters that it shares within itself stay shared.

    Tensors that a forward pass has left on a module, such as the weights that the old `nn.utils.weight_norm` computes
    before each pass, belong to that pass's graph and cannot be copied; they are taken out of it first.
    """
    for module in network.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                setattr(module, name, value.detach())
    return copy.deepcopy(network)


def to_channels_last(network: Network) -> Network:
    """Lay the weights of two-dimensional convolutions out channels last in memory; returns the network itself.

    Only theirs: other parameters of four dimensions may be read by views that this layout would break, and those of
    five cannot have it.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.to(memory_format=torch.channels_last)
    return network
