"""What holds for every registered architecture, and for the layers that families share."""

import dataclasses

import pytest
import torch
from torch import nn
from zoo import (
    COLOUR,
    at_sizes,
    cost,
    every_but_deep,
    every_with_weights,
    furthest,
    network,
    no_pixels,
    on_meta,
    pixels,
    settled,
)

from cnnbench.architectures import architecture, build
from cnnbench.architectures.layers import GlobalAveragePool, GlobalMaxPool, Normalize, conv_bn, conv_bn_relu, he_init
from cnnbench.types import COST_SPEC, CnnbenchError, Exit, ImageSpec


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("resnet101", "resnet110", "resnet152")))
        for name in architecture
    ],
)
def test_declared_cost_is_what_is_counted(name: str) -> None:
    declared, counted = architecture[name].declared, cost(name, COST_SPEC)
    assert (declared["params"], declared["macs"]) == (counted.params, counted.macs)


@every_but_deep
def test_every_parameter_has_a_part_in_the_logits_of_training(name: str) -> None:
    made = on_meta(name, COLOUR).train()
    logits = made(no_pixels(COLOUR, count=2))
    assert logits.shape == (2, COLOUR.num_classes)
    logits.sum().backward()
    assert [key for key, p in made.named_parameters() if p.grad is None] == []


@every_with_weights
@at_sizes
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_one_raw_logit_a_class(name: str, spec: ImageSpec, training: bool) -> None:
    images = pixels(spec)
    logits = settled(network(name, spec), images).train(training)(images)
    assert logits.shape == (4, spec.num_classes)
    assert logits.dtype == torch.float32
    assert logits.min() < 0, "a ReLU or softmax at the end has no negative output"
    assert not torch.allclose(logits.exp().sum(dim=1), torch.ones(4), atol=1e-3), "a log-softmax's exp sums to one"


@every_with_weights
@at_sizes
def test_pixels_are_normalised_inside_the_network(name: str, spec: ImageSpec) -> None:
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (spec.mean, spec.std))
    images = pixels(spec)
    normalised = (images - mean) / std
    normalising = settled(network(name, spec), images)
    plain = settled(network(name, dataclasses.replace(spec, mean=(), std=())), normalised)
    assert furthest(normalising(images), plain(normalised)) < 1e-5
    assert furthest(normalising(images), plain(images)) > 1e-2


@every_with_weights
@at_sizes
def test_gradients_reach_every_parameter(name: str, spec: ImageSpec) -> None:
    made = network(name, spec).train()
    labels = torch.arange(8) % spec.num_classes
    nn.functional.cross_entropy(made(pixels(spec, count=8)), labels).backward()
    unreached = [key for key, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert unreached == []


@every_with_weights
@at_sizes
def test_an_image_does_not_depend_on_the_others_of_its_batch(name: str, spec: ImageSpec) -> None:
    images = pixels(spec).double()  # plain56 amplifies the rounding of float32
    made = settled(network(name, spec).double(), images)
    one_by_one = torch.cat([made(image[None]) for image in images])
    assert furthest(made(images), one_by_one) < 1e-8
    assert furthest(made(images.flip(0)).flip(0), one_by_one) < 1e-8
    assert furthest(one_by_one.flip(0), one_by_one) > 1e-4


@every_with_weights
def test_one_seed_gives_one_set_of_weights(name: str) -> None:
    first, second = (network(name, COLOUR).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_an_unknown_architecture_is_a_usage_error() -> None:
    with pytest.raises(CnnbenchError, match="did you mean lenet5") as refused:
        build("lenet", COST_SPEC)
    assert refused.value.code == Exit.USAGE


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_same_padding_keeps_the_size_over_the_stride(kernel_size: int, stride: int) -> None:
    for make in (conv_bn, conv_bn_relu):
        layers = make(2, 3, kernel_size=kernel_size, stride=stride)
        assert layers(torch.rand(2, 2, 9, 8)).shape == (
            2,
            3,
            -(-9 // stride),
            8 // stride,
        )


def test_only_conv_bn_relu_ends_in_relu() -> None:
    x = torch.randn(2, 2, 9, 8)
    assert conv_bn(2, 3, kernel_size=3)(x).min() < 0 == conv_bn_relu(2, 3, kernel_size=3)(x).min()


def test_global_pooling_is_torch_s_own() -> None:
    x = torch.rand(2, 3, 5, 7)
    torch.testing.assert_close(GlobalAveragePool()(x), nn.AdaptiveAvgPool2d(1)(x).flatten(1))
    torch.testing.assert_close(GlobalMaxPool()(x), nn.AdaptiveMaxPool2d(1)(x).flatten(1))


@pytest.mark.parametrize(
    ("layer", "fan_in"), [(nn.Conv2d(64, 128, 3), 64 * 9), (nn.Conv2d(3, 512, 11), 3 * 121), (nn.Linear(900, 400), 900)]
)
def test_he_initialisation_has_the_variance_2_over_fan_in(layer: nn.Conv2d | nn.Linear, fan_in: int) -> None:
    torch.manual_seed(1)
    last = nn.Linear(8, 8)
    before = last.weight.clone()
    he_init(nn.Sequential(layer, nn.ReLU(), last))
    assert torch.equal(last.weight, before)
    assert layer.weight.var().item() == pytest.approx(2 / fan_in, rel=0.03)
    assert layer.weight.mean().item() == pytest.approx(0, abs=0.01 * layer.weight.std().item())
    assert layer.bias is not None
    assert not layer.bias.any()


def test_normalisation_travels_with_the_weights() -> None:
    state = Normalize(COLOUR).state_dict()
    assert {name: tuple(tensor.flatten().tolist()) for name, tensor in state.items()} == {
        "mean": pytest.approx(COLOUR.mean),
        "std": pytest.approx(COLOUR.std),
    }
