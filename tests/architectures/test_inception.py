"""Inception blocks and the networks made of them, against the paper's table 1."""

import functools

import pytest
import torch
from torch import nn
from zoo import IMAGENET, cost, no_pixels, on_meta, params

from cnnbench.analysis.cost import count
from cnnbench.architectures.inception import InceptionBlock
from cnnbench.architectures.layers import conv_bn_relu
from cnnbench.types import COST_SPEC, ImageSpec

TABLE_1 = {
    # 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool proj: output channels and side
    (64, 96, 128, 16, 32, 32): (256, 28),
    (128, 128, 192, 32, 96, 64): (480, 28),
    (192, 96, 208, 16, 48, 64): (512, 14),
    (160, 112, 224, 24, 64, 64): (512, 14),
    (128, 128, 256, 24, 64, 64): (512, 14),
    (112, 144, 288, 32, 64, 64): (528, 14),
    # 4e and 5a have the same widths
    (256, 160, 320, 32, 128, 128): (832, 14),
    (384, 192, 384, 48, 128, 128): (1024, 7),
}
"""Szegedy et al. 2014, table 1: blocks 3a to 5b."""


@functools.cache
def blocks(name: str, spec: ImageSpec) -> list[tuple[InceptionBlock, tuple[int, ...]]]:
    """The network's Inception blocks and the shapes of what they make of one image."""
    found: list[tuple[InceptionBlock, tuple[int, ...]]] = []
    made = on_meta(name, spec).eval()
    for module in made.modules():
        if isinstance(module, InceptionBlock):
            module.register_forward_hook(lambda block, x, out: found.append((block, tuple(out.shape[1:]))))
    made(no_pixels(spec))
    return found


def convolutions(module: nn.Module) -> list[tuple[int, int]]:
    """Side of the kernel and output channels of each."""
    return [(m.kernel_size[0], m.out_channels) for m in module.modules() if isinstance(m, nn.Conv2d)]


def test_googlenet_s_blocks_are_the_paper_s() -> None:
    found = blocks("googlenet", IMAGENET)
    widths = [tuple(channels for _, channels in convolutions(block)) for block, _ in found]
    in_order = list(TABLE_1)
    assert widths == [*in_order[:7], in_order[6], in_order[7]]
    expected = [*TABLE_1.values()]
    assert [shape for _, shape in found] == [(c, s, s) for c, s in [*expected[:7], (832, 7), expected[7]]]


def test_googlenet_has_true_5x5_convolutions() -> None:
    for block, _ in blocks("googlenet", IMAGENET):
        assert [side for side, _ in convolutions(block)] == [1, 1, 3, 1, 5, 1]


def test_googlenet_has_22_layers_with_weights() -> None:
    assert cost("googlenet", IMAGENET).depth == 22


def test_a_block_concatenates_its_branches_channels() -> None:
    block, x = InceptionBlock(20, 16, (12, 32), (4, 8), 24), torch.rand(2, 20, 9, 7)
    assert [branch(x).shape[1] for branch in block.branches] == [16, 32, 8, 24]
    assert block(x).shape == (2, 16 + 32 + 8 + 24, 9, 7)
    expected = [(20, 16, 1), (20, 12, 1), (12, 32, 3), (20, 4, 1), (4, 8, 5), (20, 24, 1)]
    assert params(block) == sum(c_in * c_out * side**2 + 2 * c_out for c_in, c_out, side in expected)


@pytest.mark.parametrize("narrow", [1, None])
def test_branches_see_1_3_5_and_3_pixels_wide(narrow: int | None) -> None:
    block = InceptionBlock(1, 1, (narrow, 1), (narrow, 1), 1).eval()
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
    point = torch.zeros(1, 1, 11, 11)
    point[..., 5, 5] = 1
    assert [(branch(point) > 0).sum().item() for branch in block.branches] == [1, 9, 25, 9]


def test_without_bottlenecks_nothing_else_differs() -> None:
    with_them, without = (blocks(name, COST_SPEC) for name in ("inception_small", "inception_small_nobottleneck"))
    assert len(with_them) == len(without) == 4
    for (block, shape), (other, other_shape) in zip(with_them, without, strict=True):
        assert shape == other_shape
        one, narrow_3, three, narrow_5, five, pooled = convolutions(block)
        assert (narrow_3[0], narrow_5[0]) == (1, 1)
        assert convolutions(other) == [one, three, five, pooled]
    outside = [
        [str(layer) for layer in on_meta(name, COST_SPEC)[1] if not isinstance(layer, InceptionBlock)]  # type: ignore[index]
        for name in ("inception_small", "inception_small_nobottleneck")
    ]
    assert outside[0] == outside[1]


def test_a_bottleneck_costs_what_theory_says() -> None:
    spec = ImageSpec(28, 28, 256, 1)
    with torch.device("meta"):
        direct = count(conv_bn_relu(256, 32, kernel_size=5), spec)
        through = count(nn.Sequential(conv_bn_relu(256, 16, kernel_size=1), conv_bn_relu(16, 32, kernel_size=5)), spec)
    pixels = 28 * 28
    assert direct.macs == pixels * 256 * 32 * 25 == 160_563_200
    assert through.macs == pixels * (256 * 16 + 16 * 32 * 25) == 13_246_464
