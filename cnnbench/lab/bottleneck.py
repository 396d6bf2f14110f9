"""The 1x1 bottleneck of Inception: what it saves, counted and timed."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import torch
from torch import nn

from cnnbench import pictures
from cnnbench.analysis.cost import cost, count
from cnnbench.analysis.tracer import trace
from cnnbench.architectures.layers import conv_bn_relu
from cnnbench.lab import Lesson, Numbers, lesson
from cnnbench.types import ImageSpec

MAP = ImageSpec(28, 28, 256, num_classes=1)
ROUNDS = 15


@lesson(name="bottleneck", order=7)
def bottleneck() -> Lesson:
    """5x5 on 256 channels, directly and through 16 channels: 160.6 M against 13.2 M multiplications."""

    def direct() -> nn.Sequential:
        return conv_bn_relu(256, 32, kernel_size=5)

    def through() -> nn.Sequential:
        return nn.Sequential(conv_bn_relu(256, 16, kernel_size=1), conv_bn_relu(16, 32, kernel_size=5))

    with torch.device("meta"):
        made = {"direct": direct(), "through 16 channels": through()}
        costs = {name: count(layers, MAP) for name, layers in made.items()}
        weights = {name: sum(step.weights for step in trace(layers, MAP)) for name, layers in made.items()}
    first, second = costs["direct"].macs, costs["through 16 channels"].macs
    by_hand = (28 * 28 * 32 * 5 * 5 * 256, 28 * 28 * 16 * 256 + 28 * 28 * 32 * 5 * 5 * 16)
    times = _timed({"direct": direct(), "through 16 channels": through()})
    small, without = cost("inception_small"), cost("inception_small_nobottleneck")
    claims = [
        (
            f"28x28, 256 channels to 32 by 5x5: {first:,} multiplications directly, {second:,} through 16 channels of "
            f"1x1, {first / second:.1f} times fewer",
            (first, second) == by_hand == (160_563_200, 13_246_464),
        ),
        (
            f"Popular texts call these parameters; the weights are {weights['direct']:,} against "
            f"{weights['through 16 channels']:,}",
            list(weights.values()) == [204_800, 4_096 + 12_800],
        ),
        (
            f"A whole network saves too: inception_small has {small.macs:,} MACs, the same without bottlenecks "
            f"{without.macs:,}, {without.macs / small.macs:.1f} times as many, and {without.params / small.params:.1f} "
            "times the parameters",
            without.macs > 2 * small.macs,
        ),
        (
            "The two steps put out more than the one: a bottleneck trades arithmetic for memory traffic, "
            f"{costs['through 16 channels'].activations:,} elements against {costs['direct'].activations:,}",
            costs["through 16 channels"].activations > costs["direct"].activations,
        ),
    ]
    rows = [
        {
            "5x5 on 28x28x256": name,
            "MACs": found.macs,
            "weights": weights[name],
            "activations": found.activations,
            f"ms here, median of {ROUNDS}": times[name] * 1e3,
        }
        for name, found in costs.items()
    ]
    networks = [
        {"network, 32x32x3": name, "parameters": found.params, "MACs": found.macs, "activations": found.activations}
        for name, found in (("inception_small", small), ("inception_small_nobottleneck", without))
    ]
    figure, panels = pictures.new(11.5, 3.8, panels=3)
    figure.suptitle("256 channels to 32 by 5x5 on 28x28: directly, and through 16 channels")
    figures: dict[str, list[Any]] = {
        "MACs": [first, second],
        "weights": [*weights.values()],
        "ms on this machine": [t * 1e3 for t in times.values()],
    }
    for axes, (label, values) in zip(panels, figures.items(), strict=True):
        axes.bar(list(costs), values, color=pictures.COLOURS[:2])
        axes.set_title(f"{label}: {values[0] / values[1]:.1f} to 1", fontsize=11)
    return Lesson(
        "The bottleneck",
        "A 1x1 convolution first makes 16 channels of 256; the expensive 5x5 then works on those. Times are of one "
        "call on one image after warm-up, both in turn, on the machine that made this page; they are not part of any "
        "claim.",
        claims,
        [Numbers("One layer", rows), Numbers("One network", networks)],
        figure,
        "Bars: multiplications, weights and time, directly and through a bottleneck",
    )


def _timed(layers: dict[str, nn.Sequential]) -> dict[str, float]:
    """Median seconds of one call, the layers taking turns."""
    pixels = torch.rand(1, MAP.channels, MAP.height, MAP.width)
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    with torch.no_grad():
        for round_ in range(ROUNDS + 3):
            for name, layer in layers.items():
                start = time.perf_counter()
                layer.eval()(pixels)
                if round_ >= 3:
                    seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}
