"""torchvision's and timm's networks by name, with and without the stem for small images."""

import sys

import pytest
import torch
from torch import nn
from torchvision import models
from zoo import no_pixels, on_meta, pixels

from cnnbench.__main__ import main
from cnnbench.architectures import architecture, build, external
from cnnbench.types import COST_SPEC, CnnbenchError, Exit, ImageSpec

SAMPLE = [
    "torchvision/alexnet",
    "torchvision/convnext_tiny",
    "torchvision/densenet121",
    "torchvision/efficientnet_b0",
    "torchvision/googlenet",
    "torchvision/inception_v3",
    "torchvision/mobilenet_v3_small",
    "torchvision/squeezenet1_1",
    "torchvision/swin_t",
    "torchvision/vit_b_16",
    "timm/efficientnet_b0",
    "timm/resnet18",
    "timm/vit_tiny_patch16_224",
]

LIGHT = {
    "torchvision/alexnet",
    "torchvision/mobilenet_v3_small",
    "torchvision/squeezenet1_1",
    "torchvision/vit_b_16",
    "timm/resnet18",
}


def refusal(name: str, spec: ImageSpec = COST_SPEC, code: Exit = Exit.USAGE) -> str:
    with pytest.raises(CnnbenchError) as refused:
        on_meta(name, spec)
    assert refused.value.code == code
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in LIGHT)) for n in SAMPLE])
def test_other_libraries_networks_give_one_logit_a_class_of_gray_images(name: str) -> None:
    spec = ImageSpec(224, 224, 1, 7)
    made = on_meta(name, spec)
    assert made.eval()(no_pixels(spec)).shape == (1, 7)
    assert made.train()(no_pixels(spec, count=2)).shape == (2, 7)


@pytest.mark.slow
@pytest.mark.parametrize("name", models.list_models(module=models))
def test_every_classifier_of_torchvision_takes_images_of_any_channels(name: str) -> None:
    spec = ImageSpec(224, 224, 5, 7)
    assert on_meta(f"torchvision/{name}", spec).eval()(no_pixels(spec)).shape == (1, 7)


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnet18"])
def test_they_cost_what_their_classes_and_channels_ask_and_no_more(name: str) -> None:
    published, classifier, stem = 11_689_512, 512 * 1000 + 1000, 3 * 64 * 49
    made = on_meta(name, ImageSpec(64, 64, 1, 10))
    parameters = sum(p.numel() for p in made.parameters())
    assert parameters == published - classifier + 512 * 10 + 10 - stem + stem // 3


def test_a_gray_stem_keeps_the_other_settings_of_the_colour_one() -> None:
    for name in ("torchvision/resnet18", "torchvision/vgg11", "torchvision/inception_v3"):
        gray, colour = (first_convolution(on_meta(name, ImageSpec(224, 224, c, 2))) for c in (1, 3))
        assert str(gray) == str(colour).replace("Conv2d(3,", "Conv2d(1,")


def first_convolution(made: nn.Module) -> nn.Conv2d:
    return next(module for module in made.modules() if isinstance(module, nn.Conv2d))


def pools_before_the_second_convolution(made: nn.Module) -> int:
    kinds = [type(module) for module in made.modules() if isinstance(module, nn.Conv2d | nn.MaxPool2d)]
    second = [place for place, kind in enumerate(kinds) if kind is nn.Conv2d][1]
    return kinds[:second].count(nn.MaxPool2d)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("torchvision/alexnet", 3),
        ("torchvision/googlenet", 1),
        pytest.param("torchvision/mobilenet_v2", 3, marks=pytest.mark.slow),
        ("torchvision/resnet18", 1),
        ("torchvision/vgg11", 1),
        pytest.param("timm/mobilenetv3_small_100", 1, marks=pytest.mark.slow),
        ("timm/resnet18", 3),
    ],
)
def test_small_is_a_3x3_stem_that_keeps_the_size(name: str, channels: int) -> None:
    spec = ImageSpec(64, 64, channels, 7)
    made, original = on_meta(f"{name}+small", spec), on_meta(name, spec)
    stem, replaced = first_convolution(made), first_convolution(original)
    assert (stem.kernel_size, stem.stride, stem.padding) == ((3, 3), (1, 1), (1, 1))
    assert (stem.in_channels, stem.out_channels) == (channels, replaced.out_channels)
    assert (stem.bias is None) is (replaced.bias is None)
    assert pools_before_the_second_convolution(made) == 0
    assert (replaced.stride, pools_before_the_second_convolution(original)) != ((1, 1), 0)
    assert made.eval()(no_pixels(spec)).shape == (1, 7)
    kinds = [
        [type(module) for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        for network in (made, original)
    ]
    assert kinds[0] == kinds[1], "the rest is left alone"


@pytest.mark.parametrize(
    "name",
    [
        "torchvision/vit_b_16",
        "torchvision/convnext_tiny",
        pytest.param("timm/vit_tiny_patch16_224", marks=pytest.mark.slow),
    ],
)
def test_patches_cannot_be_made_smaller(name: str) -> None:
    side = first_convolution(on_meta(name, ImageSpec(224, 224, 3, 2))).stride[0]
    line = f"{name}+small: its first convolution cuts the image into patches of {side}x{side} pixels"
    assert refusal(f"{name}+small", ImageSpec(224, 224, 3, 2)).startswith(line)


def test_a_stem_that_keeps_the_size_cannot_be_made_smaller() -> None:
    line = "torchvision/vgg16+small: its stem keeps the size of the image already; use torchvision/vgg16"
    assert refusal("torchvision/vgg16+small") == line


def test_a_network_without_convolutions_has_no_stem() -> None:
    with pytest.raises(CnnbenchError, match="no convolution to begin with"):
        external.small_stem(nn.Linear(2, 2), COST_SPEC, name="theirs/linear")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("keras/resnet18", "unknown architecture 'keras/resnet18': expected torchvision/<name> or timm/<name>"),
        ("torchvision/resnet19", r"did you mean torchvision/resnet18 or torchvision/"),
        ("torchvision/resnet18+small+small", "did you mean torchvision/resnet18"),
        ("torchvision/resnet18+large", "did you mean torchvision/resnet18"),
        ("torchvision/", "did you mean torchvision/alexnet?"),
        ("timm/resnet8", "did you mean timm/resnet"),
    ],
)
def test_unknown_names_are_usage_errors_with_the_nearest(name: str, expected: str) -> None:
    assert expected in refusal(name)


