"""Networks that several tests of the analysis take apart, each of them once."""

import functools

import pytest
import torch
from torch import nn

from cnnbench.analysis.layer import Layer
from cnnbench.analysis.tracer import trace
from cnnbench.architectures import architecture, build
from cnnbench.types import COST_SPEC, ImageSpec

LARGE = ImageSpec(224, 224, 3, 1000)
OTHERS = [
    "torchvision/googlenet",
    "torchvision/densenet121",
    "torchvision/mobilenet_v3_small",
    "torchvision/shufflenet_v2_x1_0",
    "timm/resnet10t",
]
VIT = "torchvision/vit_b_16"
SHALLOW = {"alexnet", "inception_small", "lenet5", "resnet18", "vgg11"}
"""One of each family, for images larger than the usual ones."""
COMMON = {*SHALLOW, "fastnet", "linear", "netresdeep", "plain20", "resnet20", "resnet50", "timm/resnet10t"}
"""The kinds of layer and of branch that others repeat."""


def case(name: str, spec: ImageSpec) -> object:
    slow = name not in COMMON or (spec != COST_SPEC and name not in SHALLOW)
    return pytest.param(name, spec, marks=[pytest.mark.slow] * slow)


every = pytest.mark.parametrize(
    ("name", "spec"),
    [
        *[case(name, spec) for spec in (COST_SPEC, LARGE) for name in architecture],
        *[case(name, COST_SPEC) for name in OTHERS],
        (VIT, LARGE),
    ],
    ids=str,
)


@functools.cache
def apart(name: str, spec: ImageSpec) -> tuple[nn.Module, list[Layer]]:
    """A network on the meta device and its layers."""
    with torch.device("meta"):
        network = build(name, spec)
    return network, trace(network, spec)


def layers_of(network: nn.Module, side: int = 32, channels: int = 3) -> list[Layer]:
    """The layers of a small network made by a test."""
    return trace(network.to("meta"), ImageSpec(side, side, channels, 10))
