"""Costs against independent counts: the textbook formula of each layer, and fvcore's."""

import importlib
import logging
import math
import warnings
from types import ModuleType
from typing import Any

import pytest
import torch
from analysis_helpers import LARGE, OTHERS, apart, case, layers_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cnnbench.analysis.cost import cost, count, fc_weights, total
from cnnbench.architectures import architecture, build
from cnnbench.types import COST_SPEC, CnnbenchError, Cost, Exit, ImageSpec

SPECS = [COST_SPEC, ImageSpec(33, 45, 1, 100), LARGE]

PRODUCTS = ("conv", "linear", "matmul", "addmm")


@pytest.fixture(scope="module")
def fvcore() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit, when it is imported
        return importlib.import_module("fvcore.nn")


def large(name: str) -> bool:
    declared = architecture[name].declared
    return declared["macs"] > 60e6 or declared["params"] > 5e6


def by_hand(network: nn.Module, spec: ImageSpec) -> tuple[int, int, int]:
    """Parameters, multiply-adds and activations."""
    macs = activations = 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs, activations
        if isinstance(layer, nn.Conv2d):
            _, c_out, rows, columns = output.shape
            macs += c_out * rows * columns * (layer.in_channels // layer.groups) * math.prod(layer.kernel_size)
        elif isinstance(layer, nn.Linear):
            macs += layer.in_features * output.numel()
        if isinstance(layer, nn.Conv2d | nn.Linear):
            activations += output.numel()

    hooks = [layer.register_forward_hook(add) for layer in network.modules()]
    network.eval()(torch.zeros(1, spec.channels, spec.height, spec.width, device="meta"))
    for hook in hooks:
        hook.remove()
    return sum(p.numel() for p in network.parameters()), macs, activations


def counted(network: nn.Module, spec: ImageSpec) -> tuple[int, int, int]:
    found = count(network.to("meta"), spec)
    return found.params, found.macs, found.activations


@pytest.mark.parametrize(("name", "spec"), [case(name, spec) for name in architecture for spec in SPECS], ids=str)
def test_cost_is_the_sum_of_the_layers_formulas(name: str, spec: ImageSpec) -> None:
    network, layers = apart(name, spec)
    sums = sum(layer.macs for layer in layers), sum(layer.activations for layer in layers)
    assert (sum(layer.params for layer in layers), *sums) == by_hand(network, spec)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "spec"), [case(name, COST_SPEC) for name in OTHERS], ids=str)
def test_the_cost_of_other_libraries_networks_is_the_sum_of_the_formulas(name: str, spec: ImageSpec) -> None:
    network, layers = apart(name, spec)
    found = total(network, layers)
    assert (found.params, found.macs, found.activations) == by_hand(network, spec)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * large(name)) for name in architecture])
@pytest.mark.slow
def test_fvcore_counts_the_same(name: str, fvcore: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="fvcore")
    network, pixels = build(name, COST_SPEC).eval(), torch.zeros(1, 3, 32, 32)

    def analysed(kind: Any) -> Any:
        return kind(network, pixels).tracer_warnings("none").unsupported_ops_warnings(False)

    operators = analysed(fvcore.FlopCountAnalysis).by_operator()
    found = cost(name)
    assert found.macs == sum(operators[operator] for operator in PRODUCTS)
    assert found.activations == analysed(fvcore.ActivationCountAnalysis).total()


