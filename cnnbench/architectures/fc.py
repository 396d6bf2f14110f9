"""Fully connected networks: the image is flattened, so no structure of it is assumed."""

from __future__ import annotations

from torch import nn

from cnnbench.architectures import architecture
from cnnbench.types import ImageSpec


def fully_connected(spec: ImageSpec, hidden: tuple[int, ...]) -> nn.Sequential:
    """Linear layers of the widths in `hidden`, ReLU between them. `(N, C, H, W)` -> `(N, num_classes)`."""
    layers: list[nn.Module] = [nn.Flatten()]  # N, C * H * W
    width = spec.channels * spec.height * spec.width
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU()]  # N, units
        width = units
    return nn.Sequential(*layers, nn.Linear(width, spec.num_classes))  # N, num_classes


@architecture(params=1_841_162, macs=1_840_128)
def mlp(spec: ImageSpec) -> nn.Module:
    """Two hidden layers of 512 units."""
    return fully_connected(spec, hidden=(512, 512))
