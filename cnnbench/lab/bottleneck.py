"""The 1x1 bottleneck of Inception: what it saves, counted and timed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import nn

from cnnbench import pictures
from cnnbench.analysis.cost import cost, total
from cnnbench.analysis.tracer import trace
from cnnbench.architectures.layers import conv_bn_relu
from cnnbench.lab import Claim, Lesson, Numbers, Row, lesson
from cnnbench.types import Cost, ImageSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAP = ImageSpec(28, 28, 256, num_classes=1)
ROUNDS = 15
WARM_UP = 3
MACS_BY_HAND = (28 * 28 * 32 * 5 * 5 * 256, 28 * 28 * 16 * 256 + 28 * 28 * 32 * 5 * 5 * 16)


@dataclass(frozen=True)
class Block:
    """From 256 channels to 32 by 5x5, in one of two ways."""

    cost: Cost
    weights: int
    """Without bias and batch norm."""
    milliseconds: float
    """Median of one call on one image, on this machine."""


@lesson(name="bottleneck", order=7)
def bottleneck() -> Lesson:
    """5x5 on 256 channels, directly and through 16 channels: 160.6 M against 13.2 M multiplications."""
    blocks = _measure()
    networks = {name: cost(name) for name in ("inception_small", "inception_small_nobottleneck")}
    return Lesson(
        "The bottleneck",
        "A 1x1 convolution first makes 16 channels of 256; the expensive 5x5 then works on those. Times are of one "
        "call on one image after warm-up, both in turn, on the machine that made this page; they are not part of any "
        "claim.",
        [
            *_claims_of_arithmetic(*blocks.values()),
            _claim_of_networks(*networks.values()),
            _claim_of_memory(*blocks.values()),
        ],
        [Numbers("One layer", _rows_of_blocks(blocks)), Numbers("One network", _rows_of_networks(networks))],
        _draw(blocks),
        "Bars: multiplications, weights and time, directly and through a bottleneck",
    )


def _layers() -> dict[str, nn.Sequential]:
    return {
        "direct": conv_bn_relu(256, 32, kernel_size=5),
        "through 16 channels": nn.Sequential(conv_bn_relu(256, 16, kernel_size=1), conv_bn_relu(16, 32, kernel_size=5)),
    }


def _measure() -> dict[str, Block]:
    with torch.device("meta"):
        traced = {name: (block, trace(block, MAP)) for name, block in _layers().items()}
    seconds = _median_seconds(_layers())
    return {
        name: Block(total(block, layers), sum(layer.weights for layer in layers), seconds[name] * 1e3)
        for name, (block, layers) in traced.items()
    }


def _median_seconds(blocks: dict[str, nn.Sequential]) -> dict[str, float]:
    """Median seconds of one call; the blocks alternate."""
    pixels = torch.rand(1, MAP.channels, MAP.height, MAP.width)
    seconds: dict[str, list[float]] = {name: [] for name in blocks}
    with torch.no_grad():
        for round_ in range(WARM_UP + ROUNDS):
            for name, block in blocks.items():
                start = time.perf_counter()
                block.eval()(pixels)
                if round_ >= WARM_UP:
                    seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def _claims_of_arithmetic(direct: Block, through: Block) -> list[Claim]:
    macs = (direct.cost.macs, through.cost.macs)
    return [
        Claim(
            f"28x28, 256 channels to 32 by 5x5: {macs[0]:,} multiplications directly, {macs[1]:,} through 16 channels "
            f"of 1x1, {macs[0] / macs[1]:.1f} times fewer",
            macs == MACS_BY_HAND == (160_563_200, 13_246_464),
        ),
        Claim(
            f"Popular texts call these parameters; the weights are {direct.weights:,} against {through.weights:,}",
            (direct.weights, through.weights) == (204_800, 4_096 + 12_800),
        ),
    ]


def _claim_of_memory(direct: Block, through: Block) -> Claim:
    return Claim(
        "The two steps put out more than the one: a bottleneck trades arithmetic for memory traffic, "
        f"{through.cost.activations:,} elements against {direct.cost.activations:,}",
        through.cost.activations > direct.cost.activations,
    )


def _claim_of_networks(small: Cost, without: Cost) -> Claim:
    return Claim(
        f"A whole network saves too: inception_small has {small.macs:,} MACs, the same without bottlenecks "
        f"{without.macs:,}, {without.macs / small.macs:.1f} times as many, and {without.params / small.params:.1f} "
        "times the parameters",
        without.macs > 2 * small.macs,
    )


def _rows_of_blocks(blocks: dict[str, Block]) -> list[Row]:
    return [
        {
            "5x5 on 28x28x256": name,
            "MACs": block.cost.macs,
            "weights": block.weights,
            "activations": block.cost.activations,
            f"ms here, median of {ROUNDS}": block.milliseconds,
        }
        for name, block in blocks.items()
    ]


def _rows_of_networks(networks: dict[str, Cost]) -> list[Row]:
    return [
        {"network, 32x32x3": name, "parameters": cost.params, "MACs": cost.macs, "activations": cost.activations}
        for name, cost in networks.items()
    ]


def _draw(blocks: dict[str, Block]) -> Figure:
    figure, panels = pictures.new(11.5, 3.8, panels=3)
    figure.suptitle("256 channels to 32 by 5x5 on 28x28: directly, and through 16 channels")
    bars: dict[str, list[float]] = {
        "MACs": [block.cost.macs for block in blocks.values()],
        "weights": [block.weights for block in blocks.values()],
        "ms on this machine": [block.milliseconds for block in blocks.values()],
    }
    for axes, (label, values) in zip(panels, bars.items(), strict=True):
        axes.bar(list(blocks), values, color=pictures.COLOURS[:2])
        axes.set_title(f"{label}: {values[0] / values[1]:.1f} to 1", fontsize=11)
    return figure
