"""From fully connected to convolution, by two constraints: share the weights over places, keep them local."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench import pictures
from cnnbench.lab import Lesson, Numbers, lesson

SIDE = 6
MEGAPIXEL_SIDE = 1000


@lesson(name="fc-to-conv", order=1)
def fc_to_conv() -> Lesson:
    """A convolution is a fully connected layer with shared, mostly zero weights."""
    torch.manual_seed(0)
    dense = _all_different((SIDE,) * 4)  # W[i, j, k, l]
    image = torch.randint(0, 10, (SIDE, SIDE)).double()
    shared = _from_offsets(_all_different((2 * SIDE - 1, 2 * SIDE - 1)))
    kernel = _all_different((3, 3))
    local = _from_offsets(F.pad(kernel, [SIDE - 2] * 4))

    hidden = torch.einsum("ijkl,kl->ij", dense, image)
    thing = image.clone()
    thing[:, -1] = 0  # so that moving it by one pixel to the right loses nothing
    moved = torch.roll(thing, 1, dims=1)
    convolved = F.conv2d(image[None, None], kernel[None, None], padding=1)[0, 0]
    weight, pixels = _all_different((3, 2, 3, 3)), torch.randint(0, 10, (2, SIDE, SIDE)).double()
    matrix = dense_matrix(weight, SIDE, padding=1, stride=2)
    strided = F.conv2d(pixels[None], weight, padding=1, stride=2).flatten()
    claims = [
        (
            "Re-indexing V[i,j,a,b] = W[i,j,i+a,j+b] changes no output of the dense layer",
            torch.equal(_reindexed(dense, image), hidden),
        ),
        (
            "The dense layer treats a moved image as another image: its outputs do not move along",
            not torch.equal(_apply(dense, moved)[:, 1:], _apply(dense, thing)[:, :-1]),
        ),
        (
            "With weights shared over places they do: it is equivariant to translation",
            torch.equal(_apply(shared, moved)[:, 1:], _apply(shared, thing)[:, :-1]),
        ),
        (
            "Shared and local, the dense layer is the 3x3 convolution, exactly",
            torch.equal(_apply(local, image), convolved),
        ),
        (
            "The same holds for the dense matrix of a convolution of 2 channels to 3 with stride 2 and padding 1: "
            f"{matrix.shape[0]} x {matrix.shape[1]}, {int((matrix != 0).sum())} entries not zero, {_different(matrix)} "
            "values",
            torch.equal(matrix @ pixels.flatten(), strided),
        ),
    ]
    small, large = SIDE**2, MEGAPIXEL_SIDE**2
    offsets = 2 * MEGAPIXEL_SIDE - 1
    steps = [
        ("dense", dense, small**2, large**2),
        ("shared over places", shared, (2 * SIDE - 1) ** 2, offsets**2),
        ("shared and local, 3x3", local, 9, 9),
    ]
    rows = [
        {
            "step": step,
            f"weights, {SIDE}x{SIDE} to {SIDE}x{SIDE}": small_count,
            "different values found in the matrix": _different(weights),
            "entries not zero": int((weights != 0).sum()),
            "weights, 1 megapixel to 1 megapixel": large_count,
        }
        for step, weights, small_count, large_count in steps
    ]
    rows.append(
        {"step": "dense, 1 megapixel to 1,000 hidden units", "weights, 1 megapixel to 1 megapixel": large * 1000}
    )
    alike = all(
        row["different values found in the matrix"] == count for row, (_, _, count, _) in zip(rows, steps, strict=False)
    )
    claims.append(("The matrix of each step holds as many different values as the formula says it has weights", alike))
    figure, panels = pictures.new(11.5, 4.6, panels=3)
    figure.suptitle("The weights of one layer as a matrix: a row is an output, a column a pixel")
    for axes, (step, tensor, count, _) in zip(panels, steps, strict=True):
        axes.grid(visible=False)
        drawn = tensor.reshape(small, small)
        axes.imshow(drawn.where(drawn != 0, torch.nan).numpy(), cmap="viridis")
        axes.set_title(f"{step}: {count:,} weights", fontsize=11)
    return Lesson(
        "From fully connected to convolution",
        "A fully connected layer gives every output a weight for every pixel. Two constraints turn it into a "
        "convolution: an object may be anywhere, so the weights depend on the distance alone; and what matters is "
        "near, so weights far away are zero.",
        claims,
        [Numbers("Weights at each step", rows)],
        figure,
        "Three weight matrices: full, constant along diagonals, and zero but for a few diagonals",
    )


def dense_matrix(weight: Tensor, side: int, padding: int, stride: int) -> Tensor:
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
    """Whole numbers 1, 2, ... in random order: sums of them are exact in float64, and no two weights look alike."""
    return 1 + torch.randperm(math.prod(shape)).view(shape).double()


def _different(weights: Tensor) -> int:
    """How many values other than zero there are."""
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
