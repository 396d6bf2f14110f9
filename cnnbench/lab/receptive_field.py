"""Receptive fields: by the formula, by the gradient, and how unevenly the gradient is distributed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench import pictures
from cnnbench.analysis.layer import Field, pixels_of
from cnnbench.analysis.receptive_field import measure_fields
from cnnbench.analysis.tracer import trace
from cnnbench.architectures import build
from cnnbench.lab import Claim, Lesson, Numbers, Row, lesson
from cnnbench.types import ImageSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
DEPTHS = (2, 5, 20)
"""3x3 convolutions of the stacks whose gradients are drawn."""
SIDE = 45


@dataclass(frozen=True)
class Stack:
    """A stack of convolutions of one channel."""

    formula: int
    measured: Field
    weights: int

    @property
    def side(self) -> int | None:
        """Rows of the measured field."""
        sides = pixels_of(self.measured)
        return sides[0] if sides else None

    @property
    def agrees(self) -> bool:
        """Whether the measured field is square and the formula's."""
        return self.measured == (self.formula, self.formula)


@dataclass(frozen=True)
class Network:
    """A network, and the fields of its convolutions and poolings by formula and by gradient."""

    name: str
    image: int
    fields: tuple[tuple[Field, Field], ...]

    @property
    def largest(self) -> int:
        """Rows of the largest field by formula."""
        return max(sides[0] for formula, _ in self.fields if (sides := pixels_of(formula)))

    @property
    def agrees(self) -> bool:
        """Whether formula and gradient agree on every layer."""
        return all(formula == measured for formula, measured in self.fields)


@lesson(name="receptive-field", order=3)
def receptive_field() -> Lesson:
    """Two 3x3 convolutions see 5x5, three see 7x7; formula against gradient support."""
    stacks = {name: _measure_stack(layers) for name, layers in STACKS.items()}
    networks = [_measure_network(name, side) for name, side in NETWORKS]
    gradients = {depth: _gradient(depth) for depth in DEPTHS}
    return Lesson(
        "Receptive fields",
        "With r = 1 and j = 1 at the image, a layer of kernel k, dilation d and stride s makes r larger by d (k - 1) "
        "j, then j by the factor s. Measured, it is where the gradient of one output unit is not zero, on a "
        "linearised copy. Weights 1/9 everywhere for the pictures; that the influence falls off like a bell is Luo et "
        "al. 2016 (arXiv:1701.04128).",
        [*_claims_of_stacks(stacks), _claim_of_networks(networks), _claim_of_middle(gradients[20])],
        _tables(stacks, networks),
        _draw(gradients),
        "Three squares in which the gradient is largest in the middle, the larger the deeper the stack",
    )


def by_formula(layers: list[tuple[int, int, int]]) -> int:
    """The field of a stack of layers (kernel, stride, dilation)."""
    field, jump = 1, 1
    for kernel, stride, dilation in layers:
        field, jump = field + dilation * (kernel - 1) * jump, jump * stride
    return field


def _measure_stack(layers: list[tuple[int, int, int]]) -> Stack:
    spec = ImageSpec(32, 32, 1, num_classes=1)
    with torch.device("meta"):
        stack = nn.Sequential(*(nn.Conv2d(1, 1, k, s, padding=d * (k // 2), dilation=d) for k, s, d in layers))
        measured = measure_fields(stack, spec, layers=trace(stack, spec))[-1]
    return Stack(by_formula(layers), measured, sum(k * k for k, _, _ in layers))


def _measure_network(name: str, side: int) -> Network:
    spec = ImageSpec(side, side, 3, num_classes=10)
    with torch.device("meta"):
        network = build(name, spec)
        layers = trace(network, spec)
    fields = tuple(
        (layer.field, measured)
        for layer, measured in zip(layers, measure_fields(network, spec, layers=layers), strict=True)
        if layer.kernel and layer.kind != "subsampling"  # which moves values, and is not measured
    )
    return Network(name, side, fields)


def _claims_of_stacks(stacks: dict[str, Stack]) -> list[Claim]:
    two, three = stacks["two 3x3"], stacks["three 3x3"]
    return [
        Claim("The measured field of every stack is the formula's", all(stack.agrees for stack in stacks.values())),
        Claim(
            f"Two 3x3 see {two.side}x{two.side} with {two.weights} weights instead of {stacks['one 5x5'].weights}; "
            f"three see {three.side}x{three.side} with {three.weights} instead of {stacks['one 7x7'].weights}",
            (two.side, three.side) == (5, 7),
        ),
    ]


def _claim_of_networks(networks: list[Network]) -> Claim:
    return Claim(
        f"Formula and gradient agree on all {sum(len(network.fields) for network in networks)} windowed layers of "
        f"{len(networks)} networks, whose branches take the largest field over their paths",
        all(network.agrees for network in networks),
    )


def _claim_of_middle(gradient: Tensor) -> Claim:
    width = _width(gradient)
    return Claim(
        "Within the field the middle counts most: of the 41x41 pixels that 20 layers see, the smallest square with "
        f"half of the gradient is {width}x{width}",
        width < 41 / 2,
    )


def _tables(stacks: dict[str, Stack], networks: list[Network]) -> list[Numbers]:
    stack_rows: list[Row] = [
        {"stack, one channel": name, "formula": stack.formula, "measured": stack.side, "weights": stack.weights}
        for name, stack in stacks.items()
    ]
    network_rows: list[Row] = [
        {
            "network": network.name,
            "image": network.image,
            "layers compared": len(network.fields),
            "largest field": network.largest,
        }
        for network in networks
    ]
    return [
        Numbers("Stacks of convolutions", stack_rows),
        Numbers("Networks, every convolution and pooling", network_rows),
    ]


def _gradient(depth: int) -> Tensor:
    """d(middle unit) / d(pixels) `(SIDE, SIDE)` behind `depth` averaging 3x3 convolutions."""
    pixels = torch.ones(1, 1, SIDE, SIDE, dtype=torch.float64, requires_grad=True)
    weight = torch.full((1, 1, 3, 3), 1 / 9, dtype=torch.float64)
    features = pixels
    for _ in range(depth):
        features = F.conv2d(features, weight, padding=1)
    (gradient,) = torch.autograd.grad(features[0, 0, SIDE // 2, SIDE // 2], pixels)
    return gradient[0, 0]


def _width(gradient: Tensor) -> int:
    """The side of the smallest square in the middle that holds half of the gradient."""
    middle = len(gradient) // 2
    total = gradient.sum()
    half = next(
        reach
        for reach in range(middle + 1)
        if gradient[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1].sum() >= total / 2
    )
    return 2 * half + 1


def _draw(gradients: dict[int, Tensor]) -> Figure:
    figure, panels = pictures.new(11.5, 4.2, panels=3)
    figure.suptitle("Gradient of one output unit with respect to the pixels: the field is square, its weight is a hill")
    for axes, (depth, gradient) in zip(panels, gradients.items(), strict=True):
        width = _width(gradient)
        axes.grid(visible=False)
        axes.imshow(gradient.where(gradient != 0, torch.nan).numpy(), cmap="viridis")
        axes.set_title(f"{depth} convolutions of 3x3: {2 * depth + 1} pixels, half within {width}x{width}", fontsize=10)
    return figure
