"""Inception: several kernel sizes side by side, concatenated, each behind a cheap 1x1 convolution.

Szegedy et al.: Going Deeper with Convolutions, 2014 (arXiv:1409.4842). Batch norm as in Ioffe and Szegedy 2015
(arXiv:1502.03167), without which a network this deep does not train under the common recipe.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnnbench.architectures import architecture
from cnnbench.architectures.layers import GlobalAveragePool, conv_bn_relu
from cnnbench.types import ImageSpec


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

    def __init__(
        self, in_channels: int, ones: int, threes: tuple[int, int], fives: tuple[int, int], pooled: int
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                conv_bn_relu(in_channels, ones, kernel_size=1),
                nn.Sequential(conv_bn_relu(in_channels, threes[0], 1), conv_bn_relu(*threes, 3)),
                nn.Sequential(conv_bn_relu(in_channels, fives[0], 1), conv_bn_relu(*fives, 5)),
                nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv_bn_relu(in_channels, pooled, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


@architecture(params=122_826, macs=14_044_896, min_size=4)
def inception_small(spec: ImageSpec) -> nn.Module:
    """Four Inception blocks with 1x1 bottlenecks, small enough for 28 x 28 images."""
    return nn.Sequential(
        conv_bn_relu(spec.channels, 32, kernel_size=3),  # N, 32, H, W
        nn.MaxPool2d(2),  # N, 32, H / 2, W / 2
        InceptionBlock(32, ones=16, threes=(16, 32), fives=(8, 16), pooled=16),  # N, 80, H / 2, W / 2
        InceptionBlock(80, ones=24, threes=(24, 48), fives=(8, 16), pooled=16),  # N, 104, H / 2, W / 2
        nn.MaxPool2d(2),  # N, 104, H / 4, W / 4
        InceptionBlock(104, ones=32, threes=(32, 64), fives=(12, 24), pooled=24),  # N, 144, H / 4, W / 4
        InceptionBlock(144, ones=48, threes=(40, 80), fives=(12, 24), pooled=24),  # N, 176, H / 4, W / 4
        GlobalAveragePool(),  # N, 176
        nn.Linear(176, spec.num_classes),  # N, num_classes
    )
