"""A 1x1 convolution is a fully connected layer at every pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from cnnbench import pictures
from cnnbench.datasets.shapes import draw
from cnnbench.lab import Lesson, Numbers, lesson

MIXTURES = {
    # three features of a colour, as the weights of red, green and blue
    "brightness": (1 / 3, 1 / 3, 1 / 3),
    "red against green": (0.5, -0.5, 0.0),
    "blue against yellow": (-0.25, -0.25, 0.5),
}


@lesson(name="one-by-one", order=4)
def one_by_one() -> Lesson:
    """The same weights at every pixel, no neighbour seen: a change of channels."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(64, 16, kernel_size=1).double()
    connected = nn.Linear(64, 16).double()
    connected.load_state_dict({"weight": convolution.weight[:, :, 0, 0], "bias": convolution.bias})
    x = torch.rand(2, 64, 28, 28, dtype=torch.float64)
    at_every_pixel = connected(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    error = (convolution(x) - at_every_pixel).abs().max().item()

    def shuffled(features: torch.Tensor) -> torch.Tensor:
        return features.flatten(2)[..., order].view_as(features)

    order = torch.randperm(28 * 28)
    moved = (convolution(shuffled(x)) - shuffled(convolution(x))).abs().max().item()
    three = nn.Conv2d(64, 16, kernel_size=3, padding=1).double()
    moved_three = (three(shuffled(x)) - shuffled(three(x))).abs().max().item()
    claims = [
        (f"A 1x1 convolution equals nn.Linear applied at every pixel: largest difference {error:.1e}", error < 1e-12),
        (f"Shuffling the pixels shuffles its output and no more: {moved:.1e}", moved < 1e-12),
        (f"A 3x3 convolution sees neighbours, and differs then by up to {moved_three:.2f}", moved_three > 0.01),
    ]
    rows = [
        {
            "layer": f"{k}x{k}, 64 to 16 channels",
            "weights": 64 * 16 * k * k,
            "MACs on 28x28": 64 * 16 * k * k * 28 * 28,
            "fully connected between the same tensors, weights": 64 * 28 * 28 * 16 * 28 * 28,
        }
        for k in (1, 3, 5)
    ]
    pixels = draw(29, np.random.RandomState(6)).images[28]
    mixing = nn.Conv2d(3, 3, kernel_size=1, bias=False)
    mixing.weight.data = torch.tensor(list(MIXTURES.values()))[:, :, None, None]
    with torch.no_grad():
        features = mixing(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)[0]
    figure, panels = pictures.new(11.5, 3.4, panels=4)
    figure.suptitle("A 1x1 convolution mixes colours (white: more of the first); where things are stays as it is")
    for axes in panels:
        axes.set_axis_off()
    panels[0].imshow(pixels)
    panels[0].set_title("image", fontsize=11)
    for axes, name, feature in zip(panels[1:], MIXTURES, features, strict=True):
        range_: Any = (
            {"cmap": "gray", "vmin": 0, "vmax": 1}
            if name == "brightness"
            else {"cmap": "gray", "vmin": -0.5, "vmax": 0.5}
        )
        axes.imshow(feature.numpy(), **range_)
        axes.set_title(name, fontsize=11)
    return Lesson(
        "1x1 convolutions",
        "A kernel of one pixel has nothing to look at but the channels there. It is how Inception and ResNet "
        "bottlenecks make a tensor narrow before an expensive layer, and how a classifier is applied at every place "
        "at once.",
        claims,
        [Numbers("What one costs", rows)],
        figure,
        "A coloured shape, its brightness, and two differences of its colours",
    )
