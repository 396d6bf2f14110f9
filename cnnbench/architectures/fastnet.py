"""A network made to be trained quickly: few layers, wide ones, pooled early.

In the spirit of the fast CIFAR-10 records: Page: How to Train Your ResNet, 2018, whose nine-layer residual network
this narrows and pools before its first wide convolution, as a CPU would have it; Jordan: 94% on CIFAR-10 in 3.29
Seconds on a Single GPU, 2024 (arXiv:2404.00498).
"""

from __future__ import annotations

from torch import Tensor, nn

from cnnbench.architectures import architecture
from cnnbench.architectures.layers import GlobalMaxPool, conv_bn_relu
from cnnbench.architectures.resnet import ResidualBlock
from cnnbench.types import ImageSpec


def stage(in_channels: int, channels: int) -> nn.Sequential:
    """A convolution, pooling, and two convolutions beside a shortcut. `(N, C_in, H, W)` -> `(N, C, H / 2, W / 2)`."""
    twice = nn.Sequential(*(conv_bn_relu(channels, channels, kernel_size=3) for _ in range(2)))
    return nn.Sequential(
        conv_bn_relu(in_channels, channels, kernel_size=3), nn.MaxPool2d(2), ResidualBlock(twice, nn.Identity())
    )


class Scaled(nn.Module):
    """Times a constant: small logits at the start bear the recipe's learning rate. Page 2018 has 0.125, too."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


@architecture(params=1_849_930, macs=77_269_504)
def fastnet(spec: ImageSpec) -> nn.Module:
    """Eight layers, short and wide with two residual blocks, for few epochs."""
    return nn.Sequential(
        conv_bn_relu(spec.channels, 64, kernel_size=3),  # N, 64, H, W
        nn.MaxPool2d(2),  # N, 64, H / 2, W / 2
        stage(64, 128),  # N, 128, H / 4, W / 4
        stage(128, 256),  # N, 256, H / 8, W / 8
        GlobalMaxPool(),  # N, 256
        Scaled(0.125),
        nn.Linear(256, spec.num_classes),  # N, num_classes
    )
