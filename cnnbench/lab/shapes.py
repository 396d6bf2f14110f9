"""Shapes: the size of the map that a convolution or pooling computes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from cnnbench import pictures
from cnnbench.lab import Claim, Lesson, Numbers, Row, lesson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POOLED_BY_HAND = [[[5, 6, 7, 7], [13, 14, 15, 15]], [[21, 22, 23, 23], [29, 30, 31, 31]]]
"""MaxPool2d(3, padding=1, stride=(2, 1)) of 0..31 as `(2, 4, 4)`, counted by hand."""

KNOWN = ((28, 5, 0, 1), (28, 3, 1, 1), (32, 3, 1, 2), (224, 7, 3, 2), (224, 11, 2, 4), (112, 3, 1, 2))
"""n, k, p and s of convolutions in known networks."""


@dataclass(frozen=True)
class Window:
    """A square kernel on a square map."""

    n: int
    """Side of the map."""
    k: int
    """Side of the kernel."""
    p: int = 0
    """Padding on each side."""
    s: int = 1
    """Stride."""


def side_after(window: Window) -> int:
    """floor((n + 2p - k) / s) + 1: the side of the map that the kernel computes."""
    return (window.n + 2 * window.p - window.k) // window.s + 1


@lesson(name="shapes", order=2)
def shapes() -> Lesson:
    """floor((n + 2p - k) / s) + 1, against torch over a grid; and how many 5x5 layers 224 pixels last."""
    walks = {n: sides_of_stack(n, kernel=5) for n in (32, 64, 224)}
    rows: list[Row] = [
        {"n": w.n, "k": w.k, "p": w.p, "s": w.s, "formula": side_after(w), "torch": _convolved(w)[-1]}
        for w in (Window(*numbers) for numbers in KNOWN)
    ]
    return Lesson(
        "Shapes",
        "A kernel of k on n pixels, padded by p on each side and moved by s, computes a map of floor((n + 2p - k) / s) "
        "+ 1.",
        [*_claims_of_grid(), *_claims_of_examples(), *_claims_of_stacks(walks)],
        [Numbers("Convolutions of known networks", rows)],
        _draw(walks),
        "Three falling lines: the side of the map against the number of 5x5 convolutions",
    )


def _claims_of_grid() -> list[Claim]:
    """The formula against the shapes that torch computes."""
    grid = [Window(*numbers) for numbers in product(range(1, 33), range(1, 8), range(4), range(1, 5))]
    convolutions = [w for w in grid if w.n + 2 * w.p >= w.k]
    pools = [w for w in convolutions if w.p <= w.k // 2]  # torch pads a pooling by at most half its kernel
    with torch.device("meta"):
        convolutions_agree = all(_convolved(w) == (1, 1, side_after(w), side_after(w)) for w in convolutions)
        pools_agree = all(_pooled(w) == (1, 3, side_after(w), side_after(w)) for w in pools)
    same = all(side_after(Window(28, k, (k - 1) // 2)) == 28 for k in range(1, 32, 2))
    return [
        Claim(
            f"The formula gives torch's shape for all {len(convolutions):,} convolutions of a grid of n, k, p, s",
            convolutions_agree,
        ),
        Claim(
            f"It gives that of all {len(pools):,} poolings, too, which keep the number of channels",
            pools_agree,
        ),
        Claim('"Same" padding p = (k - 1) / 2 keeps 28 pixels for every odd kernel up to 31', same),
    ]


def _claims_of_examples() -> list[Claim]:
    """A kernel that is not square, and a pooling counted by hand."""
    with torch.device("meta"):
        odd = nn.Conv2d(2, 3, kernel_size=(3, 5), padding=(1, 2))
        odd_shape = tuple(odd(torch.empty(4, 2, 3, 5)).shape)
    assert odd.bias is not None
    shapes_of_layer = (odd_shape, tuple(odd.weight.shape), tuple(odd.bias.shape))
    pooled = F.max_pool2d(torch.arange(32.0).view(1, 2, 4, 4), 3, padding=1, stride=(2, 1))
    return [
        Claim(
            "Conv2d(2, 3, kernel_size=(3, 5), padding=(1, 2)) keeps (4, 2, 3, 5) at (4, 3, 3, 5); weight (3, 2, 3, 5), "
            "bias (3)",
            shapes_of_layer == ((4, 3, 3, 5), (3, 2, 3, 5), (3,)),
        ),
        Claim(
            "MaxPool2d(3, padding=1, stride=(2, 1)) of 0..31 is the result counted by hand",
            pooled[0].tolist() == POOLED_BY_HAND,
        ),
    ]


def _claims_of_stacks(walks: dict[int, list[int]]) -> list[Claim]:
    layers = walks[224].index(4)
    return [
        Claim(
            f"32 pixels under valid 5x5 convolutions: {walks[32][1]} after the first, {walks[32][7]} after the seventh",
            (walks[32][1], walks[32][7]) == (28, 4),
        ),
        Claim(
            f"224 pixels: 4x4 after {layers} layers, (224 - 4) / 4; after the often quoted 44 it is still "
            f"{walks[224][44]}",
            layers == 55,
        ),
    ]


def _convolved(window: Window) -> torch.Size:
    image = torch.empty(1, 1, window.n, window.n, device="meta")
    weight = torch.empty(1, 1, window.k, window.k, device="meta")
    return F.conv2d(image, weight, padding=window.p, stride=window.s).shape


def _pooled(window: Window) -> torch.Size:
    image = torch.empty(1, 3, window.n, window.n)
    return F.max_pool2d(image, window.k, stride=window.s, padding=window.p).shape


def sides_of_stack(side: int, *, kernel: int) -> list[int]:
    """Sides of the map after 0, 1, 2, ... valid convolutions, as long as the kernel fits."""
    sides = [side]
    while sides[-1] >= kernel:
        sides.append(side_after(Window(sides[-1], kernel)))
    return sides


def _draw(walks: dict[int, list[int]]) -> Figure:
    figure, (axes,) = pictures.new(9, 4.8)
    for colour, (n, walk) in zip(pictures.COLOURS, walks.items(), strict=False):
        axes.plot(range(len(walk)), walk, "o-", ms=3, color=colour, label=f"{n} pixels: {len(walk) - 1} layers")
    axes.set_xlabel("valid 5x5 convolutions")
    axes.set_ylabel("side of the map, pixels")
    axes.set_title("Every valid 5x5 convolution takes four pixels")
    axes.legend()
    return figure
