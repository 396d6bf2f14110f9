"""Receptive fields: what the formula says, what the gradient reaches, and how unevenly."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from cnnbench import pictures
from cnnbench.analysis.receptive_field import measure_fields
from cnnbench.analysis.tracer import trace
from cnnbench.architectures import build
from cnnbench.lab import Lesson, Numbers, lesson
from cnnbench.types import ImageSpec

STACKS = {
    # name: kernel, stride and dilation of each convolution
    "one 5x5": [(5, 1, 1)],
    "two 3x3": [(3, 1, 1)] * 2,
    "three 3x3": [(3, 1, 1)] * 3,
    "one 7x7": [(7, 1, 1)],
    "3x3 with stride 2, then 3x3": [(3, 2, 1), (3, 1, 1)],
    "3x3 with dilation 2": [(3, 1, 2)],
    "3x3 with dilation 1, 2, 4": [(3, 1, 1), (3, 1, 2), (3, 1, 4)],
}
NETWORKS = (
    ("lenet5", 32),
    ("alexnet", 224),
    ("vgg16", 224),
    ("googlenet", 224),
    ("resnet20", 32),
    ("resnet50", 224),
)


@lesson(name="receptive-field", order=3)
def receptive_field() -> Lesson:
    """Two 3x3 convolutions see 5x5, three see 7x7; formula against gradient support."""
    spec = ImageSpec(32, 32, 1, num_classes=1)
    rows: list[dict[str, Any]] = []
    agree = True
    for name, layers in STACKS.items():
        with torch.device("meta"):
            stack = nn.Sequential(*(nn.Conv2d(1, 1, k, s, padding=d * (k // 2), dilation=d) for k, s, d in layers))
            found = trace(stack, spec)
            seen = measure_fields(stack, spec, layers=found)[-1]
        agree &= by_formula(layers) == seen[0] == seen[1] if isinstance(seen, tuple) else False
        weights = sum(k * k for k, _, _ in layers)
        rows.append(
            {
                "stack, one channel": name,
                "formula": by_formula(layers),
                "measured": seen[0] if seen else None,
                "weights": weights,
            }
        )
    of_networks: list[dict[str, Any]] = []
    networks_agree = True
    for name, side in NETWORKS:
        images = ImageSpec(side, side, 3, num_classes=10)
        with torch.device("meta"):
            network = build(name, images)
            found = trace(network, images)
        fields = measure_fields(network, images, layers=found)
        windows = [
            (layer.field, seen)
            for layer, seen in zip(found, fields, strict=True)
            if layer.kernel and layer.kind != "subsampling"  # which moves values, and is not measured
        ]
        networks_agree &= all(formula == seen for formula, seen in windows)
        largest = max(field[0] for field, _ in windows if isinstance(field, tuple))
        of_networks.append({"network": name, "image": side, "layers compared": len(windows), "largest field": largest})
    maps = {depth: _gradient(depth) for depth in (2, 5, 20)}
    widths = {depth: _width(gradient) for depth, gradient in maps.items()}
    fields_of, weights_of = ({row["stack, one channel"]: row[key] for row in rows} for key in ("measured", "weights"))
    claims = [
        ("The measured field of every stack is the formula's", agree),
        (
            f"Two 3x3 see {fields_of['two 3x3']}x{fields_of['two 3x3']} with {weights_of['two 3x3']} weights "
            f"instead of {weights_of['one 5x5']}; three see "
            f"{fields_of['three 3x3']}x{fields_of['three 3x3']} with "
            f"{weights_of['three 3x3']} instead of {weights_of['one 7x7']}",
            (fields_of["two 3x3"], fields_of["three 3x3"]) == (5, 7),
        ),
        (
            f"Formula and gradient agree on all {sum(row['layers compared'] for row in of_networks)} windowed layers "
            f"of {len(of_networks)} networks, whose branches take the largest field over their paths",
            networks_agree,
        ),
        (
            "Within the field the middle counts most: of the 41x41 pixels that 20 layers see, the smallest square with "
            f"half of the gradient is {widths[20]}x{widths[20]}",
            widths[20] < 41 / 2,
        ),
    ]
    figure, panels = pictures.new(11.5, 4.2, panels=3)
    figure.suptitle("Gradient of one output unit with respect to the pixels: the field is square, its weight is a hill")
    for axes, (depth, gradient) in zip(panels, maps.items(), strict=True):
        axes.grid(visible=False)
        axes.imshow(gradient.where(gradient != 0, torch.nan).numpy(), cmap="viridis")
        axes.set_title(
            f"{depth} convolutions of 3x3: {2 * depth + 1} pixels, half within {widths[depth]}x{widths[depth]}",
            fontsize=10,
        )
    return Lesson(
        "Receptive fields",
        "With r = 1 and j = 1 at the image, a layer of kernel k, dilation d and stride s makes r larger by d (k - 1) "
        "j, then j by the factor s. Measured, it is where the gradient of one output unit is not zero, on a "
        "linearised copy. Weights 1/9 everywhere for the pictures; that the influence falls off like a bell is Luo et "
        "al. 2016 (arXiv:1701.04128).",
        claims,
        [Numbers("Stacks of convolutions", rows), Numbers("Networks, every convolution and pooling", of_networks)],
        figure,
        "Three squares in which the gradient is largest in the middle, the larger the deeper the stack",
    )


def by_formula(layers: list[tuple[int, int, int]]) -> int:
    """The field of a stack of layers (kernel, stride, dilation)."""
    field, jump = 1, 1
    for kernel, stride, dilation in layers:
        field, jump = field + dilation * (kernel - 1) * jump, jump * stride
    return field


def _gradient(depth: int, side: int = 45) -> torch.Tensor:
    """d(middle unit) / d(pixels) `(side, side)` behind `depth` averaging 3x3 convolutions."""
    pixels = torch.ones(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    weight = torch.full((1, 1, 3, 3), 1 / 9, dtype=torch.float64)
    features = pixels
    for _ in range(depth):
        features = F.conv2d(features, weight, padding=1)
    (gradient,) = torch.autograd.grad(features[0, 0, side // 2, side // 2], pixels)
    return gradient[0, 0]


def _width(gradient: torch.Tensor) -> int:
    """The side of the smallest square in the middle that holds half of the gradient."""
    middle = len(gradient) // 2
    total = gradient.sum()
    half = next(
        reach
        for reach in range(middle + 1)
        if gradient[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1].sum() >= total / 2
    )
    return 2 * half + 1
