"""Receptive fields by the formula against those by gradients."""

import dataclasses
import math

import pytest
import torch
from analysis_helpers import LARGE, OTHERS, VIT, apart, layers_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.analysis.layer import Field, Layer
from cnnbench.analysis.receptive_field import KINDS, NARROW, measure_fields
from cnnbench.architectures import architecture
from cnnbench.architectures.layers import GlobalAveragePool, GlobalMaxPool
from cnnbench.types import COST_SPEC, ImageSpec

Sides = tuple[int, int]

SLOW = {
    COST_SPEC: {
        "googlenet",
        "resnet101",
        "resnet110",
        "resnet152",
        "resnet44",
        "resnet56",
        "plain56",
        "torchvision/googlenet",
        "torchvision/densenet121",
    }
}
FAST = {
    "alexnet",
    "fastnet",
    "inception_small",
    "inception_small_nobottleneck",
    "lenet5",
    "lenet5_relu",
    "linear",
    "mlp",
    "mlp_deep",
    "mlp_lenet",
    "netresdeep",
    "plain20",
    "resnet20",
    "vgg11",
    "vgg11_bn",
}
"""Measured within a second at 224 x 224; each of SLOW takes longer even at 32 x 32."""


def case(name: str, spec: ImageSpec) -> object:
    slow = name in SLOW[spec] if spec in SLOW else name not in FAST
    return pytest.param(name, spec, marks=[pytest.mark.slow] * slow)


def fields(network: nn.Module, side: int = 32) -> tuple[list[Layer], list[Field]]:
    layers = layers_of(network, side)
    return layers, measure_fields(network, ImageSpec(side, side, 3, 10), layers=layers)


@pytest.mark.parametrize(
    ("name", "spec"),
    [case(name, spec) for spec in (COST_SPEC, LARGE) for name in [*architecture, *OTHERS]],
    ids=str,
)
def test_formula_and_gradients_agree(name: str, spec: ImageSpec) -> None:
    network, layers = apart(name, spec)
    for layer, found in zip(layers, measure_fields(network, spec, layers=layers), strict=True):
        assert found == (layer.field if layer.kind in KINDS else None), layer.name


def test_attention_and_layers_that_only_move_values_are_not_measured() -> None:
    network, layers = apart(VIT, LARGE)
    assert set(measure_fields(network, LARGE, layers=layers)) == {None}
    assert layers[0].field == (16, 16)


WINDOWS = st.lists(
    st.tuples(
        st.sampled_from(["convolution", "max pool", "average pool"]),
        *[st.tuples(st.integers(low, high), st.integers(low, high)) for low, high in ((1, 5), (1, 3), (0, 2), (1, 2))],
    ),
    min_size=1,
    max_size=4,
)
"""Kind, kernel, stride, padding and dilation of each layer of a stack."""


@settings(deadline=None, max_examples=40)
@given(windows=WINDOWS)
def test_a_stack_sees_each_kernel_s_reach_times_the_strides_before(windows: list) -> None:
    modules: list[nn.Module] = []
    expected: list[Sides] = []
    sees, jump = (1, 1), (1, 1)
    for kind, kernel, stride, padding, dilation in windows:
        if kind != "convolution":
            padding = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
        if kind == "average pool":
            dilation = (1, 1)
            modules.append(nn.AvgPool2d(kernel, stride, padding))
        elif kind == "max pool":
            modules.append(nn.MaxPool2d(kernel, stride, padding, dilation))
        else:
            modules.append(nn.Conv2d(3, 3, kernel, stride, padding, dilation))
        sees = tuple(s + (k - 1) * d * j for s, k, d, j in zip(sees, kernel, dilation, jump, strict=True))
        jump = tuple(j * s for j, s in zip(jump, stride, strict=True))
        expected.append(sees)
    assume(max(sees) < NARROW)
    layers, found = fields(nn.Sequential(*modules), side=96)
    assert found == expected == [layer.field for layer in layers]


def test_an_oblong_image_is_measured_like_a_square_one() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, (7, 3), stride=(2, 1)), nn.MaxPool2d(2))
    spec = ImageSpec(20, 150, 3, 10)
    layers = layers_of(network)
    assert measure_fields(network, spec, layers=layers) == [(7, 3), (9, 4)]


@pytest.mark.parametrize(
    "pool", [GlobalAveragePool(), GlobalMaxPool(), nn.AdaptiveAvgPool2d(1)], ids=["mean", "max", "adaptive"]
)
def test_global_pooling_and_what_follows_see_the_image(pool: nn.Module) -> None:
    _, found = fields(nn.Sequential(nn.Conv2d(3, 3, 3), pool, nn.Flatten(), nn.Linear(3, 10)))
    assert found == [(3, 3), "image", "image"]


class Function(nn.Module):
    def __init__(self, function: object, *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


@pytest.mark.parametrize(
    "join", [torch.add, torch.mul, lambda a, b: torch.cat([a, b], dim=1)], ids=["add", "multiply", "concatenate"]
)
def test_joined_branches_see_what_the_larger_one_sees(join: object) -> None:
    def function(x: Tensor, wide: nn.Module, high: nn.Module) -> Tensor:
        return F.relu(join(wide(x), F.max_pool2d(high(x), 3, stride=1, padding=1)))

    wide, high = nn.Conv2d(3, 3, (1, 9), padding=(0, 4)), nn.Conv2d(3, 3, (5, 1), padding=(2, 0))
    assert fields(Function(function, wide, high))[1] == [(1, 9), (5, 1), (7, 3), (7, 9)]


def test_fields_do_not_depend_on_weights() -> None:
    network = nn.Conv2d(3, 3, 3)
    nn.init.zeros_(network.weight)
    assert fields(network)[1] == [(3, 3)]


def test_a_wrong_formula_is_detected() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 3, stride=2), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3), nn.MaxPool2d(2))
    layers = layers_of(network)
    for place in range(len(layers)):
        for wrong in (-2, 1, 40):
            rows, columns = layers[place].field
            tampered = [*layers]
            tampered[place] = dataclasses.replace(layers[place], field=(rows + wrong, columns))
            found = measure_fields(network, COST_SPEC, layers=tampered)
            assert found == [layer.field for layer in layers] != [layer.field for layer in tampered]


def test_pixels_that_the_formula_misses_are_measured() -> None:
    def function(x: Tensor) -> Tensor:
        return torch.cat([x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]], dim=1)

    layers, found = fields(Function(function))
    assert layers[-1].kind == "concatenate"
    assert (layers[-1].field, found[-1]) == ((1, 1), (2, 2))


def test_another_order_of_layers_is_detected() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 5))
    layers = layers_of(network)
    swapped = nn.Sequential(network[1], network[0])
    assert measure_fields(swapped, COST_SPEC, layers=layers) == [(5, 5), (7, 7)] != [layer.field for layer in layers]


def test_a_field_larger_than_the_image_is_measured_in_full() -> None:
    network = nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(20)])
    assert fields(network, side=16)[1][-1] == (41, 41)


def test_a_network_that_refuses_other_sizes_is_not_measured() -> None:
    def function(x: Tensor, layer: nn.Module) -> Tensor:
        assert math.prod(x.shape[2:]) == 32 * 32
        return layer(x)

    assert fields(Function(function, nn.Conv2d(3, 3, 3)))[1] == [None]


def test_adaptive_pooling_to_several_places_is_not_measured() -> None:
    assert fields(nn.Sequential(nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(5)))[1] == [(3, 3), None]
