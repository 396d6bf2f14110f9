"""WHAT is compared: one file per family, each architecture a decorated function from an `ImageSpec` to a network.

A builder takes the spec alone and returns a module that maps normalised pixels `(N, C, H, W)` to raw logits
`(N, num_classes)`, in training and in eval. `build` puts the normalisation in front. Names with a slash,
`torchvision/<name>` and `timm/<name>`, are other libraries' networks (`external`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.registry import COUNT, Entry, Registry
from cnnbench.types import ImageSpec

if TYPE_CHECKING:
    from torch import nn


class Architectures(Registry):
    """The registered architectures, and by name those of other libraries, which are too many to list."""

    def __getitem__(self, name: str) -> Entry:
        self.require_text(name)
        if "/" not in name:
            return super().__getitem__(name)
        from cnnbench.architectures import external

        return external.entry(name)


architecture = Architectures(
    "architecture", package="cnnbench.architectures", declarables={"params": COUNT, "macs": COUNT}
)
"""Decorator. `params` and `macs`: the cost at 3 x 32 x 32 with 10 classes."""
architecture.__doc__ = """Register a function from an `ImageSpec` to a network; see docs/bring-your-own.md.

The network takes normalised pixels `(N, C, H, W)` float32 and returns raw logits `(N, num_classes)`, in training and in
evaluation. It is known at once, by the function's name or by `name=`; `params=` and `macs=` declare its cost for
32x32x3 with 10 classes. The decorator takes no arguments, or these.

Raises:
    CnnbenchError: The name is taken, there is none, or it cannot name a folder; something else is declared, or a value
        of another type (exit 2).
"""


def build(name: str, spec: ImageSpec) -> nn.Module:
    """The network `name` for `spec`, from float pixels in [0, 1] `(N, C, H, W)` to logits `(N, num_classes)`.

    Raises:
        CnnbenchError: The name is unknown, or the network cannot be built or cannot take images of this size (exit 2).
    """
    entry = architecture[name]
    builder = entry.load()
    import torch

    from cnnbench.architectures import external, sizes
    from cnnbench.architectures.layers import Normalize

    # ours read no values of tensors, and `external` has its own way for those that do
    on_cpu = not (entry.ours or isinstance(entry, external.External))
    on_meta = sizes.build_on_meta(builder, spec, name=name, on_cpu=on_cpu)
    meta = torch.get_default_device().type == "meta"
    network = on_meta if meta else sizes.build_with_values(builder, spec, name=name)
    return torch.nn.Sequential(Normalize(spec), network)
