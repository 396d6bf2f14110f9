"""Which sizes of image the networks take, and what is said of the others."""

import re
from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from zoo import every, every_but_deep, no_pixels, on_meta

from cnnbench.architectures import architecture, build, sizes
from cnnbench.types import CnnbenchError, Exit, ImageSpec

SMALLEST = {
    "alexnet": 8,
    "fastnet": 8,
    "netresdeep": 4,
    "googlenet": 4,
    "inception_small": 4,
    "inception_small_nobottleneck": 4,
    **{f"vgg{depth}{suffix}": 16 for depth in (11, 13, 16, 19) for suffix in ("", "_bn")},
}
"""2 to the number of poolings that halve, rounding down; googlenet's round up, but find nothing at 1 x 1."""


@every_but_deep
@pytest.mark.parametrize("size", ["28x28x1", "28x28x3", "64x64x3", "224x224x3"])
def test_usual_sizes_beside_32x32x3_are_taken(name: str, size: str) -> None:
    _, shape = sizes.probe_forward(architecture[name].load(), ImageSpec.of(size, 7))
    assert shape == (1, 7)


@every
def test_the_smallest_size_is_taken_and_named_when_less_is_refused(name: str) -> None:
    side = SMALLEST.get(name, 1)
    _, shape = sizes.probe_forward(architecture[name].load(), ImageSpec(side, side, 3, 2))
    assert shape == (1, 2)
    if side > 1:
        less = side - 1
        with pytest.raises(CnnbenchError) as refused:
            build(name, ImageSpec(less, less, 3, 2))
        line = rf"{name} cannot take {less}x{less}x3 images: {less}x{less}x3( -> \w+ \d+x\d+x\d+)* -> MaxPool2d: .*"
        assert re.fullmatch(rf"{line}; the smallest square it takes is {side}x{side}", str(refused.value))
        assert refused.value.code == Exit.USAGE


def test_a_refusal_tells_how_the_image_shrank() -> None:
    with pytest.raises(CnnbenchError) as refused:
        build("vgg11", ImageSpec(8, 9, 3, 2))
    told = "vgg11 cannot take 8x9x3 images: 8x9x3 -> MaxPool2d 4x4x64 -> MaxPool2d 2x2x128 -> MaxPool2d 1x1x256 -> "
    assert str(refused.value).startswith(told + "MaxPool2d: ")
    assert str(refused.value).endswith("; the smallest square it takes is 16x16")


@pytest.mark.parametrize(("height", "width"), [(3, 28), (28, 3)])
def test_one_short_side_is_enough_to_be_refused(height: int, width: int) -> None:
    with pytest.raises(
        CnnbenchError, match=f"cannot take {height}x{width}x1 images: .*; the smallest square it takes is 4x4$"
    ):
        build("inception_small", ImageSpec(height, width, 1, 10))


@pytest.mark.parametrize(
    "name", ["alexnet", "lenet5", "mlp_lenet", pytest.param("netresdeep", marks=pytest.mark.slow), "vgg11"]
)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(height=st.integers(16, 100), width=st.integers(16, 100), channels=st.integers(1, 5), classes=st.integers(1, 200))
def test_larger_sizes_are_taken_square_or_not(name: str, height: int, width: int, channels: int, classes: int) -> None:
    if max(height, width) > 64:  # where the original stems shrink more
        least = {"alexnet": 63, "vgg11": 32}.get(name, 1)
        height, width = max(height, least), max(width, least)
    spec = ImageSpec(height, width, channels, classes)
    assert on_meta(name, spec).eval()(no_pixels(spec)).shape == (1, classes)


def last_map(name: str, side: int) -> int:
    """The side of the last map that a convolution or pooling makes of a square image."""
    sides = []
    spec = ImageSpec(side, side, 3, 2)
    made = on_meta(name, spec).eval()
    for module in made.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            module.register_forward_hook(lambda module, inputs, output: sides.append(output.shape[-1]))
    made(no_pixels(spec))
    return sides[-1]


@pytest.mark.parametrize(
    ("name", "small", "original"),
    [
        ("alexnet", 8, 1),
        pytest.param("googlenet", 16, 2, marks=pytest.mark.slow),
        ("resnet18", 8, 3),
        pytest.param("resnet50", 8, 3, marks=pytest.mark.slow),
        ("vgg11", 4, 2),
    ],
)
def test_up_to_64_pixels_a_stem_keeps_the_size_that_the_original_shrinks(name: str, small: int, original: int) -> None:
    assert (last_map(name, 64), last_map(name, 65)) == (small, original)


