"""The networks of ImageNet, against torchvision's: the figures of its model cards, and its weights in ours."""

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from zoo import DEEP, IMAGENET, cost, furthest, network, on_meta, pixels

from cnnbench.types import COST_SPEC, ImageSpec

CARDS = {
    "alexnet": (61_100_840, 0.71, 8),
    "resnet18": (11_689_512, 1.81, 18),
    "resnet34": (21_797_672, 3.66, 34),
    "resnet50": (25_557_032, 4.09, 50),
    "resnet101": (44_549_160, 7.80, 101),
    "resnet152": (60_192_808, 11.51, 152),
    "vgg11": (132_863_336, 7.61, 11),
    "vgg11_bn": (132_868_840, 7.61, 11),
    "vgg13": (133_047_848, 11.31, 13),
    "vgg13_bn": (133_053_736, 11.31, 13),
    "vgg16": (138_357_544, 15.47, 16),
    "vgg16_bn": (138_365_992, 15.47, 16),
    "vgg19": (143_667_240, 19.63, 19),
    "vgg19_bn": (143_678_248, 19.63, 19),
}
"""Parameters and thousand million multiply-adds of torchvision's model cards, and the layers that the name counts."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in DEEP)) for name in CARDS])
def test_cost_at_224_pixels_is_the_published_one(name: str) -> None:
    params, giga, depth = CARDS[name]
    counted = cost(name, IMAGENET)
    assert counted.params == params
    assert counted.macs / 1e9 == pytest.approx(giga, rel=0.01)
    assert counted.depth == depth


def randomised(network: nn.Module) -> nn.Module:
    """In eval mode, with batch norms that do something."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, least in ((module.running_var, 0.5), (module.weight, 0.5), (module.bias, -0.5)):
                assert tensor is not None
                nn.init.uniform_(tensor, least, least + 1)
            assert module.running_mean is not None
            nn.init.normal_(module.running_mean, std=0.2)
    return network.eval()


def with_weights_of(theirs: nn.Module, name: str) -> nn.Module:
    """Our network with the other's tensors, one after the other."""
    ours = on_meta(name, IMAGENET)[1]  # type: ignore[index]
    before, after = ours.state_dict(), theirs.state_dict()
    assert [tuple(t.shape) for t in before.values()] == [tuple(t.shape) for t in after.values()]
    ours.load_state_dict(dict(zip(before, after.values(), strict=True)), assign=True)
    return ours.eval()


def batch() -> Tensor:
    return pixels(IMAGENET, count=2) * 4 - 2


LIGHT = ("alexnet", "resnet18")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in LIGHT)) for name in CARDS])
@torch.no_grad()
@pytest.mark.slow
def test_torchvision_s_weights_give_torchvision_s_logits(name: str) -> None:
    torch.manual_seed(1)
    theirs = randomised(models.get_model(name, weights=None))
    ours = with_weights_of(theirs, name)
    expected = theirs(batch())
    assert furthest(expected[0], expected[1]) > 1e-4, "the images are told apart"
    assert furthest(ours(batch()), expected) < 1e-5


@pytest.mark.parametrize("name", [name for name in CARDS if name.startswith("vgg")])
def test_vgg_for_small_images_keeps_the_convolutions_and_one_linear_layer(name: str) -> None:
    small, original = (
        [m for m in on_meta(name, spec).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        for spec in (COST_SPEC, IMAGENET)
    )
    assert [str(m) for m in small[:-1]] == [str(m) for m in original[:-3]]
    assert str(small[-1]) == str(nn.Linear(512, 10))


@torch.no_grad()
def hidden_stds(made: nn.Module, spec: ImageSpec) -> list[float]:
    """The standard deviation of what each layer with weights makes of noise, but the last."""
    stds: list[float] = []
    for module in made.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda module, x, out: stds.append(out.std().item()))
    made.eval()(torch.randn(2, spec.channels, spec.height, spec.width, generator=torch.Generator().manual_seed(3)))
    return stds[:-1]


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg19"])
def test_without_batch_norm_a_signal_keeps_its_scale(name: str) -> None:
    stds = hidden_stds(network(name, COST_SPEC), COST_SPEC)
    assert 0.1 < stds[-1] / stds[0] < 10


def test_under_torch_s_own_initialisation_it_would_fade() -> None:
    made = network("vgg19", COST_SPEC)
    for module in made.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
    stds = hidden_stds(made, COST_SPEC)
    assert stds[-1] / stds[0] < 0.1


def test_fastnet_has_eight_layers_with_weights_of_its_stated_widths() -> None:
    stem, stages = [(3, 64)], [(64, 128)] + [(128, 128)] * 2 + [(128, 256)] + [(256, 256)] * 2
    expected = sum(9 * c_in * c_out + 2 * c_out for c_in, c_out in stem + stages) + 257 * 10
    assert cost("fastnet", COST_SPEC).params == expected
    assert cost("fastnet", COST_SPEC).depth == 8
