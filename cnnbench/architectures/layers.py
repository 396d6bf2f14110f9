"""The few layers that several families share. N images, C channels, H x W pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnnbench.types import ImageSpec


class Normalize(nn.Module):
    """(pixels - mean) / std per channel, as part of the network so that no deployment can forget it.

    An empty mean and std leave pixels as they are. Shapes: `(N, C, H, W)` -> `(N, C, H, W)`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        mean = spec.mean or (0.0,) * spec.channels
        std = spec.std or (1.0,) * spec.channels
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))  # (1, C, 1, 1)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))  # (1, C, 1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) / self.std


def conv_bn(in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Convolution with "same" padding and batch norm. No bias: batch norm would subtract it again.

    Shapes: `(N, in_channels, H, W)` -> `(N, out_channels, ceil(H / stride), ceil(W / stride))`, odd kernels.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def conv_bn_relu(in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """`conv_bn` and ReLU."""
    return conv_bn(in_channels, out_channels, kernel_size=kernel_size, stride=stride).append(nn.ReLU())


def he_init(network: nn.Module) -> nn.Module:
    """Weights for layers followed by ReLU with no batch norm to mend their scale; biases zero; the last layer as it is.

    Without it a signal shrinks with every layer under torch's default. He, Zhang, Ren, Sun: Delving Deep into
    Rectifiers, 2015 (arXiv:1502.01852), equation 10.
    """
    weighted = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for module in weighted[:-1]:  # logits have no ReLU behind them, and start small as torch makes them
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        assert module.bias is not None
        nn.init.zeros_(module.bias)
    return network


class GlobalAveragePool(nn.Module):
    """The mean over all positions: `(N, C, H, W)` -> `(N, C)`, for any H and W."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3))


class GlobalMaxPool(nn.Module):
    """The largest over all positions: `(N, C, H, W)` -> `(N, C)`, for any H and W."""

    def forward(self, features: Tensor) -> Tensor:
        return features.amax(dim=(2, 3))