@pytest.mark.parametrize("name", ["alexnet", "inception_small", "lenet5", "mlp_lenet"])
def test_checking_a_size_leaves_the_random_numbers_alone(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    sizes.build_on_meta(architecture[name].load(), ImageSpec(32, 32, 3, 10), name=name)
    assert torch.equal(torch.get_rng_state(), before)


def fitted(network: nn.Module) -> str:
    with pytest.raises(CnnbenchError) as refused:
        sizes.build_on_meta(lambda spec: network, ImageSpec(8, 8, 3, 10), name="theirs")
    assert refused.value.code == Exit.USAGE
    return str(refused.value)


def test_what_is_no_classifier_is_refused() -> None:
    assert fitted(nn.Flatten()) == (
        "theirs is not an image classifier: for one image it returns (1, 192), expected (1, 10)"
    )


def test_a_network_that_no_size_helps_names_none() -> None:
    assert fitted(nn.Conv2d(4, 10, 1)).startswith("theirs fails on 8x8x3 images: 8x8x3 -> Conv2d: ")
    assert "the smallest square it takes is" not in fitted(nn.Conv2d(4, 10, 1))


def reads_values(spec: ImageSpec, *, before: int = 0) -> nn.Module:
    """A network that reads values of tensors, which meta ones have not, while it is built and while it runs."""

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            rates = [rate.item() for rate in torch.linspace(0, 0.1, 3)]
            self.layers = nn.Sequential(*map(nn.Dropout, rates), nn.Flatten(), nn.LazyLinear(10))

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.layers(x if x.mean().item() > 0 else -x)
            return logits

    assert spec.height > before
    return Reads()


def test_a_network_that_reads_values_is_built_and_run_on_the_cpu_and_leaves_the_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    network = sizes.build_on_meta(reads_values, ImageSpec(8, 8, 3, 10), name="theirs", on_cpu=True)
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "devices"), [("alexnet", {"meta"}), ("torchvision/alexnet", {"meta"}), ("theirs", {"meta", "cpu"})]
)
def test_only_a_network_of_others_that_is_refused_is_tried_on_the_cpu(
    name: str, devices: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of other libraries are large: to make their parameters at each size would take minutes."""
    tried, probe = set(), sizes._probe
    monkeypatch.setattr(architecture, "entries", dict(architecture.entries))
    monkeypatch.setattr(sizes, "_probe", lambda *arguments: tried.add(arguments[-1]) or probe(*arguments))
    architecture(name="theirs")(partial(reads_values, before=12))
    with pytest.raises(CnnbenchError, match="the smallest square it takes is"):
        build(name, ImageSpec(4, 4, 3, 10))
    assert tried == devices


def test_of_a_network_that_reads_values_the_size_is_blamed_only_where_it_is_the_reason() -> None:
    with pytest.raises(CnnbenchError, match=r"cannot take 8x8x3 images: .*; the smallest square it takes is 13x13$"):
        sizes.build_on_meta(partial(reads_values, before=12), ImageSpec(8, 8, 3, 10), name="theirs", on_cpu=True)

    def broken(spec: ImageSpec) -> nn.Module:
        raise KeyError("width")

    with pytest.raises(CnnbenchError, match=r"^theirs fails on 8x8x3 images: 8x8x3: 'width'$"):
        sizes.build_on_meta(broken, ImageSpec(8, 8, 3, 10), name="theirs", on_cpu=True)


def test_a_builder_of_something_else_is_refused() -> None:
    with pytest.raises(CnnbenchError, match=r"the builder returned a NoneType: expected a torch.nn.Module"):
        sizes.build_on_meta(lambda spec: None, ImageSpec(8, 8, 3, 10), name="theirs")  # type: ignore[arg-type,return-value]


def test_a_builder_s_own_refusal_is_passed_on() -> None:
    def refuses(spec: ImageSpec) -> nn.Module:
        raise CnnbenchError("not today")

    with pytest.raises(CnnbenchError, match=r"^not today$"):
        sizes.build_on_meta(refuses, ImageSpec(8, 8, 3, 10), name="theirs")


@pytest.mark.parametrize("devices", [("cpu",), ("meta", "cpu")])
def test_a_builder_that_ends_the_process_is_refused(devices: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(spec: ImageSpec) -> nn.Module:
        if torch.get_default_device().type in devices:
            raise SystemExit(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 10))

    monkeypatch.setattr(architecture, "entries", dict(architecture.entries))
    architecture(name="theirs")(ends)
    monkeypatch.setattr(sizes, "USUAL_SIDES", (2,))
    with pytest.raises(CnnbenchError, match=r"it ends the process \(SystemExit: 0\)"):
        build("theirs", ImageSpec(2, 2, 3, 10))


KEPT = nn.Linear(12, 10)


@pytest.mark.parametrize(
    "builder", [cache(lambda spec: nn.Linear(12, 10)), lambda spec: KEPT, lambda spec: nn.Sequential(KEPT)]
)
def test_a_builder_that_returns_what_it_has_built_before_is_refused(
    builder: Callable[[ImageSpec], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(architecture, "entries", dict(architecture.entries))
    architecture(name="theirs")(lambda spec: nn.Sequential(nn.Flatten(), builder(spec)))
    with pytest.raises(CnnbenchError, match="the builder of theirs returns modules of an earlier call"):
        build("theirs", ImageSpec(2, 2, 3, 10))


def test_an_error_of_a_builder_that_the_meta_device_does_not_raise_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(spec: ImageSpec) -> nn.Module:
        if torch.get_default_device().type == "cpu":
            raise KeyError("width")
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 10))

    monkeypatch.setattr(architecture, "entries", dict(architecture.entries))
    architecture(name="theirs")(fails)
    with pytest.raises(CnnbenchError, match="theirs cannot be built: KeyError: 'width'"):
        build("theirs", ImageSpec(2, 2, 3, 10))


def test_hooks_are_gone_after_the_check() -> None:
    made = on_meta("vgg11", ImageSpec(32, 32, 3, 10))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in made.modules())
