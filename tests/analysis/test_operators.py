"""The table of operators: its names are torch's, and what is not in it is reported or counted with another layer."""

import pytest
import torch
from analysis_helpers import layers_of
from torch import nn

from cnnbench.analysis.operators import OPERATORS, POINTWISE


@pytest.mark.parametrize("name", [*OPERATORS, *POINTWISE])
def test_every_name_is_an_operator_of_torch(name: str) -> None:
    assert hasattr(torch.ops.aten, name)


def test_no_operator_is_both_a_layer_and_pointwise() -> None:
    assert OPERATORS.keys().isdisjoint(POINTWISE)


class Lerp(nn.Module):
    """Between its input and a parameter per channel: an operator that no rule names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.end = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.lerp(x, self.end, 0.5)


def test_an_operator_without_a_rule_is_a_layer_of_its_own_on_the_image() -> None:
    layers = layers_of(nn.Sequential(Lerp(3), nn.Conv2d(3, 4, 1)))
    assert [(layer.kind, layer.params) for layer in layers] == [("lerp", 3), ("convolution", 16)]


def test_a_pointwise_operator_with_parameters_is_a_layer_of_its_own_on_the_image() -> None:
    layers = layers_of(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()))
    assert [(layer.kind, layer.params, layer.fused_ops) for layer in layers] == [("BatchNorm", 6, ("ReLU",))]


def test_parameters_of_an_operator_without_a_rule_are_counted_with_the_layer_before() -> None:
    (layer,) = layers_of(nn.Sequential(nn.Conv2d(3, 4, 1), Lerp(4)))
    assert (layer.kind, layer.params, layer.weights, layer.fused_ops) == ("convolution", 16 + 4, 12, ())


def test_an_operator_without_parameters_on_the_image_is_no_layer() -> None:
    assert [layer.kind for layer in layers_of(nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 1)))] == ["convolution"]
