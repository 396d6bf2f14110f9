"""Residual networks: out + x instead of out, so that depth does not fade; and plain ones, without the shortcut.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2015 (arXiv:1512.03385): section 4.2 for the
networks of small images (20 to 110 layers), table 1 for those of ImageNet (18 to 152).
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.architectures import architecture
from cnnbench.architectures.layers import GlobalAveragePool, conv_bn, conv_bn_relu
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


class ResidualBlock(nn.Module):
    """relu(residual(x) + shortcut(x)): the layers learn what to add to x.

    Shapes: `(N, C_in, H, W)` -> `(N, C_out, ceil(H / stride), ceil(W / stride))`, as both paths make it.
    """

    def __init__(self, residual: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.residual = residual
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x))


def two_convolutions(in_channels: int, channels: int, *, stride: int) -> nn.Sequential:
    """3x3 twice, the last without its ReLU: what a basic block adds, and a plain network stacks."""
    return nn.Sequential(
        conv_bn_relu(in_channels, channels, kernel_size=3, stride=stride),
        conv_bn(channels, channels, kernel_size=3),
    )


def cifar_block(in_channels: int, channels: int, *, stride: int) -> nn.Module:
    """A basic block whose shortcut has no parameters."""
    same = in_channels == channels and stride == 1
    shortcut = nn.Identity() if same else ZeroPadShortcut(channels - in_channels, stride)
    return ResidualBlock(two_convolutions(in_channels, channels, stride=stride), shortcut)


def plain_block(in_channels: int, channels: int, *, stride: int) -> nn.Module:
    """The same two convolutions with no way around them."""
    return nn.Sequential(two_convolutions(in_channels, channels, stride=stride), nn.ReLU())


def projection(in_channels: int, out_channels: int, *, stride: int) -> nn.Module:
    """The paper's option B: a 1x1 convolution where shapes differ."""
    same = in_channels == out_channels and stride == 1
    return nn.Identity() if same else conv_bn(in_channels, out_channels, kernel_size=1, stride=stride)


def basic_block(in_channels: int, channels: int, *, stride: int) -> nn.Module:
    """3x3 twice beside a projecting shortcut."""
    return ResidualBlock(
        two_convolutions(in_channels, channels, stride=stride), projection(in_channels, channels, stride=stride)
    )


def bottleneck_block(in_channels: int, channels: int, *, stride: int) -> nn.Module:
    """1x1 down, 3x3, 1x1 up to four times `channels`. The 3x3 strides, as in torchvision, not the paper's first 1x1."""
    out_channels = EXPANSION * channels
    residual = nn.Sequential(
        conv_bn_relu(in_channels, channels, kernel_size=1),
        conv_bn_relu(channels, channels, kernel_size=3, stride=stride),
        conv_bn(channels, out_channels, kernel_size=1),
    )
    return ResidualBlock(residual, projection(in_channels, out_channels, stride=stride))


EXPANSION = 4


class Block(Protocol):
    """Makes a block from its channels in, its channels and its stride."""

    def __call__(self, in_channels: int, channels: int, /, *, stride: int) -> nn.Module: ...


def cifar_resnet(spec: ImageSpec, *, blocks_per_stage: int, block: Block = cifar_block) -> nn.Sequential:
    """The paper's network of 6n + 2 weighted layers, with n blocks in each of three stages."""
    layers: list[nn.Module] = [conv_bn_relu(spec.channels, 16, kernel_size=3)]  # N, 16, H, W
    in_channels = 16
    for channels, stride in ((16, 1), (32, 2), (64, 2)):
        for index in range(blocks_per_stage):
            layers.append(block(in_channels, channels, stride=stride if index == 0 else 1))
            in_channels = channels
    # N, 64, H / 4, W / 4
    return nn.Sequential(*layers, GlobalAveragePool(), nn.Linear(64, spec.num_classes))  # N, num_classes


