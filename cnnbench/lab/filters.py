"""Hand-made kernels on a real photograph: what a first convolution could learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench import pictures
from cnnbench.lab import Claim, Lesson, Numbers, Row, lesson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KERNELS = {
    "vertical edges (Sobel)": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "horizontal edges (Sobel)": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
    "all edges (Laplace)": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
    "blur": [[1 / 9] * 3] * 3,
    "sharpen": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
}
VERTICAL, HORIZONTAL, LAPLACE = list(KERNELS)[:3]


@lesson(name="filters", order=9)
def filters() -> Lesson:
    """Edge, blur and sharpening kernels, as convolutions, on a photograph."""
    image = photograph()
    weight = torch.tensor(list(KERNELS.values()), dtype=torch.float64)[:, None]  # 5, 1, 3, 3
    features = dict(zip(KERNELS, F.conv2d(image[None, None], weight, padding=1)[0], strict=True))
    steps = {name: _step_responses(kernel) for name, kernel in zip(KERNELS, weight, strict=True)}
    rows: list[Row] = [
        {
            "kernel": name,
            "sum of weights": float(kernel.sum()),
            "answer to a vertical step": steps[name][0],
            "to a horizontal step": steps[name][1],
            "standard deviation on the photograph": float(features[name].std()),
        }
        for name, kernel in zip(KERNELS, weight, strict=True)
    ]
    return Lesson(
        "Filters",
        "The photograph of Grace Hopper that comes with matplotlib (public domain), gray, a quarter of its side. A "
        "convolution layer may learn such kernels; here they are set by hand.",
        [_claim_of_level(weight), *_claims_of_steps(steps), *_claims_of_sobel(weight, image)],
        [Numbers("Kernels", rows)],
        _draw({"photograph": image, **features}),
        "A photograph, its vertical edges, horizontal edges, all edges, blurred and sharpened",
    )


def photograph() -> Tensor:
    """A real photograph `(150, 128)`, gray in [0, 1]."""
    from matplotlib import cbook
    from PIL import Image

    with Image.open(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))) as image:
        return torch.from_numpy(np.asarray(image.convert("L").resize((128, 150)), np.float64) / 255)


def _step_responses(kernel: Tensor) -> tuple[float, float]:
    """The largest responses to a vertical and to a horizontal step from 0 to 1, minus the response to a constant."""
    step = torch.zeros(1, 1, 10, 10, dtype=torch.float64)
    step[..., 5:] = 1
    responses = []
    for image in (step, step.mT):
        response = F.conv2d(image, kernel[None])[0, 0]
        constant = image[0, 0, 1:-1, 1:-1] * kernel.sum()
        responses.append(float((response - constant).abs().max()))
    return responses[0], responses[1]


def _claim_of_level(weight: Tensor) -> Claim:
    flat = F.conv2d(torch.full((1, 1, 9, 9), 0.7, dtype=torch.float64), weight)[0].abs().amax(dim=(1, 2))
    return Claim(
        "Where nothing changes, the edge kernels respond with 0, and blur and sharpening leave the level",
        bool((flat[:3] < 1e-12).all() and ((flat[3:] - 0.7).abs() < 1e-12).all()),
    )


def _claims_of_steps(steps: dict[str, tuple[float, float]]) -> list[Claim]:
    """Claims about the responses to a vertical and to a horizontal step, by kernel."""
    return [
        Claim(
            f"The Sobel kernel for vertical edges responds to a vertical step with {steps[VERTICAL][0]:g} and to a "
            f"horizontal one with {steps[VERTICAL][1]:g}; its transpose the other way round",
            steps[VERTICAL] == (4, 0) and steps[HORIZONTAL] == (0, 4),
        ),
        Claim("The Laplace kernel responds to both alike", steps[LAPLACE][0] == steps[LAPLACE][1] > 0),
    ]


def _claims_of_sobel(weight: Tensor, image: Tensor) -> list[Claim]:
    vertical, horizontal = weight[:1], weight[1:2]
    separable = torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([-1.0, 0, 1])).double()
    transposed = F.conv2d(image.T[None, None], vertical, padding=1)[0, 0].T
    return [
        Claim(
            "Sobel's kernel is an outer product: smoothing (1, 2, 1) along the edge, difference (-1, 0, 1) across it",
            torch.equal(vertical[0, 0], separable),
        ),
        Claim(
            "The kernel for horizontal edges is the one for vertical edges on the transposed image",
            torch.allclose(transposed, F.conv2d(image[None, None], horizontal, padding=1)[0, 0]),
        ),
    ]


def _draw(maps: dict[str, Tensor]) -> Figure:
    figure, panels = pictures.new(11.5, 7.2, panels=6, rows=2)
    for axes, (name, values) in zip(panels, maps.items(), strict=True):
        axes.set_axis_off()
        cmap, low, high = ("RdBu", -1.5, 1.5) if "edges" in name else ("gray", 0, 1)
        axes.imshow(values.numpy(), cmap=cmap, vmin=low, vmax=high)
        axes.set_title(name, fontsize=11)
    return figure
