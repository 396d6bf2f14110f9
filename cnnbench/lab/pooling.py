"""Pooling: per channel, without weights, and partly insensitive to small shifts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench import pictures, pixels
from cnnbench.datasets.choice import open_choice
from cnnbench.lab import Claim, Lesson, Numbers, Row, lesson
from cnnbench.records.schema import DataChoice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = ("none", "max 2x2", "average 2x2", "max 4x4", "average 4x4")
"""Poolings in the figure."""
SHOWN_DIGIT = 7


@lesson(name="pooling", order=5)
def pooling() -> Lesson:
    """What max and average pooling compute, pass back, and forget."""
    torch.manual_seed(0)
    images = pixels.to_float(torch.from_numpy(digits(200)), torch.float64)
    pools = _pools()
    changes = {name: _change(pool, images) for name, pool in pools.items()}
    rows: list[Row] = [
        {
            "pooling": name,
            "values kept of 784": pool(images[:1]).numel(),
            "weights": sum(p.numel() for p in pool.parameters()),
            "change under a shift of one pixel": changes[name],
        }
        for name, pool in pools.items()
    ]
    return Lesson(
        "Pooling",
        "200 real digits of mnist5k; the change is the norm of the difference over the norm of the features, for the "
        "digit moved one pixel to the right.",
        [*_claims_of_gradients(), *_claims_of_shifts(changes)],
        [Numbers("What stays of a digit", rows)],
        _draw({name: pools[name](images[SHOWN_DIGIT : SHOWN_DIGIT + 1])[0, 0] for name in SHOWN}, changes),
        "A digit at five resolutions, by max and by average pooling",
    )


def digits(count: int) -> np.ndarray:
    """The first validation digits of mnist5k, `(count, 28, 28, 1)` uint8."""
    return open_choice(DataChoice(dataset="mnist5k")).val.images[:count]


def _pools() -> dict[str, nn.Module]:
    pools: dict[str, nn.Module] = {"none": nn.Identity()}
    for k in (2, 4, 7):
        pools |= {f"max {k}x{k}": nn.MaxPool2d(k), f"average {k}x{k}": nn.AvgPool2d(k)}
    return pools | {"global average": nn.AdaptiveAvgPool2d(1)}


def _change(pool: nn.Module, images: Tensor) -> float:
    """Mean relative change of the features when the images `(N, 1, H, W)` move by one pixel to the right."""
    moved = torch.roll(images, 1, dims=3)  # digits have empty borders: nothing is lost
    features = pool(images)
    return float(((pool(moved) - features).flatten(1).norm(dim=1) / features.flatten(1).norm(dim=1)).mean())


def _claims_of_gradients() -> list[Claim]:
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    to_max, to_all = (_passed_back(pool, x) for pool in (nn.MaxPool2d(2), nn.AvgPool2d(2)))
    largest = F.max_pool2d(x, 2).repeat_interleave(2, 2).repeat_interleave(2, 3) == x
    by_channel = torch.cat([F.max_pool2d(x[:, c : c + 1], 2) for c in range(3)], dim=1)
    return [
        Claim(
            "It works on each channel separately: as many channels out as in",
            torch.equal(by_channel, F.max_pool2d(x, 2)),
        ),
        Claim(
            "Max pooling passes the gradient to the largest of each window alone, undivided",
            torch.equal(to_max, largest.double()),
        ),
        Claim(
            "Average pooling spreads it evenly, a quarter each",
            torch.equal(to_all, torch.full_like(x, 0.25)),
        ),
    ]


def _passed_back(pool: nn.Module, x: Tensor) -> Tensor:
    """The gradient at the input for a gradient of one at every output."""
    (gradient,) = torch.autograd.grad(pool(x).sum(), x)
    return gradient


def _claims_of_shifts(changes: dict[str, float]) -> list[Claim]:
    return [
        Claim(
            f"A shift by one pixel changes real digits by {changes['none']:.0%}; after 4x4 max pooling by "
            f"{changes['max 4x4']:.0%}, after 4x4 average pooling by {changes['average 4x4']:.0%}",
            changes["none"] > changes["max 4x4"] > 0 and changes["none"] > changes["average 4x4"] > 0,
        ),
        Claim(
            f"Averaged over all positions nothing changes, as nothing leaves the image "
            f"({changes['global average']:.1e}): the position is lost",
            changes["global average"] < 1e-12,
        ),
    ]


def _draw(maps: dict[str, Tensor], changes: dict[str, float]) -> Figure:
    figure, panels = pictures.new(11.5, 3.4, panels=len(maps))
    figure.suptitle("A real digit, pooled; and by how much 200 digits change, on average, when moved by one pixel")
    for axes, (name, values) in zip(panels, maps.items(), strict=True):
        axes.set_axis_off()
        axes.imshow(values.numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"{name}: {changes[name]:.0%}", fontsize=10)
    return figure
