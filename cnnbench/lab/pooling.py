"""Pooling: per channel, without weights, and a little blind to small shifts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench import pictures
from cnnbench.datasets.choice import open_choice
from cnnbench.lab import Lesson, Numbers, lesson
from cnnbench.records.schema import DataChoice


@lesson(name="pooling", order=5)
def pooling() -> Lesson:
    """What max and average pooling compute, pass back, and forget."""
    torch.manual_seed(0)
    pixels = torch.from_numpy(digits(200)).permute(0, 3, 1, 2).double() / 255
    moved = torch.roll(pixels, 1, dims=3)  # digits have empty borders: nothing is lost
    pools: dict[str, nn.Module] = {"none": nn.Identity()} | {
        f"{kind} {k}x{k}": pool(k)
        for k in (2, 4, 7)
        for kind, pool in (("max", nn.MaxPool2d), ("average", nn.AvgPool2d))
    }
    pools["global average"] = nn.AdaptiveAvgPool2d(1)
    changes = {name: _change(pool, pixels, moved) for name, pool in pools.items()}
    rows = [
        {
            "pooling": name,
            "values kept of 784": pool(pixels[:1]).numel(),
            "weights": sum(p.numel() for p in pool.parameters()),
            "change under a shift of one pixel": changes[name],
        }
        for name, pool in pools.items()
    ]
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    to_max, to_all = (_passed_back(pool, x) for pool in (nn.MaxPool2d(2), nn.AvgPool2d(2)))
    largest = F.max_pool2d(x, 2).repeat_interleave(2, 2).repeat_interleave(2, 3) == x
    alone = torch.cat([F.max_pool2d(x[:, c : c + 1], 2) for c in range(3)], dim=1)
    claims = [
        ("It works on each channel by itself: channels out are channels in", torch.equal(alone, F.max_pool2d(x, 2))),
        (
            "Max pooling passes the gradient to the largest of each window alone, whole",
            torch.equal(to_max, largest.double()),
        ),
        ("Average pooling spreads it evenly, a quarter each", torch.equal(to_all, torch.full_like(x, 0.25))),
        (
            f"A shift by one pixel changes real digits by {changes['none']:.0%}; after 4x4 max pooling by "
            f"{changes['max 4x4']:.0%}, after 4x4 average pooling by {changes['average 4x4']:.0%}",
            changes["none"] > changes["max 4x4"] > 0 and changes["none"] > changes["average 4x4"] > 0,
        ),
        (
            f"Averaged over all positions nothing changes, as nothing leaves the image "
            f"({changes['global average']:.1e}): the place is forgotten",
            changes["global average"] < 1e-12,
        ),
    ]
    figure, panels = pictures.new(11.5, 3.4, panels=5)
    figure.suptitle("A real digit, pooled; and by how much 200 digits change, on average, when moved by one pixel")
    for axes, name in zip(panels, ("none", "max 2x2", "average 2x2", "max 4x4", "average 4x4"), strict=True):
        axes.set_axis_off()
        axes.imshow(pools[name](pixels[7:8])[0, 0].numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"{name}: {changes[name]:.0%}", fontsize=10)
    return Lesson(
        "Pooling",
        "200 real digits of mnist5k; the change is the norm of the difference over the norm of the features, for the "
        "digit moved one pixel to the right.",
        claims,
        [Numbers("What stays of a digit", rows)],
        figure,
        "A digit at five resolutions, by max and by average pooling",
    )


def digits(count: int) -> np.ndarray:
    """The first validation digits of mnist5k, `(count, 28, 28, 1)` uint8."""
    return open_choice(DataChoice(dataset="mnist5k")).val.images[:count]


def _change(pool: nn.Module, pixels: Tensor, moved: Tensor) -> float:
    features = pool(pixels)
    return float(((pool(moved) - features).flatten(1).norm(dim=1) / features.flatten(1).norm(dim=1)).mean())


def _passed_back(pool: nn.Module, x: Tensor) -> Tensor:
    """The gradient at the input for a gradient of one at every output."""
    (gradient,) = torch.autograd.grad(pool(x).sum(), x)
    return gradient
