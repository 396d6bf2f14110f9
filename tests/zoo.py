"""What the tests of all families share: every registered name, and networks with and without weights."""

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from cnnbench.analysis import cost as counting
from cnnbench.architectures import architecture, build
from cnnbench.types import Cost, ImageSpec

GRAY = ImageSpec(28, 28, 1, 10, mean=(0.13,), std=(0.31,))
COLOUR = ImageSpec(32, 32, 3, 7, mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26))
IMAGENET = ImageSpec(224, 224, 3, 1000)


def heavy(name: str) -> bool:
    """Whether to build and run the network with weights takes long."""
    declared = architecture[name].declared
    return declared["macs"] > 60_000_000 or declared["params"] > 5_000_000


DEEP = {"plain56", "resnet44", "resnet56", "resnet101", "resnet110", "resnet152"}
"""Their layers are those of a sibling with fewer, and take the longer for it."""


with_weights = [pytest.param(name, marks=[pytest.mark.slow] * heavy(name)) for name in architecture]
every = pytest.mark.parametrize("name", list(architecture))
every_but_deep = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in DEEP)) for name in architecture]
)
every_with_weights = pytest.mark.parametrize("name", with_weights)
at_sizes = pytest.mark.parametrize("spec", [GRAY, COLOUR], ids=["28x28x1", "32x32x3"])


def network(name: str, spec: ImageSpec) -> nn.Module:
    torch.manual_seed(1)
    return build(name, spec)


def on_meta(name: str, spec: ImageSpec) -> nn.Module:
    with torch.device("meta"):
        return build(name, spec)


def pixels(spec: ImageSpec, count: int = 4) -> Tensor:
    shape = (count, spec.channels, spec.height, spec.width)
    return torch.rand(shape, generator=torch.Generator().manual_seed(2))


def no_pixels(spec: ImageSpec, count: int = 1) -> Tensor:
    return pixels(spec, count).to("meta")


def settled(made: nn.Module, images: Tensor) -> nn.Module:
    """In eval mode, with the statistics of `images` in every batch norm, so that no signal fades on its way."""
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        made.train()(images)
    return made.eval()


def furthest(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in parts of the largest expected value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@cache
def cost(name: str, spec: ImageSpec) -> Cost:
    return counting.cost(name, spec)
