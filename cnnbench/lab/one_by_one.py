"""A 1x1 convolution is a fully connected layer at every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from cnnbench import pictures, pixels
from cnnbench.datasets.shapes import draw
from cnnbench.lab import Claim, Lesson, Numbers, Row, lesson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIXTURES = {
    # three features of a colour, as the weights of red, green and blue
    "brightness": (1 / 3, 1 / 3, 1 / 3),
    "red against green": (0.5, -0.5, 0.0),
    "blue against yellow": (-0.25, -0.25, 0.5),
}


@dataclass(frozen=True)
class Measured:
    """Largest absolute differences."""

    connected: float
    """Between a 1x1 convolution and nn.Linear at every pixel."""
    shuffled: float
    """Between shuffling the pixels before and after a 1x1 convolution."""
    shuffled_three: float
    """The same for a 3x3 convolution."""


@lesson(name="one-by-one", order=4)
def one_by_one() -> Lesson:
    """The same weights at every pixel, no neighbour seen: a change of channels."""
    rows: list[Row] = [
        {
            "layer": f"{k}x{k}, 64 to 16 channels",
            "weights": 64 * 16 * k * k,
            "MACs on 28x28": 64 * 16 * k * k * 28 * 28,
            "fully connected between the same tensors, weights": 64 * 28 * 28 * 16 * 28 * 28,
        }
        for k in (1, 3, 5)
    ]
    return Lesson(
        "1x1 convolutions",
        "A kernel of one pixel sees the channels of one position only. It is how Inception and ResNet "
        "bottlenecks make a tensor narrow before an expensive layer, and how a classifier is applied at every place "
        "at once.",
        _claims(_measure()),
        [Numbers("What one costs", rows)],
        _draw(),
        "A coloured shape, its brightness, and two differences of its colours",
    )


def _measure() -> Measured:
    torch.manual_seed(0)
    convolution = nn.Conv2d(64, 16, kernel_size=1).double()
    connected = nn.Linear(64, 16).double()
    connected.load_state_dict({"weight": convolution.weight[:, :, 0, 0], "bias": convolution.bias})
    x = torch.rand(2, 64, 28, 28, dtype=torch.float64)
    at_every_pixel = connected(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    order = torch.randperm(28 * 28)
    three = nn.Conv2d(64, 16, kernel_size=3, padding=1).double()
    return Measured(
        connected=(convolution(x) - at_every_pixel).abs().max().item(),
        shuffled=_effect_of_order(convolution, x, order),
        shuffled_three=_effect_of_order(three, x, order),
    )


def _effect_of_order(layer: nn.Module, x: Tensor, order: Tensor) -> float:
    """Largest difference between shuffling the pixels of x `(N, C, H, W)` and those of the output."""

    def shuffled(features: Tensor) -> Tensor:
        return features.flatten(2)[..., order].view_as(features)

    difference: float = (layer(shuffled(x)) - shuffled(layer(x))).abs().max().item()
    return difference


def _claims(measured: Measured) -> list[Claim]:
    return [
        Claim(
            f"A 1x1 convolution equals nn.Linear applied at every pixel: largest difference {measured.connected:.1e}",
            measured.connected < 1e-12,
        ),
        Claim(
            f"Shuffling the pixels shuffles its output and no more: {measured.shuffled:.1e}", measured.shuffled < 1e-12
        ),
        Claim(
            f"A 3x3 convolution sees neighbours, and differs then by up to {measured.shuffled_three:.2f}",
            measured.shuffled_three > 0.01,
        ),
    ]


def _draw() -> Figure:
    image = draw(29, np.random.RandomState(6)).images[28]
    mixing = nn.Conv2d(3, 3, kernel_size=1, bias=False)
    mixing.weight.data = torch.tensor(list(MIXTURES.values()))[:, :, None, None]
    with torch.no_grad():
        features = mixing(pixels.to_float(torch.from_numpy(image)[None]))[0]
    figure, panels = pictures.new(11.5, 3.4, panels=4)
    figure.suptitle("A 1x1 convolution mixes colours (white: more of the first); positions do not change")
    for axes in panels:
        axes.set_axis_off()
    panels[0].imshow(image)
    panels[0].set_title("image", fontsize=11)
    for axes, name, feature in zip(panels[1:], MIXTURES, features, strict=True):
        low, high = (0, 1) if name == "brightness" else (-0.5, 0.5)
        axes.imshow(feature.numpy(), cmap="gray", vmin=low, vmax=high)
        axes.set_title(name, fontsize=11)
    return figure
