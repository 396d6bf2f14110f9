"""AlexNet: the deep convolutional network, with ReLU and dropout, that won ImageNet in 2012.

Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks, 2012. The widths are
those of Krizhevsky: One Weird Trick, 2014 (arXiv:1404.5997), for one GPU and without local response normalisation.
"""

from __future__ import annotations

from torch import nn

from cnnbench.architectures import architecture
from cnnbench.types import ImageSpec


def side_after(side: int, *, kernel_size: int, stride: int, padding: int = 0) -> int:
    """The side of the map that a convolution or pooling makes of a map of `side`."""
    return (side + 2 * padding - kernel_size) // stride + 1


def original_side(side: int) -> int:
    """The side of the last map: 6 for 224 pixels."""
    side = side_after(side, kernel_size=11, stride=4, padding=2)
    for _ in range(3):
        side = side_after(side, kernel_size=3, stride=2)
    return max(0, side)


@architecture(params=36_051_786, macs=250_847_232)
def alexnet(spec: ImageSpec) -> nn.Module:
    """Five convolutions and three large fully connected layers; a 3x3 stem for small images."""
    if spec.small:
        stem, pool = nn.Conv2d(spec.channels, 64, kernel_size=3, padding=1), nn.MaxPool2d(2)
        rows, columns = spec.height // 8, spec.width // 8
    else:
        stem, pool = nn.Conv2d(spec.channels, 64, kernel_size=11, stride=4, padding=2), nn.MaxPool2d(3, stride=2)
        rows, columns = original_side(spec.height), original_side(spec.width)
    return nn.Sequential(  # shapes for 224 x 224, and for 32 x 32
        stem,  # N, 64, 55, 55; N, 64, 32, 32
        nn.ReLU(),
        pool,  # N, 64, 27, 27; N, 64, 16, 16
        nn.Conv2d(64, 192, kernel_size=5, padding=2),
        nn.ReLU(),
        pool,  # N, 192, 13, 13; N, 192, 8, 8
        nn.Conv2d(192, 384, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        pool,  # N, 256, 6, 6; N, 256, 4, 4
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(256 * rows * columns, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, spec.num_classes),  # N, num_classes
    )
