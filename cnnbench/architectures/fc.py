"""Fully connected networks: the image is flattened, so no structure of it is assumed."""

from __future__ import annotations

import torch
from torch import nn

from cnnbench.architectures import architecture
from cnnbench.architectures.lenet import lenet5
from cnnbench.types import ImageSpec


def fully_connected(spec: ImageSpec, hidden: tuple[int, ...]) -> nn.Sequential:
    """Linear layers of the widths in `hidden`, ReLU between them. `(N, C, H, W)` -> `(N, num_classes)`."""
    layers: list[nn.Module] = [nn.Flatten()]  # N, C * H * W
    width = spec.channels * spec.height * spec.width
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU()]  # N, units
        width = units
    return nn.Sequential(*layers, nn.Linear(width, spec.num_classes))  # N, num_classes


@architecture(params=30_730, macs=30_720)
def linear(spec: ImageSpec) -> nn.Module:
    """No hidden layer: multinomial logistic regression, the floor of every comparison."""
    return fully_connected(spec, hidden=())


@architecture(params=1_841_162, macs=1_840_128)
def mlp(spec: ImageSpec) -> nn.Module:
    """Two hidden layers of 512 units."""
    return fully_connected(spec, hidden=(512, 512))


@architecture(params=2_629_130, macs=2_626_560)
def mlp_deep(spec: ImageSpec) -> nn.Module:
    """Five hidden layers of 512 units: depth without convolution."""
    return fully_connected(spec, hidden=(512,) * 5)


@architecture(params=61_670, macs=61_640)
def mlp_lenet(spec: ImageSpec) -> nn.Module:
    """One hidden layer, as many parameters as LeNet-5 for the same images, to within 2 % at the usual sizes."""
    with torch.device("meta"):
        wanted = sum(p.numel() for p in lenet5(spec).parameters())
    # inputs * units + units + units * classes + classes parameters
    inputs, classes = spec.channels * spec.height * spec.width, spec.num_classes
    return fully_connected(spec, hidden=(max(1, round((wanted - classes) / (inputs + 1 + classes))),))
