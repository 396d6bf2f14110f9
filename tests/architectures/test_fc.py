"""Fully connected networks and LeNet-5: no depth to speak of, every parameter accounted for."""

import itertools

import pytest
import torch
from torch import nn
from zoo import COLOUR, GRAY, cost, network

from cnnbench.architectures.lenet import PadTo
from cnnbench.types import ImageSpec

WIDTHS = {"linear": (), "mlp": (512, 512), "mlp_deep": (512,) * 5}


@pytest.mark.parametrize("spec", [GRAY, COLOUR], ids=["28x28x1", "32x32x3"])
@pytest.mark.parametrize(("name", "hidden"), WIDTHS.items())
def test_fully_connected_networks_have_the_widths_they_tell(
    name: str, hidden: tuple[int, ...], spec: ImageSpec
) -> None:
    widths = (spec.channels * spec.height * spec.width, *hidden, spec.num_classes)
    macs = sum(a * b for a, b in itertools.pairwise(widths))
    counted = cost(name, spec)
    assert (counted.params, counted.macs) == (macs + sum(widths[1:]), macs)
    assert (counted.depth, counted.activations) == (len(widths) - 1, sum(widths[1:]))


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("size", ["28x28x1", "32x32x3", "64x64x3", "224x224x3"])
def test_mlp_lenet_has_the_parameters_of_lenet5_to_2_percent(size: str, classes: int) -> None:
    spec = ImageSpec.of(size, classes)
    assert cost("mlp_lenet", spec).params == pytest.approx(cost("lenet5", spec).params, rel=0.02)
    assert cost("mlp_lenet", spec).depth == 2


@pytest.mark.parametrize("name", ["lenet5", "lenet5_relu"])
@pytest.mark.parametrize("side", [28, 32])
def test_lenet5_has_the_parameters_of_its_layers(name: str, side: int) -> None:
    convolutions = 6 * (25 * 1 + 1) + 16 * (25 * 6 + 1)
    linear = 120 * (400 + 1) + 84 * (120 + 1) + 10 * (84 + 1)
    counted = cost(name, ImageSpec(side, side, 1, 10))
    assert counted.params == convolutions + linear == 61_706
    assert counted.depth == 5


@pytest.mark.parametrize(
    ("name", "expected"), [("lenet5", [4, 2, 0, 0]), ("lenet5_relu", [0, 0, 4, 2])], ids=["classic", "modern"]
)
def test_lenet5_is_tanh_and_means_and_its_modern_form_relu_and_maxima(name: str, expected: list[int]) -> None:
    kinds = [type(module) for module in network(name, GRAY).modules()]
    assert [kinds.count(kind) for kind in (nn.Tanh, nn.AvgPool2d, nn.ReLU, nn.MaxPool2d)] == expected


def test_small_digits_are_centred_in_zeros() -> None:
    padded = PadTo(GRAY, 32)(torch.ones(1, 1, 28, 28))
    assert padded.shape == (1, 1, 32, 32)
    assert padded[..., 2:30, 2:30].sum() == padded.sum() == 28 * 28


def test_images_of_the_side_or_larger_are_not_padded() -> None:
    assert PadTo(ImageSpec(32, 40, 1, 10), 32)(torch.ones(1, 1, 32, 40)).shape == (1, 1, 32, 40)