def imagenet_resnet(
    spec: ImageSpec, depths: tuple[int, int, int, int], *, block: Block, expansion: int
) -> nn.Sequential:
    """Four stages of `depths` blocks, 64 to 512 channels times `expansion`; a small-image stem keeps the size."""
    if spec.small:
        layers: list[nn.Module] = [conv_bn_relu(spec.channels, 64, kernel_size=3)]  # N, 64, H, W
    else:
        stem = conv_bn_relu(spec.channels, 64, kernel_size=7, stride=2)  # N, 64, H / 2, W / 2
        layers = [stem, nn.MaxPool2d(3, stride=2, padding=1)]  # N, 64, H / 4, W / 4
    in_channels = 64
    for channels, depth in zip((64, 128, 256, 512), depths, strict=True):
        for index in range(depth):
            layers.append(block(in_channels, channels, stride=2 if index == 0 and channels > 64 else 1))
            in_channels = expansion * channels
    # N, expansion * 512, H / 8, W / 8 for small images, else H / 32, W / 32
    return nn.Sequential(*layers, GlobalAveragePool(), nn.Linear(in_channels, spec.num_classes))  # N, num_classes


@architecture(params=269_722, macs=40_551_040)
def resnet20(spec: ImageSpec) -> nn.Module:
    """Twenty weighted layers with zero-padded shortcuts, as published for CIFAR-10."""
    return cifar_resnet(spec, blocks_per_stage=3)


@architecture(params=464_154, macs=68_862_592)
def resnet32(spec: ImageSpec) -> nn.Module:
    """Thirty-two layers, as published for CIFAR-10."""
    return cifar_resnet(spec, blocks_per_stage=5)


@architecture(params=658_586, macs=97_174_144)
def resnet44(spec: ImageSpec) -> nn.Module:
    """Forty-four layers, as published for CIFAR-10."""
    return cifar_resnet(spec, blocks_per_stage=7)


@architecture(params=853_018, macs=125_485_696)
def resnet56(spec: ImageSpec) -> nn.Module:
    """Fifty-six layers, as published for CIFAR-10."""
    return cifar_resnet(spec, blocks_per_stage=9)


@architecture(params=1_727_962, macs=252_887_680)
def resnet110(spec: ImageSpec) -> nn.Module:
    """A hundred and ten layers, as published for CIFAR-10."""
    return cifar_resnet(spec, blocks_per_stage=18)


@architecture(params=269_722, macs=40_551_040)
def plain20(spec: ImageSpec) -> nn.Module:
    """ResNet-20 without its shortcuts: the same layers, parameters and MACs."""
    return cifar_resnet(spec, blocks_per_stage=3, block=plain_block)


@architecture(params=853_018, macs=125_485_696)
def plain56(spec: ImageSpec) -> nn.Module:
    """ResNet-56 without its shortcuts: shows the degradation that residuals cure."""
    return cifar_resnet(spec, blocks_per_stage=9, block=plain_block)


@architecture(params=11_173_962, macs=555_422_720)
def resnet18(spec: ImageSpec) -> nn.Module:
    """Basic blocks (2, 2, 2, 2)."""
    return imagenet_resnet(spec, (2, 2, 2, 2), block=basic_block, expansion=1)


@architecture(params=21_282_122, macs=1_159_402_496)
def resnet34(spec: ImageSpec) -> nn.Module:
    """Basic blocks (3, 4, 6, 3)."""
    return imagenet_resnet(spec, (3, 4, 6, 3), block=basic_block, expansion=1)


@architecture(params=23_520_842, macs=1_297_829_888)
def resnet50(spec: ImageSpec) -> nn.Module:
    """Bottleneck blocks (3, 4, 6, 3)."""
    return imagenet_resnet(spec, (3, 4, 6, 3), block=bottleneck_block, expansion=EXPANSION)


@architecture(params=42_512_970, macs=2_509_983_744)
def resnet101(spec: ImageSpec) -> nn.Module:
    """Bottleneck blocks (3, 4, 23, 3)."""
    return imagenet_resnet(spec, (3, 4, 23, 3), block=bottleneck_block, expansion=EXPANSION)


@architecture(params=58_156_618, macs=3_722_137_600)
def resnet152(spec: ImageSpec) -> nn.Module:
    """Bottleneck blocks (3, 8, 36, 3)."""
    return imagenet_resnet(spec, (3, 8, 36, 3), block=bottleneck_block, expansion=EXPANSION)
