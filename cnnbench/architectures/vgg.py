"""VGG: depth from stacks of 3x3 convolutions, two of which see what one 5x5 sees.

Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014 (arXiv:1409.1556),
table 1, configurations A, B, D and E.
"""

from __future__ import annotations

from torch import nn

from cnnbench.architectures import architecture
from cnnbench.architectures.layers import GlobalAveragePool, he_init
from cnnbench.types import ImageSpec

WIDTHS = (64, 128, 256, 512, 512)


def vgg(spec: ImageSpec, depths: tuple[int, int, int, int, int], *, batch_norm: bool) -> nn.Module:
    """Five stages of `depths` convolutions, each followed by pooling that halves the map.

    Small images keep the stages. Their last pooling is the mean over all positions, and one linear layer follows: of
    the original head's 124 million weights, made for maps of 7 x 7, nothing is left to do at 1 x 1.
    """
    layers: list[nn.Module] = []
    in_channels = spec.channels
    for stage, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True)):
        for _ in range(depth):
            layers.append(nn.Conv2d(in_channels, width, kernel_size=3, padding=1))
            layers += [nn.BatchNorm2d(width), nn.ReLU()] if batch_norm else [nn.ReLU()]
            in_channels = width
        if stage < 4 or not spec.small:
            layers.append(nn.MaxPool2d(2))
    # N, 512, H / 16, W / 16 for small images, else N, 512, H / 32, W / 32
    if spec.small:
        head: list[nn.Module] = [GlobalAveragePool(), nn.Linear(512, spec.num_classes)]
    else:
        head = [
            nn.Flatten(),
            nn.Linear(512 * (spec.height // 32) * (spec.width // 32), 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, spec.num_classes),
        ]
    return he_init(nn.Sequential(*layers, *head))  # N, num_classes


@architecture(params=9_225_610, macs=152_769_536)
def vgg11(spec: ImageSpec) -> nn.Module:
    """Eight convolutions: configuration A."""
    return vgg(spec, (1, 1, 2, 2, 2), batch_norm=False)


@architecture(params=9_231_114, macs=152_769_536)
def vgg11_bn(spec: ImageSpec) -> nn.Module:
    """Configuration A with batch norm."""
    return vgg(spec, (1, 1, 2, 2, 2), batch_norm=True)


@architecture(params=9_410_122, macs=228_267_008)
def vgg13(spec: ImageSpec) -> nn.Module:
    """Ten convolutions: configuration B."""
    return vgg(spec, (2, 2, 2, 2, 2), batch_norm=False)


@architecture(params=9_416_010, macs=228_267_008)
def vgg13_bn(spec: ImageSpec) -> nn.Module:
    """Configuration B with batch norm."""
    return vgg(spec, (2, 2, 2, 2, 2), batch_norm=True)


@architecture(params=14_719_818, macs=313_201_664)
def vgg16(spec: ImageSpec) -> nn.Module:
    """Thirteen convolutions: configuration D."""
    return vgg(spec, (2, 2, 3, 3, 3), batch_norm=False)


@architecture(params=14_728_266, macs=313_201_664)
def vgg16_bn(spec: ImageSpec) -> nn.Module:
    """Configuration D with batch norm."""
    return vgg(spec, (2, 2, 3, 3, 3), batch_norm=True)


@architecture(params=20_029_514, macs=398_136_320)
def vgg19(spec: ImageSpec) -> nn.Module:
    """Sixteen convolutions: configuration E."""
    return vgg(spec, (2, 2, 4, 4, 4), batch_norm=False)


@architecture(params=20_040_522, macs=398_136_320)
def vgg19_bn(spec: ImageSpec) -> nn.Module:
    """Configuration E with batch norm."""
    return vgg(spec, (2, 2, 4, 4, 4), batch_norm=True)
