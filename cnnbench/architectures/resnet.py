"""Residual networks for small images: out + x instead of out, so that depth does not fade.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2015 (arXiv:1512.03385), section 4.2.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.architectures import architecture
from cnnbench.architectures.layers import GlobalAveragePool, conv_bn_relu
from cnnbench.types import ImageSpec


class ZeroPadShortcut(nn.Module):
    """The paper's option A: take every stride-th pixel and append channels of zeros. No parameters.

    Shapes: `(N, C, H, W)` -> `(N, C + extra_channels, ceil(H / stride), ceil(W / stride))`.
    """

    def __init__(self, extra_channels: int, stride: int) -> None:
        super().__init__()
        self.extra_channels = extra_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.extra_channels))  # pairs from the last axis: W, H, C


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut.

    Shapes: `(N, in_channels, H, W)` -> `(N, out_channels, ceil(H / stride), ceil(W / stride))`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv_bn_relu(in_channels, out_channels, kernel_size=3, stride=stride),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        same = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same else ZeroPadShortcut(out_channels - in_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x))


def cifar_resnet(spec: ImageSpec, blocks_per_stage: int) -> nn.Sequential:
    """The paper's network of 6n + 2 weighted layers, with n blocks in each of three stages."""
    layers: list[nn.Module] = [conv_bn_relu(spec.channels, 16, kernel_size=3)]  # N, 16, H, W
    in_channels = 16
    for out_channels, stride in ((16, 1), (32, 2), (64, 2)):
        for block in range(blocks_per_stage):
            layers.append(BasicBlock(in_channels, out_channels, stride if block == 0 else 1))
            in_channels = out_channels
    # N, 64, H / 4, W / 4
    return nn.Sequential(*layers, GlobalAveragePool(), nn.Linear(64, spec.num_classes))  # N, num_classes


@architecture(params=269_722, macs=40_551_040)
def resnet20(spec: ImageSpec) -> nn.Module:
    """Twenty weighted layers with zero-padded shortcuts, as published for CIFAR-10."""
    return cifar_resnet(spec, blocks_per_stage=3)
