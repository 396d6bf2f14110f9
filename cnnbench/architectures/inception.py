"""Inception: several kernel sizes side by side, concatenated, each behind a cheap 1x1 convolution.

Szegedy et al.: Going Deeper with Convolutions, 2014 (arXiv:1409.4842). Batch norm as in Ioffe and Szegedy 2015
(arXiv:1502.03167), without which a network this deep does not train under the common recipe; for the same reason there
is no local response normalisation, and no auxiliary head.

torchvision's googlenet differs: 3x3 convolutions where the paper and this file have 5x5 (pytorch/vision#906), a last
pooling of 2x2 for the paper's 3x3, and two auxiliary heads. It is there as `torchvision/googlenet`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnnbench.architectures import architecture
from cnnbench.architectures.layers import GlobalAveragePool, conv_bn_relu
from cnnbench.types import ImageSpec

Branch = tuple[int | None, int]
"""Channels after the 1x1 bottleneck, None where there is none, and after the larger convolution."""


class InceptionBlock(nn.Module):
    """Four branches on the same input, concatenated by channel: 1x1, 3x3, 5x5 and 3x3 max pooling.

    Args:
        in_channels: Channels of the input.
        ones: Channels of the 1x1 branch.
        threes: Channels before (1x1) and after the 3x3 convolution.
        fives: Channels before (1x1) and after the 5x5 convolution.
        pooled: Channels of the 1x1 convolution after the pooling.

    Shapes: `(N, in_channels, H, W)` -> `(N, ones + threes[1] + fives[1] + pooled, H, W)`.
    """

    def __init__(self, in_channels: int, ones: int, threes: Branch, fives: Branch, pooled: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                conv_bn_relu(in_channels, ones, kernel_size=1),
                bottlenecked(in_channels, threes, kernel_size=3),
                bottlenecked(in_channels, fives, kernel_size=5),
                nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv_bn_relu(in_channels, pooled, kernel_size=1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def bottlenecked(in_channels: int, branch: Branch, *, kernel_size: int) -> nn.Sequential:
    """A convolution behind a 1x1 one that narrows its input, or on the input itself."""
    narrow, channels = branch
    if narrow is None:
        return conv_bn_relu(in_channels, channels, kernel_size=kernel_size)
    return nn.Sequential(
        conv_bn_relu(in_channels, narrow, kernel_size=1), conv_bn_relu(narrow, channels, kernel_size=kernel_size)
    )


def small(spec: ImageSpec, *, bottleneck: bool) -> nn.Sequential:
    """Four blocks on two sizes of map; `bottleneck` is all that differs between the two networks."""

    def after(narrow: int, channels: int) -> Branch:
        return (narrow if bottleneck else None, channels)

    return nn.Sequential(
        conv_bn_relu(spec.channels, 32, kernel_size=3),  # N, 32, H, W
        nn.MaxPool2d(2),  # N, 32, H / 2, W / 2
        InceptionBlock(32, ones=16, threes=after(16, 32), fives=after(8, 16), pooled=16),  # N, 80, H / 2, W / 2
        InceptionBlock(80, ones=24, threes=after(24, 48), fives=after(8, 16), pooled=16),  # N, 104, H / 2, W / 2
        nn.MaxPool2d(2),  # N, 104, H / 4, W / 4
        InceptionBlock(104, ones=32, threes=after(32, 64), fives=after(12, 24), pooled=24),  # N, 144, H / 4, W / 4
        InceptionBlock(144, ones=48, threes=after(40, 80), fives=after(12, 24), pooled=24),  # N, 176, H / 4, W / 4
        GlobalAveragePool(),  # N, 176
        nn.Linear(176, spec.num_classes),  # N, num_classes
    )


@architecture(params=122_826, macs=14_044_896)
def inception_small(spec: ImageSpec) -> nn.Module:
    """Four Inception blocks with 1x1 bottlenecks, small enough for 28 x 28 images."""
    return small(spec, bottleneck=True)


@architecture(params=425_082, macs=45_672_160)
def inception_small_nobottleneck(spec: ImageSpec) -> nn.Module:
    """The same blocks without the 1x1 before 3x3 and 5x5: what the bottleneck saves."""
    return small(spec, bottleneck=False)


@architecture(params=5_871_914, macs=1_447_241_728)
def googlenet(spec: ImageSpec) -> nn.Module:
    """Nine Inception blocks with true 5x5 branches and batch norm; a 3x3 stem for small images."""
    if spec.small:
        stem = conv_bn_relu(spec.channels, 192, kernel_size=3)  # N, 192, H, W
    else:
        stem = nn.Sequential(
            conv_bn_relu(spec.channels, 64, kernel_size=7, stride=2),  # N, 64, 112, 112
            halved(),  # N, 64, 56, 56
            conv_bn_relu(64, 64, kernel_size=1),
            conv_bn_relu(64, 192, kernel_size=3),  # N, 192, 56, 56
            halved(),  # N, 192, 28, 28
        )
    return nn.Sequential(  # table 1 of the paper; sizes for 224 x 224, and for 32 x 32
        stem,
        InceptionBlock(192, 64, (96, 128), (16, 32), 32),  # 3a: N, 256, 28, 28; N, 256, 32, 32
        InceptionBlock(256, 128, (128, 192), (32, 96), 64),  # 3b: N, 480
        halved(),
        InceptionBlock(480, 192, (96, 208), (16, 48), 64),  # 4a: N, 512, 14, 14; N, 512, 16, 16
        InceptionBlock(512, 160, (112, 224), (24, 64), 64),  # 4b: N, 512
        InceptionBlock(512, 128, (128, 256), (24, 64), 64),  # 4c: N, 512
        InceptionBlock(512, 112, (144, 288), (32, 64), 64),  # 4d: N, 528
        InceptionBlock(528, 256, (160, 320), (32, 128), 128),  # 4e: N, 832
        halved(),
        InceptionBlock(832, 256, (160, 320), (32, 128), 128),  # 5a: N, 832, 7, 7; N, 832, 8, 8
        InceptionBlock(832, 384, (192, 384), (48, 128), 128),  # 5b: N, 1024
        GlobalAveragePool(),  # N, 1024
        nn.Dropout(0.2),
        nn.Linear(1024, spec.num_classes),  # N, num_classes
    )


def halved() -> nn.Module:
    """3x3 max pooling that takes one pixel in two, rounded up: sides 112, 56, 28, 14, 7, as in the paper's table."""
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)
