"""From fully connected to convolution, by two constraints: share the weights over positions, keep them local."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench import pictures
from cnnbench.lab import Claim, Lesson, Numbers, Row, lesson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 6
MEGAPIXEL_SIDE = 1000


@dataclass(frozen=True)
class Step:
    """One step from fully connected to convolution."""

    name: str
    weights: Tensor
    """W[i, j, k, l]: of output (i, j) for pixel (k, l)."""
    count: int
    """Weights by formula, SIDE x SIDE to SIDE x SIDE."""
    count_megapixel: int
    """Weights by formula, 1 megapixel to 1 megapixel."""


@lesson(name="fc-to-conv", order=1)
def fc_to_conv() -> Lesson:
    """A convolution is a fully connected layer with shared, mostly zero weights."""
    torch.manual_seed(0)
    dense = _all_different((SIDE,) * 4)
    image = torch.randint(0, 10, (SIDE, SIDE)).double()
    shared = _from_offsets(_all_different((2 * SIDE - 1, 2 * SIDE - 1)))
    kernel = _all_different((3, 3))
    local = _from_offsets(F.pad(kernel, [SIDE - 2] * 4))
    steps = [
        Step("dense", dense, SIDE**4, MEGAPIXEL_SIDE**4),
        Step("shared over places", shared, (2 * SIDE - 1) ** 2, (2 * MEGAPIXEL_SIDE - 1) ** 2),
        Step("shared and local, 3x3", local, 9, 9),
    ]
    claims = [
        *_claims_of_dense(dense, image),
        Claim("With weights shared over places they do: it is equivariant to translation", _moves_along(shared, image)),
        Claim(
            "Shared and local, the dense layer is the 3x3 convolution, exactly",
            torch.equal(_apply(local, image), F.conv2d(image[None, None], kernel[None, None], padding=1)[0, 0]),
        ),
        _claim_of_channels(),
        Claim(
            "The matrix of each step holds as many different values as the formula says it has weights",
            all(_distinct(step.weights) == step.count for step in steps),
        ),
    ]
    return Lesson(
        "From fully connected to convolution",
        "A fully connected layer gives every output a weight for every pixel. Two constraints turn it into a "
        "convolution: an object may be anywhere, so the weights depend on the distance alone; and what matters is "
        "near, so weights far away are zero.",
        claims,
        [Numbers("Weights at each step", _rows(steps))],
        _draw(steps),
        "Three weight matrices: full, constant along diagonals, and zero but for a few diagonals",
    )


def _claims_of_dense(dense: Tensor, image: Tensor) -> list[Claim]:
    return [
        Claim(
            "Re-indexing V[i,j,a,b] = W[i,j,i+a,j+b] changes no output of the dense layer",
            torch.equal(_reindexed(dense, image), torch.einsum("ijkl,kl->ij", dense, image)),
        ),
        Claim(
            "The dense layer treats a moved image as another image: its outputs do not move along",
            not _moves_along(dense, image),
        ),
    ]


def _moves_along(weights: Tensor, image: Tensor) -> bool:
    """Whether the outputs of a layer move by one pixel when its input does."""
    original = image.clone()
    original[:, -1] = 0  # so that moving it by one pixel to the right loses nothing
    moved = torch.roll(original, 1, dims=1)
    return torch.equal(_apply(weights, moved)[:, 1:], _apply(weights, original)[:, :-1])


def _claim_of_channels() -> Claim:
    weight, pixels = _all_different((3, 2, 3, 3)), torch.randint(0, 10, (2, SIDE, SIDE)).double()
    matrix = dense_matrix(weight, SIDE, padding=1, stride=2)
    strided = F.conv2d(pixels[None], weight, padding=1, stride=2).flatten()
    return Claim(
        "The same holds for the dense matrix of a convolution of 2 channels to 3 with stride 2 and padding 1: "
        f"{matrix.shape[0]} x {matrix.shape[1]}, {int((matrix != 0).sum())} entries not zero, {_distinct(matrix)} "
        "values",
        torch.equal(matrix @ pixels.flatten(), strided),
    )


def _rows(steps: list[Step]) -> list[Row]:
    rows: list[Row] = [
        {
            "step": step.name,
            f"weights, {SIDE}x{SIDE} to {SIDE}x{SIDE}": step.count,
            "different values found in the matrix": _distinct(step.weights),
            "entries not zero": int((step.weights != 0).sum()),
            "weights, 1 megapixel to 1 megapixel": step.count_megapixel,
        }
        for step in steps
    ]
    hidden_units: Row = {
        "step": "dense, 1 megapixel to 1,000 hidden units",
        "weights, 1 megapixel to 1 megapixel": MEGAPIXEL_SIDE**2 * 1000,
    }
    return [*rows, hidden_units]


def dense_matrix(weight: Tensor, side: int, *, padding: int, stride: int) -> Tensor:
    """The matrix M with M @ x.flatten() == conv2d(x, weight).flatten(), for x of `(C_in, side, side)`.

    Shapes: weight `(C_out, C_in, k, k)` -> `(C_out * out * out, C_in * side * side)`.
    """
    c_out, c_in, k, _ = weight.shape
    out = (side + 2 * padding - k) // stride + 1
    matrix = torch.zeros(c_out, out, out, c_in, side, side, dtype=weight.dtype)
    for i in range(out):
        for j in range(out):
            for a in range(k):
                for b in range(k):
                    row, column = i * stride - padding + a, j * stride - padding + b
                    if 0 <= row < side and 0 <= column < side:
                        matrix[:, i, j, :, row, column] = weight[:, :, a, b]
    return matrix.reshape(c_out * out * out, c_in * side * side)


def _apply(weights: Tensor, image: Tensor) -> Tensor:
    return torch.einsum("ijkl,kl->ij", weights, image)


def _all_different(shape: tuple[int, ...]) -> Tensor:
    """Integers 1, 2, ... in random order: sums of them are exact in float64, and no two weights are equal."""
    return 1 + torch.randperm(math.prod(shape)).view(shape).double()


def _distinct(weights: Tensor) -> int:
    """The number of different values other than zero."""
    return len(set(weights.flatten().tolist()) - {0.0})


def _reindexed(dense: Tensor, image: Tensor) -> Tensor:
    """H[i,j] = sum over (a, b) of V[i,j,a,b] X[i+a,j+b], with V[i,j,a,b] = W[i,j,i+a,j+b]."""
    hidden = torch.zeros_like(image)
    for i in range(SIDE):
        for j in range(SIDE):
            for a in range(-i, SIDE - i):
                for b in range(-j, SIDE - j):
                    hidden[i, j] += dense[i, j, i + a, j + b] * image[i + a, j + b]
    return hidden


def _from_offsets(values: Tensor) -> Tensor:
    """W[i,j,k,l] = V[k-i, l-j], from V laid out with the offset (0, 0) in its middle."""
    place = torch.arange(SIDE)
    offset = place[None, :] - place[:, None] + SIDE - 1  # i, k
    return values[offset[:, None, :, None], offset[None, :, None, :]]


def _draw(steps: list[Step]) -> Figure:
    figure, panels = pictures.new(11.5, 4.6, panels=3)
    figure.suptitle("The weights of one layer as a matrix: a row is an output, a column a pixel")
    for axes, step in zip(panels, steps, strict=True):
        axes.grid(visible=False)
        matrix = step.weights.reshape(SIDE**2, SIDE**2)
        axes.imshow(matrix.where(matrix != 0, torch.nan).numpy(), cmap="viridis")
        axes.set_title(f"{step.name}: {step.count:,} weights", fontsize=11)
    return figure
