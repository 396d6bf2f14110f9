"""Receptive fields by the formula against those by gradients."""

import copy
import dataclasses
import math

import pytest
import torch
from analysis_helpers import LARGE, OTHERS, VIT, apart, layers_of
from hypothesis import assume, example, given, reject, settings
from hypothesis import strategies as st
from small_graphs import STEPS, Function, conv, space_to_depth, sum_in_place, windows
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.analysis.layer import Field, Layer
from cnnbench.analysis.receptive_field import MEASURED, NARROW, measure_fields
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
        assert found == (layer.field if layer.kind in MEASURED else None), layer.name


def test_attention_and_layers_that_only_move_values_are_not_measured() -> None:
    network, layers = apart(VIT, LARGE)
    found = measure_fields(network, LARGE, layers=layers)
    assert found[0] == (16, 16)
    assert set(found[1:]) == {None}
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


STRIDED = [
    ("convolution", (1, 1), (3, 1), (0, 0), (1, 1)),
    ("convolution", (3, 1), (3, 1), (0, 0), (1, 1)),
    ("convolution", (3, 1), (3, 1), (0, 0), (2, 1)),
    ("convolution", (1, 1), (3, 1), (1, 0), (1, 1)),
]
"""Of 96 rows the last map has two positions, both in the padding."""


@settings(deadline=None, max_examples=40)
@given(windows=WINDOWS)
@example(STRIDED)
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
    layers, found = fields(nn.Sequential(*modules), side=300)  # with three positions or more in every map
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


def test_branches_that_read_different_pixels_see_both() -> None:
    def function(x: Tensor) -> Tensor:
        return torch.cat([x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]], dim=1)

    layers, found = fields(Function(function))
    assert layers[-1].kind == "concatenate"
    assert (layers[-1].field, found[-1]) == ((2, 2), (2, 2))


def test_another_order_of_layers_is_detected() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 5))
    layers = layers_of(network)
    swapped = nn.Sequential(network[1], network[0])
    assert measure_fields(swapped, COST_SPEC, layers=layers) == [(5, 5), (7, 7)] != [layer.field for layer in layers]


def test_a_field_larger_than_the_image_is_measured_in_full() -> None:
    network = nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(20)])
    assert fields(network, side=16)[1][-1] == (41, 41)


def test_a_network_that_refuses_other_sizes_is_measured_on_its_own() -> None:
    def function(x: Tensor, *layers: nn.Module) -> Tensor:
        assert math.prod(x.shape[2:]) == 32 * 32
        for layer in layers:
            x = layer(x)
        return x

    network = Function(function, nn.Conv2d(3, 3, 5), nn.Conv2d(3, 3, 27, padding=13))
    assert fields(network)[1] == [(5, 5), None], "the border cuts the second"


def test_resizing_to_a_fixed_size_is_measured_on_images_of_the_usual_one() -> None:
    """Larger images would be resized the more: 32 to 48 is by one and a half."""
    network = nn.Sequential(conv(), Function(lambda x: F.interpolate(x, size=(48, 48))), conv())
    layers, found = fields(network)
    assert found == [layer.field for layer in layers] == [(3, 3), (5, 5)]


