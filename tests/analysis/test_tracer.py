"""The layers of a network: on small networks with known answers, and on every architecture."""

import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from analysis_helpers import LARGE, OTHERS, VIT, apart, case, every, layers_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from cnnbench.analysis.layer import Layer
from cnnbench.analysis.tracer import trace
from cnnbench.architectures import architecture
from cnnbench.architectures.layers import GlobalAveragePool, GlobalMaxPool
from cnnbench.architectures.resnet import ResidualBlock, ZeroPadShortcut
from cnnbench.types import COST_SPEC, ImageSpec

RESHAPING = {"torchvision/shufflenet_v2_x1_0"}
"""Networks that cut tensors into pieces between two layers."""


def conv(kernel_size: int | tuple[int, int] = 3, channels: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(3, channels, kernel_size, **options)  # type: ignore[arg-type]


class Function(nn.Module):
    """A network that is a function of its image and of some layers."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def kinds(layers: list[Layer]) -> list[str]:
    return [layer.kind for layer in layers]


def fields(layers: list[Layer]) -> list[object]:
    return [layer.field for layer in layers]


def branches(layers: list[Layer]) -> str:
    return " ".join(layer.branch or "-" for layer in layers)


@every
def test_layers_hold_all_parameters(name: str, spec: ImageSpec) -> None:
    network, layers = apart(name, spec)
    assert sum(layer.params for layer in layers) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "spec"), [*[case(name, COST_SPEC) for name in (*architecture, *OTHERS)], (VIT, LARGE)], ids=str
)
def test_layers_hold_all_work(name: str, spec: ImageSpec) -> None:
    network, layers = apart(name, spec)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, spec.channels, spec.height, spec.width, device="meta"))
    assert 2 * sum(layer.macs for layer in layers) == counter.get_total_flops()


@every
def test_the_last_layer_has_an_output_per_class(name: str, spec: ImageSpec) -> None:
    assert apart(name, spec)[1][-1].output_shape == (spec.num_classes,)


@pytest.mark.parametrize(
    ("name", "spec"), [case(name, COST_SPEC) for name in (*architecture, *OTHERS) if name not in RESHAPING], ids=str
)
def test_the_input_of_a_layer_has_the_shape_of_its_source(name: str, spec: ImageSpec) -> None:
    layers = apart(name, spec)[1]
    for layer in layers:
        if len(layer.sources) == 1 and layer.sources[0] >= 0:
            given_to = layers[layer.sources[0]].output_shape
            flattened = len(layer.input_shape) == 1 and layer.input_shape[0] == math.prod(given_to)
            assert layer.input_shape == given_to or flattened, layer.name


@every
def test_layers_read_the_image_or_what_came_before(name: str, spec: ImageSpec) -> None:
    layers = apart(name, spec)[1]
    assert layers[0].sources == (-1,)
    for place, layer in enumerate(layers):
        assert all(source < place for source in layer.sources)
    read = {source for layer in layers for source in layer.sources}
    assert read == set(range(-1, len(layers) - 1)), "every output is read"


def test_layers_have_the_names_of_their_modules() -> None:
    network = nn.Sequential(conv(), nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), nn.Flatten(), nn.Linear(675, 10))
    assert [layer.name for layer in layers_of(network)] == ["0", "1.1", "3"]


def test_pointwise_operations_are_named_on_the_layer_before() -> None:
    (layer,) = layers_of(nn.Sequential(conv(channels=8, bias=False), nn.BatchNorm2d(8), nn.Dropout(), nn.ReLU()))
    assert layer.fused_ops == ("BatchNorm", "ReLU")
    assert (layer.weights, layer.params) == (8 * 3 * 9, 8 * 3 * 9 + 16)


@pytest.mark.parametrize(("count", "sees"), [(1, 3), (2, 5), (3, 7)])
def test_three_by_three_convolutions_see_as_much_as_one_larger(count: int, sees: int) -> None:
    assert layers_of(nn.Sequential(*[conv() for _ in range(count)]))[-1].field == (sees, sees)


def test_fifty_five_convolutions_of_five_by_five_leave_four_by_four_of_224() -> None:
    last = layers_of(nn.Sequential(*[conv(5) for _ in range(55)]), side=224)[-1]
    assert last.output_shape == (3, 4, 4)
    assert last.field == (221, 221)
    assert last.depth == 55


WINDOWS = st.lists(
    st.tuples(
        st.sampled_from(["convolution", "max pool", "average pool"]),
        *[st.tuples(st.integers(1, high), st.integers(1, high)) for high in (5, 3, 2)],
    ),
    min_size=1,
    max_size=5,
)
"""Kind, kernel, stride and dilation of each layer of a stack."""


def stacked(windows: list[tuple[str, tuple[int, int], tuple[int, int], tuple[int, int]]]) -> Iterator[nn.Module]:
    for kind, kernel, stride, dilation in windows:
        if kind == "convolution":
            yield nn.Conv2d(3, 3, kernel, stride, dilation=dilation)
        elif kind == "max pool":
            yield nn.MaxPool2d(kernel, stride, dilation=dilation)
        else:
            yield nn.AvgPool2d(kernel, stride)


@settings(deadline=None, max_examples=60)
@given(windows=WINDOWS)
def test_a_stack_sees_one_pixel_and_each_kernel_s_reach_times_the_strides_before(windows: list) -> None:
    last = layers_of(nn.Sequential(*stacked(windows)), side=4096)[-1]
    expected, jump = [1, 1], [1, 1]
    for axis in (0, 1):
        strides = [window[2][axis] for window in windows]
        reach = [(k[axis] - 1) * (1 if kind == "average pool" else d[axis]) for kind, k, _, d in windows]
        before = itertools.accumulate([1, *strides], lambda product, stride: product * stride)
        expected[axis] += sum(r * j for r, j in zip(reach, before, strict=False))
        jump[axis] = math.prod(strides)
    assert (last.field, last.jump) == (tuple(expected), tuple(jump))


def test_rows_and_columns_are_distinguished() -> None:
    layers = layers_of(
        nn.Sequential(conv((1, 7), stride=(1, 2), padding=(0, 3)), conv((5, 1), stride=(3, 1), dilation=(2, 1)))
    )
    assert [(layer.kernel, layer.stride, layer.field, layer.jump) for layer in layers] == [
        ((1, 7), (1, 2), (1, 7), (1, 2)),
        ((5, 1), (3, 1), (9, 7), (3, 2)),
    ]
    assert [layer.padding for layer in layers] == [(0, 3), (0, 0)]


def test_functions_are_traced_like_modules() -> None:
    def function(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
        x = F.max_pool2d(F.relu(first(x)), 2)
        return F.avg_pool2d(torch.tanh(second(x)), kernel_size=3, stride=2, padding=1)

    layers = layers_of(Function(function, conv(), conv(padding=1)))
    assert kinds(layers) == ["convolution", "max pool", "convolution", "average pool"]
    assert [layer.fused_ops for layer in layers] == [("ReLU",), (), ("Tanh",), ()]
    assert fields(layers) == [(3, 3), (4, 4), (8, 8), (12, 12)]
    assert (layers[3].kernel, layers[3].stride, layers[3].padding) == ((3, 3), (2, 2), (1, 1))


def test_in_place_operations_are_traced_like_others() -> None:
    def function(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
        x = F.relu_(first(x))
        y = second(x)
        y += x
        return y.relu_()

    layers = layers_of(Function(function, conv(padding=1), conv(padding=1)))
    assert kinds(layers) == ["convolution", "convolution", "add"]
    assert [layer.fused_ops for layer in layers] == [("ReLU",), (), ("ReLU",)]
    assert layers[2].sources == (1, 0)


def test_joined_branches_have_the_larger_field() -> None:
    network = Function(lambda x, a, b: a(x) + b(x), conv(5, padding=2), conv(3, padding=1))
    layers = layers_of(network)
    assert kinds(layers) == ["convolution", "convolution", "add"]
    assert fields(layers) == [(5, 5), (3, 3), (5, 5)]
    assert branches(layers) == "a b -"
    assert layers[2].sources == (0, 1)


def test_the_larger_field_is_chosen_for_each_axis() -> None:
    network = Function(lambda x, a, b: a(x) + b(x), conv((1, 7), padding=(0, 3)), conv((5, 1), padding=(2, 0)))
    assert layers_of(network)[-1].field == (5, 7)


def test_a_shortcut_that_changes_nothing_is_no_branch() -> None:
    layers = layers_of(nn.Sequential(conv(padding=1), ResidualBlock(conv(padding=1), nn.Identity()), conv(padding=1)))
    assert kinds(layers) == ["convolution", "convolution", "add", "convolution"]
    assert branches(layers) == "- a - -"
    assert layers[2].sources == (1, 0)
    assert layers[2].fused_ops == ("ReLU",)


def test_branches_that_fork_again_have_two_letters() -> None:
    def function(x: Tensor, *layer: nn.Module) -> Tensor:
        left = layer[0](x)
        left = torch.cat([layer[1](left), layer[2](left)], dim=1)
        return torch.cat([left, layer[3](x)], dim=1)

    layers = layers_of(Function(function, *[conv(1) for _ in range(4)]))
    assert kinds(layers) == [*["convolution"] * 3, "concatenate", "convolution", "concatenate"]
    assert branches(layers) == "a aa ab a b -"
    assert layers[-1].output_shape == (9, 32, 32)


def test_a_shortcut_that_skips_pixels_is_one_subsampling() -> None:
    block = ResidualBlock(conv(channels=8, stride=2, padding=1), ZeroPadShortcut(5, stride=2))
    layers = layers_of(block)
    assert kinds(layers) == ["convolution", "subsampling", "zero padding", "add"]
    assert [layer.output_shape for layer in layers] == [(8, 16, 16), (3, 16, 16), (8, 16, 16), (8, 16, 16)]
    assert (layers[1].kernel, layers[1].stride, layers[1].field) == ((1, 1), (2, 2), (1, 1))
    assert layers[1].input_shape == (3, 32, 32)
    assert layers[1].jump == layers[3].jump == (2, 2)
    assert branches(layers) == "a b b -"


@pytest.mark.parametrize(
    ("function", "strides"),
    [
        (lambda x, layer: layer(x)[:, :, ::3], [(3, 1)]),
        (lambda x, layer: layer(x)[..., ::3], [(1, 3)]),
        (lambda x, layer: layer(x)[:, :, ::2][:, :, ::2], [(2, 1), (2, 1)]),
    ],
    ids=["rows", "columns", "rows twice"],
)
def test_subsampling_of_one_axis(function: Callable[..., Tensor], strides: list[tuple[int, int]]) -> None:
    layers = layers_of(Function(function, conv(1)))
    assert [layer.stride for layer in layers[1:]] == strides
    assert layers[-1].jump == tuple(math.prod(sides) for sides in zip(*strides, strict=True))


def test_channels_and_slices_without_a_step_are_no_subsampling() -> None:
    assert kinds(layers_of(Function(lambda x, layer: layer(x)[:, :2, 1:, 1:], conv()))) == ["convolution"]


def test_depth_is_that_of_the_longest_path() -> None:
    def function(x: Tensor, short: nn.Module, long: nn.Module, last: nn.Module) -> Tensor:
        return last((long(x) + short(x)).flatten(1))

    long = nn.Sequential(*[conv(1) for _ in range(3)])
    layers = layers_of(Function(function, conv(1), long, nn.Linear(3 * 32 * 32, 10)))
    assert [layer.depth for layer in layers] == [1, 2, 3, 1, 3, 4]


@pytest.mark.parametrize(
    ("layer", "weights"),
    [
        (nn.Conv2d(3, 8, 1), (3 * 8 * 8) * (8 * 8 * 8)),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3 * 8 * 8) * (8 * 4 * 4)),
        (nn.Conv2d(3, 6, 5, groups=3), (3 * 8 * 8) * (6 * 4 * 4)),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), 192 * 10),
        (nn.MaxPool2d(2), None),
        (GlobalAveragePool(), None),
    ],
    ids=["1x1", "3x3 stride 2", "grouped 5x5", "linear", "max pool", "global"],
)
def test_weights_of_a_fully_connected_layer_in_its_place(layer: nn.Module, weights: int | None) -> None:
    assert layers_of(layer, side=8)[0].fully_connected == weights


def test_a_layer_used_twice_has_its_parameters_once_and_its_work_twice() -> None:
    layer = conv(padding=1)
    layers = layers_of(nn.Sequential(layer, nn.ReLU(), layer))
    assert [(step.params, step.weights, step.macs) for step in layers] == [
        (84, 81, 81 * 32 * 32),
        (0, 81, 81 * 32 * 32),
    ]
    assert fields(layers) == [(3, 3), (5, 5)]


@pytest.mark.parametrize(
    ("pool", "kind"),
    [
        (GlobalAveragePool(), "global average pool"),
        (nn.AdaptiveAvgPool2d(1), "global average pool"),
        (GlobalMaxPool(), "global max pool"),
    ],
    ids=["mean", "adaptive", "max"],
)
def test_global_pooling_and_what_follows_see_the_image(pool: nn.Module, kind: str) -> None:
    layers = layers_of(nn.Sequential(conv(), pool, nn.Flatten(), nn.Linear(3, 10)))
    assert kinds(layers) == ["convolution", kind, "linear"]
    assert fields(layers) == [(3, 3), "image", "image"]


def test_adaptive_pooling_to_several_places_has_windows_of_its_own() -> None:
    """Of 32 pixels, the third of five windows reads the 12th to the 19th."""
    assert [(layer.kind, layer.field) for layer in layers_of(nn.AdaptiveAvgPool2d(5))] == [
        ("adaptive average pool", (8, 8))
    ]
    assert kinds(layers_of(nn.Sequential(conv(1), nn.AdaptiveAvgPool2d(32)))) == ["convolution"]


def test_a_linear_layer_on_every_position_sees_what_its_input_sees() -> None:
    def function(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
        return second(first(x).flatten(2).transpose(1, 2))

    layers = layers_of(Function(function, conv(), nn.Linear(3, 7)))
    assert (layers[1].input_shape, layers[1].output_shape) == ((900, 3), (900, 7))
    assert layers[1].field == (3, 3)
    assert layers[1].macs == 900 * 21
    assert layers[1].activations == 900 * 7


def test_a_linear_layer_on_the_whole_map_sees_the_image() -> None:
    layers = layers_of(nn.Sequential(conv(), nn.Flatten(), nn.Linear(2700, 10), nn.ReLU(), nn.Linear(10, 10)))
    assert fields(layers) == [(3, 3), "image", "image"]


def test_behind_attention_nothing_is_followed() -> None:
    def function(x: Tensor, first: nn.Module, last: nn.Module) -> Tensor:
        tokens = first(x).flatten(2).transpose(1, 2)
        return last(F.scaled_dot_product_attention(tokens, tokens, tokens))

    layers = layers_of(Function(function, conv(8, channels=4, stride=8), nn.Linear(4, 7)))
    assert layers[0].field == (8, 8)
    assert len(layers) > 2
    assert set(fields(layers[1:])) == {None}


def test_a_transposed_convolution_divides_the_jump() -> None:
    layers = layers_of(nn.Sequential(conv(), nn.ConvTranspose2d(3, 3, 2, stride=2), conv()))
    assert fields(layers) == [(3, 3), (3, 3), (4, 4)]
    assert [layer.jump for layer in layers] == [(1, 1), (0.5, 0.5), (0.5, 0.5)]


@pytest.mark.parametrize(
    ("module", "word"),
    [
        (nn.PReLU(4), "PReLU"),
        (nn.Mish(), "Mish"),
        (nn.ELU(), "ELU"),
        (nn.SELU(), "ELU"),
        (nn.Softplus(), "Softplus"),
        (nn.LogSoftmax(1), "LogSoftmax"),
        (nn.LayerNorm([4, 8, 8]), "LayerNorm"),
        (nn.GroupNorm(2, 4), "GroupNorm"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else value,
)
def test_what_changes_a_layer_s_output_is_named_and_counted_there(module: nn.Module, word: str) -> None:
    convolution = nn.Conv2d(3, 4, 1)
    (layer,) = layers_of(nn.Sequential(convolution, module), side=8)
    assert layer.fused_ops == (word,)
    assert layer.params == sum(p.numel() for part in (convolution, module) for p in part.parameters())


def test_fourier_transforms_are_layers_that_see_the_whole_image() -> None:
    there_and_back = Function(lambda x: torch.fft.irfft2(torch.fft.rfft2(x), s=x.shape[-2:]))
    layers = layers_of(nn.Sequential(nn.Conv2d(3, 4, 1), there_and_back), side=8)
    assert layers[0].kind == "convolution"
    assert {layer.kind for layer in layers[1:]} == {"FFT", "inverse FFT"}
    assert layers[-1].field == "image"


def test_a_step_along_channels_is_no_subsampling() -> None:
    layers = layers_of(nn.Sequential(nn.Conv2d(3, 4, 1), Function(lambda x: x[:, ::2])), side=8)
    assert [layer.kind for layer in layers] == ["convolution"]
    rows = layers_of(nn.Sequential(nn.Conv2d(3, 4, 1), Function(lambda x: x[..., ::2, :])), side=8)
    assert [layer.kind for layer in rows] == ["convolution", "subsampling"]
    assert rows[-1].stride == (2, 1)


def test_a_number_that_is_read_from_the_image_is_no_layer() -> None:
    """A branch on the values of the image is traced as it goes."""
    network = Function(lambda x, layer: layer(x) * 2 if x.mean() > 0.3 else layer(x), conv())
    assert trace(network, COST_SPEC)[-1].kind == "convolution"


class ClassToken(nn.Module):
    """Passes a view of a parameter to a module, as class attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.layer = nn.Parameter(torch.zeros(1, 1, 3)), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.token.expand(len(x), -1, -1)) + self.layer(x.flatten(2).transpose(1, 2))


def test_a_parameter_that_is_passed_on_is_traced_and_left_as_it_is() -> None:
    network = ClassToken().to("meta")
    layers = trace(network, COST_SPEC)
    assert sum(layer.macs for layer in layers) == 3 * 5 * (32 * 32 + 1), "the token is expanded for each image"
    assert all(parameter.requires_grad for parameter in network.parameters())
