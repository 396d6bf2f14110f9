"""What holds for every registered architecture, and the closed forms of those that papers give numbers for."""

import dataclasses
import itertools
import re
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from cnnbench.analysis.cost import cost, count
from cnnbench.architectures import architecture, build
from cnnbench.architectures.inception import InceptionBlock
from cnnbench.architectures.layers import GlobalAveragePool, Normalize, conv_bn_relu
from cnnbench.architectures.lenet import PadTo
from cnnbench.architectures.resnet import BasicBlock, ZeroPadShortcut
from cnnbench.types import COST_SPEC, CnnbenchError, Exit, ImageSpec

GRAY = ImageSpec(28, 28, 1, 10, mean=(0.13,), std=(0.31,))
COLOUR = ImageSpec(32, 32, 3, 7, mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26))

every = pytest.mark.parametrize("name", list(architecture))
at_sizes = pytest.mark.parametrize("spec", [GRAY, COLOUR], ids=["28x28x1", "32x32x3"])


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Layers this small take longer to share out than to compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(name: str, spec: ImageSpec) -> nn.Module:
    torch.manual_seed(1)
    return build(name, spec)


def pixels(spec: ImageSpec, count: int = 4) -> Tensor:
    shape = (count, spec.channels, spec.height, spec.width)
    return torch.rand(shape, generator=torch.Generator().manual_seed(2))


@every
def test_declared_cost_is_what_is_counted(name: str) -> None:
    declared, counted = architecture[name].declared, cost(name)
    assert (declared["params"], declared["macs"]) == (counted.params, counted.macs)


@every
@at_sizes
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_one_raw_logit_a_class(name: str, spec: ImageSpec, training: bool) -> None:
    logits = network(name, spec).train(training)(pixels(spec, count=16))
    assert logits.shape == (16, spec.num_classes)
    assert logits.dtype == torch.float32
    assert logits.min() < 0, "a ReLU or softmax at the end has no negative output"
    assert not torch.allclose(logits.sum(dim=1), torch.ones(16), atol=1e-3), "a softmax sums to one"
    assert not torch.allclose(logits.exp().sum(dim=1), torch.ones(16), atol=1e-3), "so does exp of a log-softmax"