TABLE = {
    "upsampling": (nn.Sequential(conv(), conv(stride=2), nn.Upsample(scale_factor=2), conv()), (7, 7)),
    "space to depth": (nn.Sequential(conv(), nn.PixelUnshuffle(2), conv(12)), (8, 8)),
    "space to depth by views": (nn.Sequential(conv(), Function(space_to_depth), conv(12)), (8, 8)),
    "pixel shuffle": (nn.Sequential(conv(), conv(3, 12, stride=2), nn.PixelShuffle(2), conv()), (7, 7)),
    "roll": (nn.Sequential(conv(), Function(lambda x: x + torch.roll(x, 3, 2)), conv()), (8, 5)),
    "largest of all": (nn.Sequential(conv(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(3, 10)), "image"),
    "largest by dimension": (
        nn.Sequential(conv(), Function(lambda x: x.max(3)[0].max(2).values), nn.Linear(3, 2)),
        "image",
    ),
    "every second channel": (nn.Sequential(conv(3, 6), Function(lambda x: x[:, ::2]), conv()), (5, 5)),
    "4x4 maxima of 32x32": (nn.Sequential(conv(), nn.AdaptiveMaxPool2d(4), conv()), (26, 26)),
    "5x5 means of 32x32": (nn.Sequential(nn.AdaptiveAvgPool2d(5)), (8, 8)),
    "Fourier transform": (
        nn.Sequential(conv(), Function(lambda x: torch.fft.irfft2(torch.fft.rfft2(x), s=x.shape[-2:])), conv()),
        "image",
    ),
    "unfold": (nn.Sequential(conv(), Function(windows), conv(27)), (7, 7)),
    "transposed": (nn.Sequential(conv(), conv(stride=2), nn.ConvTranspose2d(3, 3, 2, 2), conv()), (7, 7)),
    "squeeze and excite": (
        Function(
            lambda x, first, gate: x * F.hardsigmoid(gate(F.adaptive_avg_pool2d(first(x), 1))), conv(), conv(kernel=1)
        ),
        "image",
    ),
    "maximum along rows, beside it": (
        nn.Sequential(conv(), Function(lambda x: x + x.max(dim=3, keepdim=True)[0]), conv()),
        (5, "image"),
    ),
    "gate by columns": (nn.Sequential(conv(), Function(lambda x: x * x.mean(2, keepdim=True)), conv()), ("image", 5)),
    "sum so far": (nn.Sequential(conv(), Function(lambda x: x.cumsum(3)), conv()), (5, "image")),
    "softmax over columns": (nn.Sequential(conv(), Function(lambda x: x.softmax(3)), conv()), (5, "image")),
    "less the median of a row": (
        nn.Sequential(conv(), Function(lambda x: x - x.median(dim=3, keepdim=True)[0]), conv()),
        (5, "image"),
    ),
    "unit rows": (nn.Sequential(conv(), Function(lambda x: F.normalize(x, dim=3)), conv()), (5, "image")),
    "softmax over channels": (nn.Sequential(conv(), Function(lambda x: x.softmax(1)), conv()), (5, 5)),
    "sorted, which no formula follows": (nn.Sequential(conv(), Function(lambda x: x.sort(3)[0]), conv()), None),
    "flipped, which no formula follows": (nn.Sequential(conv(), Function(lambda x: x + x.flip(3)), conv()), None),
    "sum in place": (nn.Sequential(conv(), Function(sum_in_place), conv()), (7, 7)),
}
"""Fields by hand, after Araujo et al. 2019; images of 32 x 32."""


@pytest.mark.parametrize("name", TABLE)
def test_fields_worked_out_by_hand(name: str) -> None:
    network, expected = TABLE[name]
    layers, found = fields(network)
    assert (layers[-1].field, found[-1]) == (expected, expected)


def test_a_linear_layer_within_windows_reads_one_position() -> None:
    """Windows of 4x4 positions, as Twins and Swin cut them; each position is 2x2 pixels."""

    def function(x: Tensor, patches: nn.Module, within: nn.Module, after: nn.Module) -> Tensor:
        maps = patches(x).permute(0, 2, 3, 1)
        rows, columns = maps.shape[1] // 4, maps.shape[2] // 4
        windows_of = maps.reshape(1, rows, 4, columns, 4, 3).transpose(2, 3)
        return after(within(windows_of).transpose(2, 3).reshape(maps.shape).permute(0, 3, 1, 2))

    layers, found = fields(Function(function, nn.Conv2d(3, 3, 2, 2), nn.Linear(3, 3), conv()))
    assert [layer.field for layer in layers[:2]] == found[:2] == [(2, 2), (2, 2)]
    assert found[-1] == (6, 6)


def test_a_product_of_positions_is_not_followed() -> None:
    def function(x: Tensor, before: nn.Module, after: nn.Module) -> Tensor:
        tokens = before(x).flatten(2)
        mixed = tokens @ (tokens.transpose(1, 2) @ tokens)
        return after(mixed.view(x.shape[0], 3, *x.shape[2:]))

    layers = layers_of(Function(function, conv(), conv()))
    assert [layer.field for layer in layers] == [(3, 3), None, None, None]


def changed_pixels(network: nn.Module, side: int, axis: int, *, period: int) -> int:
    """By finite differences: from the first to the last line of pixels that an output unit depends on.

    Of the units in the middle of the map the largest. Pixels made much brighter pass every maximum and activation.
    """
    images = torch.rand(1, 3, side, side, dtype=torch.float64).repeat(side + 1, 1, 1, 1)
    for line in range(side):
        images[line + 1].select(1 + axis, line).add_(1e4)
    with torch.no_grad():
        outputs = network(images) if axis == 1 else network(images).transpose(2, 3)
    assume(outputs.shape[3] >= 3 * period)
    middle = outputs[:, :, outputs.shape[2] // 2]
    depends = ((middle[1:] - middle[:1]).abs() > 1e-6).any(dim=1)  # lines of pixels x units along the axis
    third = depends.shape[1] // 3
    extents = []
    for unit in range(third, depends.shape[1] - third):
        (lines,) = depends[:, unit].nonzero(as_tuple=True)
        assume(len(lines) and lines[0] > 0 and lines[-1] < side - 1)
        extents.append(int(lines[-1] - lines[0]) + 1)
    return max(extents)


@pytest.mark.parametrize("name", STEPS)
def test_formula_and_gradients_agree_on_every_step(name: str) -> None:
    layers, found = fields(nn.Sequential(conv(), STEPS[name](), conv()), 48)
    assert found[-1] == layers[-1].field
    assert isinstance(found[-1], tuple)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(names=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_formula_gradients_and_finite_differences_agree(names: list[str], seed: int) -> None:
    torch.manual_seed(seed)
    network = nn.Sequential(*[STEPS[name]() for name in names], nn.Conv2d(3, 3, 1)).double()
    for parameter in network.parameters():
        nn.init.uniform_(parameter, 0.5, 1)
    twin = copy.deepcopy(network).float()
    side = 48
    try:
        network(torch.zeros(1, 3, side, side, dtype=torch.float64))
    except RuntimeError:  # an odd side, which a pixel unshuffle does not take
        reject()
    layers, found = fields(twin, side)
    field = layers[-1].field
    assert found[-1] == field
    assert isinstance(field, tuple)
    assume(max(field) < side // 3)
    assert layers[-1].origin is not None
    for axis in (0, 1):
        period = layers[-1].origin.periods[axis]
        assert changed_pixels(network, side, axis, period=period) == field[axis]
