"""WHAT is compared: one family a file, each architecture a decorated function from an `ImageSpec` to a network.

A builder takes the spec alone and returns a module that maps normalised pixels `(N, C, H, W)` to raw logits
`(N, num_classes)`, in training and in eval. `build` puts the normalisation in front.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.registry import Registry
from cnnbench.types import CnnbenchError, ImageSpec

if TYPE_CHECKING:
    from torch import nn

architecture = Registry("architecture", package="cnnbench.architectures")
"""Decorator. `params` and `macs`: the cost at 3 x 32 x 32 with 10 classes; `min_size`: the smallest side in pixels."""


def build(name: str, spec: ImageSpec) -> nn.Module:
    """The network `name` for `spec`, from float pixels in [0, 1] `(N, C, H, W)` to logits `(N, num_classes)`.

    Raises:
        CnnbenchError: The name is unknown, or the images are too small for the network (exit 2).
    """
    builder = architecture[name].load()
    smallest = getattr(builder, "declared", {}).get("min_size", 1)
    if min(spec.height, spec.width) < smallest:
        raise CnnbenchError(
            f"{name} cannot take {spec.height}x{spec.width} images: it needs at least {smallest}x{smallest} pixels"
        )
    from torch import nn

    from cnnbench.architectures.layers import Normalize

    network: nn.Module = builder(spec)
    return nn.Sequential(Normalize(spec), network)
