"""Residual networks and their plain counterparts, against the papers' layers."""

import pytest
import torch
from torch import nn
from zoo import COLOUR, cost, network, on_meta, params, pixels

from cnnbench.analysis.tracer import trace
from cnnbench.architectures.netresdeep import netresdeep
from cnnbench.architectures.resnet import (
    ResidualBlock,
    ZeroPadShortcut,
    basic_block,
    bottleneck_block,
    cifar_block,
    plain_block,
)
from cnnbench.types import COST_SPEC, ImageSpec

CIFAR = {"resnet20": 0.27, "resnet32": 0.46, "resnet44": 0.66, "resnet56": 0.85, "resnet110": 1.7}
"""He et al. 2015, table 6: millions of parameters."""


def macs_of(n: int) -> int:
    """He et al. 2015, section 4.2: 6n + 1 convolutions of 3x3 in three stages, and one linear layer."""
    stem = 9 * 3 * 16 * 32**2
    stages = [(16, 16, 32), (16, 32, 16), (32, 64, 8)]  # channels before, channels, side of the map
    first = sum(9 * before * channels * side**2 for before, channels, side in stages)
    rest = sum((2 * n - 1) * 9 * channels**2 * side**2 for _, channels, side in stages)
    return stem + first + rest + 64 * 10


def params_of(n: int) -> int:
    """The same layers' weights, two parameters a channel in each batch norm, none in the shortcuts."""
    stem = 9 * 3 * 16 + 2 * 16
    stages = sum(
        9 * before * c + (2 * n - 1) * 9 * c**2 + 2 * n * 2 * c for before, c in ((16, 16), (16, 32), (32, 64))
    )
    return stem + stages + 64 * 10 + 10


@pytest.mark.parametrize(("name", "millions"), CIFAR.items())
def test_resnets_for_small_images_have_the_paper_s_parameters_and_layers(name: str, millions: float) -> None:
    n, counted = (int(name.removeprefix("resnet")) - 2) // 6, cost(name, COST_SPEC)
    assert round(counted.params / 1e6, 1 if millions > 1 else 2) == millions
    assert counted.params == params_of(n)
    assert counted.macs == macs_of(n)
    assert counted.depth == 6 * n + 2 == int(name.removeprefix("resnet"))


@pytest.mark.parametrize(("name", "millions"), [("resnet20", 41), ("resnet56", 125)])
def test_resnets_for_small_images_have_the_known_multiply_adds(name: str, millions: int) -> None:
    assert round(cost(name, COST_SPEC).macs / 1e6) == millions


def additions(name: str) -> int:
    return sum(layer.kind == "add" for layer in trace(on_meta(name, COST_SPEC), COST_SPEC))


@pytest.mark.parametrize("depth", [20, pytest.param(56, marks=pytest.mark.slow)])
def test_plain_networks_are_the_residual_ones_without_their_additions(depth: int) -> None:
    assert cost(f"plain{depth}", COST_SPEC) == cost(f"resnet{depth}", COST_SPEC)
    assert additions(f"plain{depth}") == 0
    assert additions(f"resnet{depth}") == (depth - 2) // 2


def test_shortcut_option_a_takes_every_second_pixel_and_appends_zeros_without_parameters() -> None:
    shortcut, x = ZeroPadShortcut(extra_channels=3, stride=2), pixels(ImageSpec(5, 7, 2, 2))
    out = shortcut(x)
    assert params(shortcut) == 0
    assert out.shape == (4, 5, 3, 4)
    assert torch.equal(out[:, :2], x[:, :, ::2, ::2])
    assert torch.equal(out[:, 2:], torch.zeros(4, 3, 3, 4))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("make", "c_out"), [(cifar_block, 32), (basic_block, 32), (bottleneck_block, 32 * 4)])
def test_a_block_whose_residual_is_zero_is_its_shortcut(make, c_out: int, stride: int) -> None:  # type: ignore[no-untyped-def]
    block, x = make(16, 32, stride=stride).eval(), torch.rand(2, 16, 9, 8)
    assert block(x).shape == (2, c_out, -(-9 // stride), -(-8 // stride))
    nn.init.zeros_(block.residual[-1][-1].weight)
    assert torch.equal(block(x), block.shortcut(x).relu())


@pytest.mark.parametrize(("make", "channels"), [(cifar_block, 32), (basic_block, 32), (bottleneck_block, 8)])
def test_where_shapes_agree_the_shortcut_is_the_identity(make, channels: int) -> None:  # type: ignore[no-untyped-def]
    assert isinstance(make(32, channels, stride=1).shortcut, nn.Identity)
    assert not isinstance(make(32, channels, stride=2).shortcut, nn.Identity)


def test_a_plain_block_is_two_convolutions_each_with_its_relu() -> None:
    kinds = [type(module) for module in plain_block(16, 32, stride=2).modules() if not list(module.children())]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2


def test_a_bottleneck_is_1x1_down_3x3_with_the_stride_and_1x1_up_four_times() -> None:
    block = bottleneck_block(256, 128, stride=2)
    assert isinstance(block, ResidualBlock)
    convolutions = [module for module in block.residual.modules() if isinstance(module, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0]) for c in convolutions] == [
        (256, 128, 1, 1),
        (128, 128, 3, 2),
        (128, 512, 1, 1),
    ]


def test_netresdeep_has_ten_blocks_with_weights_of_their_own() -> None:
    blocks = [module for module in network("netresdeep", COLOUR).modules() if isinstance(module, ResidualBlock)]
    weights = {p.data_ptr() for block in blocks for p in block.parameters()}
    assert len(blocks) == 10
    assert len(weights) == 10 * 3
    assert params(netresdeep(COST_SPEC)) == (9 * 3 + 1) * 32 + 10 * (9 * 32 + 2) * 32 + (32 * 64 + 1) * 32 + 33 * 10


@pytest.mark.parametrize(("name", "needed"), [("netresdeep", False), ("resnet20", True)])
def test_the_relu_after_the_sum_matters_in_resnets_but_not_in_netresdeep(name: str, needed: bool) -> None:
    made, negative = network(name, COLOUR).train(), []
    for block in made.modules():
        if isinstance(block, ResidualBlock):
            block.register_forward_pre_hook(
                lambda block, x: negative.append(bool((block.residual(*x) + block.shortcut(*x)).min() < 0))
            )
    made(pixels(COLOUR))
    assert all(negative) is any(negative) is needed
