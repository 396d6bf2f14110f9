"""NetResDeep: the smallest network in which a stack of residual blocks can be seen at work.

Stevens, Antiga, Viehmann: Deep Learning with PyTorch, 2020, chapter 8. There the blocks share one set of weights by a
slip of Python's list multiplication; here each has its own.
"""

from __future__ import annotations

from torch import nn

from cnnbench.architectures import architecture
from cnnbench.architectures.layers import conv_bn_relu
from cnnbench.architectures.resnet import ResidualBlock
from cnnbench.types import ImageSpec

CHANNELS, BLOCKS = 32, 10


def block() -> nn.Module:
    """x + relu(bn(conv(x))). The sum's own ReLU changes nothing: both terms are zero or more from the first ReLU on."""
    residual = ResidualBlock(conv_bn_relu(CHANNELS, CHANNELS, kernel_size=3), nn.Identity())
    for module in residual.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.1)  # or ten sums of terms above zero outgrow the layers behind
    return residual


@architecture(params=159_594, macs=24_543_552)
def netresdeep(spec: ImageSpec) -> nn.Module:
    """One convolution, ten one-convolution residual blocks, two linear layers."""
    return nn.Sequential(
        nn.Conv2d(spec.channels, CHANNELS, kernel_size=3, padding=1),  # N, 32, H, W
        nn.ReLU(),
        nn.MaxPool2d(2),  # N, 32, H / 2, W / 2
        *(block() for _ in range(BLOCKS)),
        nn.MaxPool2d(2),  # N, 32, H / 4, W / 4
        nn.Flatten(),
        nn.Linear(CHANNELS * (spec.height // 4) * (spec.width // 4), 32),
        nn.ReLU(),
        nn.Linear(32, spec.num_classes),  # N, num_classes
    )