@pytest.mark.parametrize("name", ["fcn_resnet50", "fasterrcnn_resnet50_fpn", "raft_small", "r3d_18"])
def test_networks_for_other_tasks_are_refused(name: str) -> None:
    expected = f"torchvision/{name} is not an image classifier with floating-point weights"
    assert refusal(f"torchvision/{name}") == refusal(f"torchvision/{name}+small") == expected


def test_without_timm_its_networks_are_refused_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    expected = "timm is not installed: pip install 'cnnbench[timm]'"
    assert refusal("timm/resnet18", code=Exit.ENVIRONMENT) == expected
    assert on_meta("torchvision/resnet18", COST_SPEC)


def test_training_a_network_for_another_task_exits_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--model.arch", "torchvision/fcn_resnet50"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_training_one_of_timm_without_it_is_an_environment_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert main(["fit", "--model.arch", "timm/resnet18"]) == 6
    assert capsys.readouterr().err.endswith("timm is not installed: pip install 'cnnbench[timm]'\n")


@pytest.mark.parametrize(
    ("name", "size", "smallest"),
    [
        ("torchvision/alexnet", "62", 63),
        pytest.param("torchvision/vgg11", "31", 32, marks=pytest.mark.slow),
        ("torchvision/vit_b_16", "33", 48),
    ],
)
def test_a_size_that_they_cannot_take_is_refused_with_one_that_they_can(name: str, size: str, smallest: int) -> None:
    line = refusal(name, ImageSpec.of(size, 10))
    assert line.startswith(f"{name} cannot take {size}x{size}x3 images: {size}x{size}x3")
    assert line.endswith(f"; the smallest square it takes is {smallest}x{smallest}")
    assert on_meta(name, ImageSpec(smallest, smallest, 3, 10))


@pytest.mark.parametrize(
    ("name", "with_heads", "without"),
    [("googlenet", 13_004_888, 6_624_904), ("inception_v3", 27_161_264, 23_834_568)],
)
def test_auxiliary_heads_are_left_out_but_can_be_counted(name: str, with_heads: int, without: int) -> None:
    spec = external.PUBLISHED[f"torchvision/{name}"]
    assert external.params_with_auxiliary_heads(f"torchvision/{name}", spec) == with_heads
    assert sum(p.numel() for p in on_meta(f"torchvision/{name}", spec).parameters()) == without


def test_a_small_resnet18_of_torchvision_learns_from_gray_digits() -> None:
    torch.manual_seed(1)
    spec = ImageSpec(28, 28, 1, 10)
    made = build("torchvision/resnet18+small", spec).train()
    loss = nn.functional.cross_entropy(made(pixels(spec, count=2)), torch.tensor([3, 7]))
    loss.backward()
    assert [key for key, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnet18", "torchvision/resnet18+small"])
def test_an_entry_says_whose_network_it_is_and_is_not_listed(name: str) -> None:
    library, model = name.removesuffix("+small").split("/")
    entry = architecture[name]
    assert (entry.name, entry.summary) == (name, f"{model} of {library}")
    assert name not in list(architecture)


def test_our_own_names_need_no_other_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("cnnbench.architectures.external", "timm", "torchvision"):
        monkeypatch.setitem(sys.modules, module, None)
    assert on_meta("resnet20", COST_SPEC)
