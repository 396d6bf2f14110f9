"""Hand-made kernels on a real photograph: what a first convolution could learn."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench import pictures
from cnnbench.lab import Lesson, Numbers, lesson

KERNELS = {
    "vertical edges (Sobel)": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "horizontal edges (Sobel)": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
    "all edges (Laplace)": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
    "blur": [[1 / 9] * 3] * 3,
    "sharpen": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
}


@lesson(name="filters", order=9)
def filters() -> Lesson:
    """Edge, blur and sharpening kernels, as convolutions, on a photograph."""
    image = photograph()
    weight = torch.tensor(list(KERNELS.values()), dtype=torch.float64)[:, None]  # 5, 1, 3, 3
    features = dict(zip(KERNELS, F.conv2d(image[None, None], weight, padding=1)[0], strict=True))
    flat = F.conv2d(torch.full((1, 1, 9, 9), 0.7, dtype=torch.float64), weight)[0].abs().amax(dim=(1, 2))
    steps = {name: _answers(kernel) for name, kernel in zip(KERNELS, weight, strict=True)}
    vertical, horizontal, laplace = list(KERNELS)[:3]
    separable = torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([-1.0, 0, 1])).double()
    turned = F.conv2d(image.T[None, None], weight[:1], padding=1)[0, 0].T
    claims = [
        (
            "Where nothing changes, the edge kernels answer nothing, and blur and sharpening leave the level",
            bool((flat[:3] < 1e-12).all() and ((flat[3:] - 0.7).abs() < 1e-12).all()),
        ),
        (
            f"The Sobel kernel for vertical edges answers a vertical step with {steps[vertical][0]:g} and a horizontal "
            f"one with {steps[vertical][1]:g}; the other way round for its turned twin",
            steps[vertical] == (4, 0) and steps[horizontal] == (0, 4),
        ),
        ("The Laplace kernel answers both alike", steps[laplace][0] == steps[laplace][1] > 0),
        (
            "Sobel's kernel is an outer product: smoothing (1, 2, 1) along the edge, difference (-1, 0, 1) across it",
            torch.equal(weight[0, 0], separable),
        ),
        (
            "The kernel for horizontal edges is the one for vertical edges on the image turned over its diagonal",
            torch.allclose(turned, features[horizontal]),
        ),
    ]
    rows = [
        {
            "kernel": name,
            "sum of weights": float(kernel.sum()),
            "answer to a vertical step": steps[name][0],
            "to a horizontal step": steps[name][1],
            "standard deviation on the photograph": float(features[name].std()),
        }
        for name, kernel in zip(KERNELS, weight, strict=True)
    ]
    figure, panels = pictures.new(11.5, 7.2, panels=6, rows=2)
    for axes, (name, values) in zip(panels, {"photograph": image, **features}.items(), strict=True):
        axes.set_axis_off()
        edges = "edges" in name
        axes.imshow(
            values.numpy(), cmap="RdBu" if edges else "gray", vmin=-1.5 if edges else 0, vmax=1.5 if edges else 1
        )
        axes.set_title(name, fontsize=11)
    return Lesson(
        "Filters",
        "The photograph of Grace Hopper that comes with matplotlib (public domain), gray, a quarter of its side. A "
        "convolution layer may learn such kernels; here they are set by hand.",
        claims,
        [Numbers("Kernels", rows)],
        figure,
        "A photograph, its vertical edges, horizontal edges, all edges, blurred and sharpened",
    )


def photograph() -> Tensor:
    """A real photograph `(150, 128)`, gray in [0, 1]."""
    from matplotlib import cbook
    from PIL import Image

    with Image.open(cbook._get_data_path("sample_data", "grace_hopper.jpg")) as image:
        return torch.from_numpy(np.asarray(image.convert("L").resize((128, 150)), np.float64) / 255)


def _answers(kernel: Tensor) -> tuple[float, float]:
    """The largest answer to a vertical and to a horizontal step from 0 to 1, less the answer to level ground."""
    step = torch.zeros(1, 1, 10, 10, dtype=torch.float64)
    step[..., 5:] = 1
    answers = []
    for image in (step, step.mT):
        answer = F.conv2d(image, kernel[None])[0, 0]
        ground = image[0, 0, 1:-1, 1:-1] * kernel.sum()
        answers.append(float((answer - ground).abs().max()))
    return answers[0], answers[1]
