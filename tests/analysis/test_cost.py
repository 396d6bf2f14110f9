"""Costs against an independent count: the textbook formula of each layer, from the shapes that flow through it."""

import importlib
import math

import pytest
import torch
from torch import Tensor, nn

from cnnbench.analysis.cost import cost, count
from cnnbench.architectures import architecture, build
from cnnbench.types import COST_SPEC, CnnbenchError, Cost, Exit, ImageSpec

SPECS = [COST_SPEC, ImageSpec(28, 28, 1, 10), ImageSpec(33, 45, 3, 100), ImageSpec(64, 64, 1, 2)]


def by_hand(network: nn.Module, spec: ImageSpec) -> Cost:
    macs = 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        if isinstance(layer, nn.Conv2d):
            _, c_out, rows, columns = output.shape
            macs += c_out * rows * columns * (layer.in_channels // layer.groups) * math.prod(layer.kernel_size)
        elif isinstance(layer, nn.Linear):
            macs += layer.in_features * output.numel()

    for layer in network.modules():
        layer.register_forward_hook(add)
    network.eval()(torch.zeros(1, spec.channels, spec.height, spec.width))
    return Cost(params=sum(p.numel() for p in network.parameters()), macs=macs)


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("name", list(architecture))
def test_cost_is_the_sum_of_the_layers_formulas(name: str, spec: ImageSpec) -> None:
    assert cost(name, spec) == by_hand(build(name, spec), spec)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_strides_dilation_groups_and_odd_kernels_are_counted(groups: int) -> None:
    spec = ImageSpec(17, 23, 4, 2)

    def make() -> nn.Module:
        return nn.Conv2d(4, 8, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=groups)

    with torch.device("meta"):
        counted = count(make(), spec)
    rows, columns = (17 + 2 - 3) // 2 + 1, 23 + 4 - 9 + 1
    macs = 8 * rows * columns * (4 // groups) * 3 * 5
    assert counted == Cost(params=8 * (4 // groups) * 15 + 8, macs=macs) == by_hand(make(), spec)


def test_what_is_neither_convolution_nor_matrix_product_is_free() -> None:
    with torch.device("meta"):
        free = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Flatten(), nn.Tanh())
        assert count(free, COST_SPEC) == Cost(params=6, macs=0)


def test_a_shared_parameter_is_counted_once_and_its_work_every_time() -> None:
    with torch.device("meta"):
        layer = nn.Conv2d(3, 3, 1, bias=False)
        assert count(nn.Sequential(layer, layer), COST_SPEC) == Cost(params=9, macs=2 * 9 * 32 * 32)


@pytest.mark.parametrize("name", list(architecture))
def test_flops_are_twice_the_macs(name: str) -> None:
    assert cost(name).flops == 2 * cost(name).macs > 0


@pytest.mark.parametrize("name", list(architecture))
def test_counting_allocates_no_parameter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[nn.Module] = []
    module = importlib.import_module("cnnbench.analysis.cost")
    monkeypatch.setattr(module, "count", lambda network, spec: counted.append(network))
    cost(name)
    assert {tensor.device.type for tensor in counted[0].state_dict().values()} == {"meta"}


def test_images_that_no_memory_could_hold_are_counted() -> None:
    side, classifier = 2**17, 64 * 10
    convolutions = cost("resnet20").macs - classifier
    assert cost("resnet20", ImageSpec(side, side, 3, 10)).macs == convolutions * (side // 32) ** 2 + classifier


def test_unknown_and_too_small_are_usage_errors() -> None:
    for name, spec in (("resnet21", COST_SPEC), ("inception_small", ImageSpec(3, 3, 1, 2))):
        with pytest.raises(CnnbenchError) as refused:
            cost(name, spec)
        assert refused.value.code == Exit.USAGE