@every
@at_sizes
def test_pixels_are_normalised_inside_the_network(name: str, spec: ImageSpec) -> None:
    normalising = network(name, spec).eval()
    plain = network(name, dataclasses.replace(spec, mean=(), std=())).eval()
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (spec.mean, spec.std))
    images = pixels(spec)
    torch.testing.assert_close(normalising(images), plain((images - mean) / std), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(normalising(images), plain(images), atol=1e-3)


@every
@at_sizes
def test_gradients_reach_every_parameter(name: str, spec: ImageSpec) -> None:
    made = network(name, spec).train()
    labels = torch.arange(8) % spec.num_classes
    nn.functional.cross_entropy(made(pixels(spec, count=8)), labels).backward()
    unreached = [key for key, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert unreached == []


@every
@at_sizes
def test_an_image_does_not_depend_on_the_others_of_its_batch(name: str, spec: ImageSpec) -> None:
    made, images = network(name, spec), pixels(spec, count=3)
    made.train()(images)  # so that batch norm has statistics to keep
    made.eval()
    one_by_one = torch.cat([made(image[None]) for image in images])
    torch.testing.assert_close(made(images), one_by_one, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made(images.flip(0)).flip(0), made(images), rtol=1e-4, atol=1e-5)


@every
def test_other_sizes_and_shapes_are_taken(name: str) -> None:
    for height, width in ((33, 45), (64, 64)):
        spec = ImageSpec(height, width, 3, 2)
        assert network(name, spec).eval()(pixels(spec, count=1)).shape == (1, 2)


@every
def test_the_smallest_declared_size_is_taken_and_a_smaller_one_refused(name: str) -> None:
    smallest = architecture[name].declared.get("min_size", 1)
    spec = ImageSpec(smallest, smallest, 1, 2)
    assert network(name, spec).eval()(pixels(spec)).shape == (4, 2)
    if smallest > 1:
        with pytest.raises(CnnbenchError, match=f"needs at least {smallest}x{smallest} pixels") as refused:
            build(name, ImageSpec(32, smallest - 1, 1, 2))
        assert refused.value.code == Exit.USAGE


def test_an_image_too_small_is_refused() -> None:
    message = "inception_small cannot take 3x28 images: it needs at least 4x4 pixels"
    with pytest.raises(CnnbenchError, match=re.escape(message)):
        build("inception_small", ImageSpec(3, 28, 1, 10))


def test_an_unknown_architecture_is_a_usage_error() -> None:
    with pytest.raises(CnnbenchError, match="did you mean lenet5") as refused:
        build("lenet", COST_SPEC)
    assert refused.value.code == Exit.USAGE


def weights(c_in: int, c_out: int, side: int, bias: bool = False) -> int:
    return c_in * c_out * side * side + bias * c_out


def batch_norm(channels: int) -> int:
    return 2 * channels


def params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("side", [28, 32])
def test_lenet5_has_the_parameters_of_the_paper_s_layers(side: int) -> None:
    layers = (1, 6, 5), (6, 16, 5), (16 * 5 * 5, 120, 1), (120, 84, 1), (84, 10, 1)
    assert cost("lenet5", ImageSpec(side, side, 1, 10)).params == sum(weights(*layer, bias=True) for layer in layers)
    assert cost("lenet5", ImageSpec(side, side, 1, 10)).params == 61_706


def test_lenet5_is_the_classic() -> None:
    kinds = [type(module) for module in network("lenet5", GRAY).modules()]
    assert [kinds.count(kind) for kind in (nn.Tanh, nn.AvgPool2d, nn.ReLU, nn.MaxPool2d)] == [4, 2, 0, 0]


def test_small_digits_are_centred_in_zeros() -> None:
    padded = PadTo(GRAY, 32)(torch.ones(1, 1, 28, 28))
    assert padded.shape == (1, 1, 32, 32)
    assert padded[..., 2:30, 2:30].sum() == padded.sum() == 28 * 28


def test_images_of_the_side_or_larger_are_not_padded() -> None:
    assert PadTo(ImageSpec(32, 40, 1, 10), 32)(torch.ones(1, 1, 32, 40)).shape == (1, 1, 32, 40)


@pytest.mark.parametrize("spec", [GRAY, COLOUR], ids=["28x28x1", "32x32x3"])
def test_mlp_is_two_hidden_layers_of_512(spec: ImageSpec) -> None:
    widths = (spec.channels * spec.height * spec.width, 512, 512, spec.num_classes)
    macs = sum(a * b for a, b in itertools.pairwise(widths))
    counted = cost("mlp", spec)
    assert (counted.params, counted.macs) == (macs + sum(widths[1:]), macs)


RESNET20_CONVOLUTIONS = (
    [(3, 16, 32)]
    + [(16, 16, 32)] * 6
    + [(16, 32, 16)] + [(32, 32, 16)] * 5
    + [(32, 64, 8)] + [(64, 64, 8)] * 5
)  # fmt: skip
"""He et al. 2015, section 4.2, n = 3: channels in, channels out, side of the output map; all 3x3."""


def test_resnet20_has_the_parameters_of_the_paper_s_layers() -> None:
    convolutions = sum(weights(c_in, c_out, 3) + batch_norm(c_out) for c_in, c_out, _ in RESNET20_CONVOLUTIONS)
    assert cost("resnet20").params == convolutions + weights(64, 10, 1, bias=True) == 269_722


def test_resnet20_has_the_multiply_adds_of_the_paper_s_layers() -> None:
    macs = sum(weights(c_in, c_out, 3) * side * side for c_in, c_out, side in RESNET20_CONVOLUTIONS) + 64 * 10
    assert cost("resnet20").macs == macs
    assert round(macs, -6) == 41_000_000


def test_resnet20_has_twenty_weighted_layers() -> None:
    kinds = [type(module) for module in network("resnet20", COLOUR).modules()]
    assert kinds.count(nn.Conv2d) + kinds.count(nn.Linear) == 6 * 3 + 2


def test_shortcut_option_a_takes_every_second_pixel_and_appends_zeros_without_parameters() -> None:
    shortcut, x = ZeroPadShortcut(extra_channels=3, stride=2), pixels(ImageSpec(5, 7, 2, 2))
    out = shortcut(x)
    assert params(shortcut) == 0
    assert out.shape == (4, 5, 3, 4)
    assert torch.equal(out[:, :2], x[:, :, ::2, ::2])
    assert torch.equal(out[:, 2:], torch.zeros(4, 3, 3, 4))


@pytest.mark.parametrize(("c_out", "stride"), [(16, 1), (32, 2)])
def test_a_residual_block_without_its_residual_is_its_shortcut(c_out: int, stride: int) -> None:
    block, x = BasicBlock(16, c_out, stride).eval(), torch.rand(2, 16, 9, 8)
    last = block.residual[-1]
    nn.init.zeros_(last.weight)  # type: ignore[arg-type, union-attr]
    assert torch.equal(block(x), block.shortcut(x))
    assert block(x).shape == (2, c_out, -(-9 // stride), -(-8 // stride))


def test_inception_concatenates_its_branches_channels() -> None:
    ones, threes, fives, pooled = 16, (12, 32), (4, 8), 24
    block, x = InceptionBlock(20, ones, threes, fives, pooled), torch.rand(2, 20, 9, 7)
    assert [branch(x).shape[1] for branch in block.branches] == [16, 32, 8, 24]
    assert block(x).shape == (2, 16 + 32 + 8 + 24, 9, 7)
    convolutions = [(20, 16, 1), (20, 12, 1), (12, 32, 3), (20, 4, 1), (4, 8, 5), (20, 24, 1)]
    assert params(block) == sum(weights(*c) + batch_norm(c[1]) for c in convolutions)


def test_inception_branches_see_1_3_5_and_3_pixels_wide() -> None:
    block = InceptionBlock(1, 1, (1, 1), (1, 1), 1).eval()
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
    point = torch.zeros(1, 1, 11, 11)
    point[..., 5, 5] = 1
    assert [(branch(point) > 0).sum().item() for branch in block.branches] == [1, 9, 25, 9]


def test_a_bottleneck_costs_what_theory_says() -> None:
    spec = ImageSpec(28, 28, 256, 1)
    with torch.device("meta"):
        direct = count(conv_bn_relu(256, 32, 5), spec)
        through = count(nn.Sequential(conv_bn_relu(256, 16, 1), conv_bn_relu(16, 32, 5)), spec)
    assert (direct.macs, through.macs) == (160_563_200, 13_246_464)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_same_padding_keeps_the_size_over_the_stride(kernel_size: int, stride: int) -> None:
    assert conv_bn_relu(2, 3, kernel_size, stride)(torch.rand(2, 2, 9, 8)).shape == (2, 3, -(-9 // stride), 8 // stride)


def test_global_average_pooling_is_torch_s_own() -> None:
    x = torch.rand(2, 3, 5, 7)
    torch.testing.assert_close(GlobalAveragePool()(x), nn.AdaptiveAvgPool2d(1)(x).flatten(1))


def test_normalisation_travels_with_the_weights() -> None:
    state = Normalize(COLOUR).state_dict()
    assert {name: tuple(tensor.flatten().tolist()) for name, tensor in state.items()} == {
        "mean": pytest.approx(COLOUR.mean),
        "std": pytest.approx(COLOUR.std),
    }
