"""Names of layers are those of the papers."""

from functools import cache

import pytest

from cnnbench.analysis.description import _without_prefix
from cnnbench.analysis.layer import Layer
from cnnbench.analysis.names import by_kind, layer_names
from cnnbench.analysis.tracer import trace_architecture
from cnnbench.types import COST_SPEC, ImageSpec

GRAY = ImageSpec(28, 28, 1, 10)
LARGE = ImageSpec(224, 224, 3, 10)
INSIDE = ["1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool", "pool_proj", "concat"]
"""Of an Inception block: the columns of table 1 of Szegedy et al. 2014, and the concatenation."""
VGG11 = [
    *("conv1_1", "pool1", "conv2_1", "pool2", "conv3_1", "conv3_2", "pool3"),
    *("conv4_1", "conv4_2", "pool4", "conv5_1", "conv5_2", "pool5"),
]
RESNET18 = [
    f"conv{stage}_{block}/{inside}"
    for stage in (2, 3, 4, 5)
    for block in (1, 2)
    for inside in ("1", "2", "shortcut", "add")
    if inside != "shortcut" or (block == 1 and stage > 2)
]
GOOGLENET = [
    *(f"3{letter}/{inside}" for letter in "ab" for inside in INSIDE),
    "pool3",
    *(f"4{letter}/{inside}" for letter in "abcde" for inside in INSIDE),
    "pool4",
    *(f"5{letter}/{inside}" for letter in "ab" for inside in INSIDE),
]
ALEXNET = ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7", "fc8"]
NAMES = [
    ("lenet5", GRAY, ["pad", "C1", "S2", "C3", "S4", "C5", "F6", "OUTPUT"]),
    ("lenet5", COST_SPEC, ["C1", "S2", "C3", "S4", "C5", "F6", "OUTPUT"]),
    ("alexnet", COST_SPEC, ALEXNET),
    ("alexnet", LARGE, ALEXNET),
    ("vgg11", COST_SPEC, [*VGG11, "fc"]),
    ("vgg11", LARGE, [*VGG11, "fc6", "fc7", "fc8"]),
    ("resnet18", COST_SPEC, ["conv1", *RESNET18, "avg_pool", "fc"]),
    ("resnet18", LARGE, ["conv1", "max_pool", *RESNET18, "avg_pool", "fc"]),
    ("googlenet", COST_SPEC, ["conv2", *GOOGLENET, "avg_pool", "linear"]),
    ("googlenet", LARGE, ["conv1", "pool1", "conv2/3x3_reduce", "conv2", "pool2", *GOOGLENET, "avg_pool", "linear"]),
    ("mlp", GRAY, ["fc1", "fc2", "fc3"]),
]


@cache
def layers_of(arch: str, spec: ImageSpec) -> list[Layer]:
    return [_without_prefix(layer) for layer in trace_architecture(arch, spec).layers]


@pytest.mark.parametrize(
    ("arch", "spec", "names"),
    [pytest.param(*case, marks=[pytest.mark.slow] * (case[0] in ("googlenet", "resnet18"))) for case in NAMES],
    ids=[f"{arch} {spec.size}" for arch, spec, _ in NAMES],
)
def test_layers_have_the_names_of_the_paper(arch: str, spec: ImageSpec, names: list[str]) -> None:
    assert layer_names(arch, layers_of(arch, spec)) == names


def test_stages_and_blocks_of_a_network_for_small_images_are_counted_alike() -> None:
    residual, plain = (layer_names(arch, layers_of(arch, GRAY)) for arch in ("resnet20", "plain20"))
    assert [name for name in residual if name.startswith("conv3_1/")] == [
        *("conv3_1/1", "conv3_1/2", "conv3_1/shortcut", "conv3_1/shortcut_pad", "conv3_1/add")
    ]
    assert plain == [name for name in residual if "shortcut" not in name and "add" not in name]


def test_a_network_without_a_paper_is_named_by_kind() -> None:
    layers = layers_of("lenet5", GRAY)
    assert layer_names("Sequential", layers) == by_kind(layers)
    assert by_kind(layers) == ["pad1", "conv1", "pool1", "conv2", "pool2", "fc1", "fc2", "fc3"]


def test_layers_that_are_not_the_paper_s_are_named_by_kind() -> None:
    layers = layers_of("lenet5", GRAY)[:-1]
    assert layer_names("lenet5", layers) == by_kind(layers)