def test_a_convolution_as_a_fully_connected_layer_joins_every_input_to_every_output() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16 * 16, 5))
    expected = (3 * 32 * 32) * (8 * 16 * 16) + (8 * 16 * 16) * 5  # the linear layer is one already
    assert fc_weights(layers_of(network)) == expected


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "inception_small"])
def test_fully_connected_equivalents_are_the_products_of_the_tensors_sizes(name: str) -> None:
    network, layers = apart(name, COST_SPEC)
    expected = 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal expected
        expected += inputs[0].numel() * output.numel()

    hooks = [m.register_forward_hook(add) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    network.eval()(torch.zeros(1, 3, 32, 32, device="meta"))
    for hook in hooks:
        hook.remove()
    assert fc_weights(layers) == expected


def test_a_fully_connected_network_is_its_own_equivalent() -> None:
    network, layers = apart("mlp", COST_SPEC)
    assert fc_weights(layers) == sum(p.numel() for p in network.parameters() if p.ndim == 2)


PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(deadline=None, max_examples=60)
@given(
    kernel=PAIRS,
    stride=PAIRS,
    padding=PAIRS,
    dilation=PAIRS,
    groups=st.sampled_from([1, 2, 4]),
    rows=st.integers(7, 40),
    columns=st.integers(7, 40),
    bias=st.booleans(),
)
def test_strides_dilation_groups_and_odd_kernels_are_counted(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    rows: int,
    columns: int,
    bias: bool,
) -> None:
    layer = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups, bias, device="meta")
    places = 1
    for axis, side in enumerate((rows, columns)):
        places *= (side + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
    weights = 8 * (4 // groups) * math.prod(kernel)
    expected = Cost(params=weights + 8 * bias, macs=weights * places, activations=8 * places, depth=1)
    assert count(layer, ImageSpec(rows, columns, 4, 2)) == expected


@settings(deadline=None, max_examples=20)
@given(kernel=PAIRS, stride=PAIRS, groups=st.sampled_from([1, 2]), side=st.integers(3, 20))
def test_a_transposed_convolution_works_once_for_each_pixel_it_reads(
    kernel: tuple[int, int], stride: tuple[int, int], groups: int, side: int
) -> None:
    layer = nn.ConvTranspose2d(4, 6, kernel, stride, groups=groups, bias=False, device="meta")
    weights = 4 * (6 // groups) * math.prod(kernel)
    sides = [(side - 1) * stride[axis] + kernel[axis] for axis in (0, 1)]
    expected = Cost(params=weights, macs=weights * side * side, activations=6 * math.prod(sides), depth=1)
    assert count(layer, ImageSpec(side, side, 4, 2)) == expected


def test_what_is_neither_convolution_nor_matrix_product_is_free() -> None:
    free = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Flatten(), nn.Tanh())
    assert count(free.to("meta"), COST_SPEC) == Cost(params=6, macs=0, activations=0, depth=0)


def test_a_shared_parameter_is_counted_once_and_its_work_every_time() -> None:
    layer = nn.Conv2d(3, 3, 1, bias=False, device="meta")
    expected = Cost(params=9, macs=2 * 9 * 32 * 32, activations=2 * 3 * 32 * 32, depth=2)
    assert count(nn.Sequential(layer, layer), COST_SPEC) == expected


def test_parameters_that_no_image_meets_are_counted_all_the_same() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())
    network.unused = nn.Linear(10, 10)
    network.forward = lambda x: network[1](network[0](x))  # type: ignore[method-assign]
    assert counted(network, COST_SPEC) == (16 + 110, 12 * 32 * 32, 4 * 32 * 32)


def test_bytes_and_flops_follow_from_the_counts() -> None:
    found = Cost(params=3, macs=5, activations=7, depth=1)
    assert (found.weight_bytes, found.flops, found.activation_bytes) == (12, 10, 28)


@pytest.mark.parametrize(
    ("name", "weighted_layers"),
    [
        ("resnet20", 20),
        pytest.param("resnet110", 110, marks=pytest.mark.slow),
        ("resnet50", 50),
        pytest.param("resnet152", 152, marks=pytest.mark.slow),
        ("plain20", 20),
        pytest.param("plain56", 56, marks=pytest.mark.slow),
        ("lenet5", 5),
        ("mlp_deep", 6),
    ],
)
def test_depth_is_the_number_of_layers_that_papers_name(name: str, weighted_layers: int) -> None:
    assert total(*apart(name, COST_SPEC)).depth == weighted_layers


class Devices(TorchDispatchMode):
    """Devices of all tensors that are made, but for a few numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.seen |= {leaf.device.type for leaf in tree_leaves(out) if isinstance(leaf, Tensor) and leaf.numel() > 10}
        return out


def test_a_module_is_counted_and_left_as_it_is() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 10)).train()
    counted = count(module, COST_SPEC)
    assert (counted.params, counted.macs) == (112 + 36_010, 27 * 4 * 900 + 36_000)
    assert module.training
    assert {parameter.device.type for parameter in module.parameters()} == {"cpu"}
    with pytest.raises(CnnbenchError, match="Sequential fails on an image of 8x8x3: ") as refused:
        count(module, ImageSpec(8, 8, 3, 10))
    assert refused.value.code == Exit.USAGE


def test_counting_allocates_nothing() -> None:
    with Devices() as devices:
        cost("resnet18", LARGE)
    assert devices.seen == {"meta"}


def test_images_that_no_memory_could_hold_are_counted() -> None:
    side, classifier = 2**17, 64 * 10
    convolutions = cost("resnet20").macs - classifier
    assert cost("resnet20", ImageSpec(side, side, 3, 10)).macs == convolutions * (side // 32) ** 2 + classifier


def test_unknown_and_too_small_are_usage_errors() -> None:
    for name, spec in (("resnet21", COST_SPEC), ("inception_small", ImageSpec(3, 3, 1, 2))):
        with pytest.raises(CnnbenchError) as refused:
            cost(name, spec)
        assert refused.value.code == Exit.USAGE
