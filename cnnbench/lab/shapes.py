"""Shapes: how large the map is that a convolution or pooling makes."""

from __future__ import annotations

from itertools import product

import torch
from torch import nn
from torch.nn import functional as F

from cnnbench import pictures
from cnnbench.lab import Lesson, Numbers, lesson


def side_after(n: int, k: int, p: int = 0, s: int = 1) -> int:
    """floor((n + 2p - k) / s) + 1: the side of the map that a kernel of `k` makes of a map of `n`."""
    return (n + 2 * p - k) // s + 1


@lesson(name="shapes", order=2)
def shapes() -> Lesson:
    """floor((n + 2p - k) / s) + 1, against torch over a grid; and how many 5x5 layers 224 pixels last."""
    grid = [c for c in product(range(1, 33), range(1, 8), range(4), range(1, 5)) if c[0] + 2 * c[2] >= c[1]]
    with torch.device("meta"):
        wrong = [c for c in grid if tuple(_convolved(*c)) != (1, 1, side_after(*c), side_after(*c))]
        pools = [c for c in grid if c[2] <= c[1] // 2]  # torch pads a pooling by at most half its kernel
        wrong_pools = [c for c in pools if tuple(_pooled(*c)) != (1, 3, side_after(*c), side_after(*c))]
        same = [k for k in range(1, 32, 2) if side_after(28, k, (k - 1) // 2) != 28]
        odd = nn.Conv2d(2, 3, kernel_size=(3, 5), padding=(1, 2))
        odd_shape = tuple(odd(torch.empty(4, 2, 3, 5)).shape)
    pooled = F.max_pool2d(torch.arange(32.0).view(1, 2, 4, 4), 3, padding=1, stride=(2, 1))
    expected = [[[5, 6, 7, 7], [13, 14, 15, 15]], [[21, 22, 23, 23], [29, 30, 31, 31]]]
    walks = {n: _walk(n, 5) for n in (32, 64, 224)}
    layers = walks[224].index(4)
    assert odd.bias is not None
    bias_shape = tuple(odd.bias.shape)
    claims = [
        (f"The formula gives torch's shape for all {len(grid):,} convolutions of a grid of n, k, p, s", not wrong),
        (f"It gives it for all {len(pools):,} poolings, whose channels out are the channels in", not wrong_pools),
        ('"Same" padding p = (k - 1) / 2 keeps 28 pixels for every odd kernel up to 31', not same),
        (
            "Conv2d(2, 3, kernel_size=(3, 5), padding=(1, 2)) keeps (4, 2, 3, 5) at (4, 3, 3, 5); weight (3, 2, 3, 5), "
            "bias (3)",
            (odd_shape, tuple(odd.weight.shape), bias_shape) == ((4, 3, 3, 5), (3, 2, 3, 5), (3,)),
        ),
        ("MaxPool2d(3, padding=1, stride=(2, 1)) of 0..31 is what one counts by hand", pooled[0].tolist() == expected),
        (
            f"32 pixels under valid 5x5 convolutions: {walks[32][1]} after the first, {walks[32][7]} after the seventh",
            (walks[32][1], walks[32][7]) == (28, 4),
        ),
        (
            f"224 pixels: 4x4 after {layers} layers, (224 - 4) / 4; after the often quoted 44 it is still "
            f"{walks[224][44]}",
            layers == 55,
        ),
    ]
    rows = [
        {"n": n, "k": k, "p": p, "s": s, "formula": side_after(n, k, p, s), "torch": _convolved(n, k, p, s)[-1]}
        for n, k, p, s in ((28, 5, 0, 1), (28, 3, 1, 1), (32, 3, 1, 2), (224, 7, 3, 2), (224, 11, 2, 4), (112, 3, 1, 2))
    ]
    figure, (axes,) = pictures.new(9, 4.8)
    for colour, (n, walk) in zip(pictures.COLOURS, walks.items(), strict=False):
        axes.plot(range(len(walk)), walk, "o-", ms=3, color=colour, label=f"{n} pixels: {len(walk) - 1} layers")
    axes.set_xlabel("valid 5x5 convolutions")
    axes.set_ylabel("side of the map, pixels")
    axes.set_title("Every valid 5x5 convolution takes four pixels")
    axes.legend()
    return Lesson(
        "Shapes",
        "A kernel of k on n pixels, padded by p on each side and moved by s, makes a map of floor((n + 2p - k) / s) + "
        "1.",
        claims,
        [Numbers("Convolutions of known networks", rows)],
        figure,
        "Three falling lines: the side of the map against the number of 5x5 convolutions",
    )


def _convolved(n: int, k: int, p: int, s: int) -> torch.Size:
    image, weight = torch.empty(1, 1, n, n, device="meta"), torch.empty(1, 1, k, k, device="meta")
    return F.conv2d(image, weight, padding=p, stride=s).shape


def _pooled(n: int, k: int, p: int, s: int) -> torch.Size:
    return F.max_pool2d(torch.empty(1, 3, n, n), k, stride=s, padding=p).shape


def _walk(n: int, k: int) -> list[int]:
    """Sides of the map after 0, 1, 2, ... valid convolutions, as long as the kernel fits."""
    sides = [n]
    while sides[-1] >= k:
        sides.append(side_after(sides[-1], k))
    return sides
