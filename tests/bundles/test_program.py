"""The reference network: the trained one, simplified in float64 and rounded once."""

import copy
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import small_networks
import torch
from small_networks import Call
from torch import Tensor, nn

from cnnbench.bundles import program
from cnnbench.bundles.float64 import in_float64
from cnnbench.bundles.program import ReferenceNetwork, reference_network

BN = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def inputs(*shape: int) -> Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))


def of(network: nn.Module, *shape: int) -> ReferenceNetwork:
    return reference_network(network, inputs(*shape))


def apart(found: np.ndarray, expected: Tensor) -> float:
    return float(np.abs(found - expected.numpy()).max() / expected.abs().max())


def compare(network: nn.Module, *shape: int, folded: int) -> ReferenceNetwork:
    """In float64 the reference network is torch's own in evaluation mode, and what was folded is gone."""
    reference = of(network, *shape)
    with torch.no_grad():
        expected = copy.deepcopy(network).double()(inputs(*shape).double())
    assert apart(in_float64(reference.exact, inputs(*shape)), expected) <= 1e-12
    assert reference.folded == folded
    left = sum(node.target is torch.ops.aten.batch_norm.default for node in reference.program.graph.nodes)
    assert left == sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()) - folded
    return reference


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **{
        f"Conv{axes}d": (
            lambda axes=axes: nn.Sequential(CONV[axes](2, 3, 3, stride=2, padding=1), BN[axes](3)),
            (2, *[5] * axes),
        )
        for axes in (1, 2, 3)
    },
    "ConvTranspose2d in groups": (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)),
        (4, 4, 4),
    ),
    **{
        f"ConvTranspose{axes}d": (
            lambda axes=axes: nn.Sequential(TRANSPOSED[axes](2, 3, 3, stride=2), BN[axes](3)),
            (2, *[4] * axes),
        )
        for axes in (1, 2, 3)
    },
    "Linear": (lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)), (6,)),
    "Conv2d without bias": (lambda: nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3)), (2, 5, 5)),
    "in groups": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)), (4, 5, 5)),
    "padded by name": (lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding="same"), nn.BatchNorm2d(3)), (2, 5, 5)),
    "padded by reflection": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(3)),
        (2, 5, 5),
    ),
    "without scale and shift": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, affine=False, eps=1e-3)),
        (2, 5, 5),
    ),
}
REPEATED = {"Conv3d", "ConvTranspose1d", "ConvTranspose3d", "padded by reflection", "Conv2d without bias"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in REPEATED else []) for name in LAYERS]
)
def test_batch_norm_is_folded_into_the_layer_before_it(name: str) -> None:
    build, shape = LAYERS[name]
    compare(small_networks.made(build), *shape, folded=1)


def test_the_folded_weights_are_those_of_the_formula_rounded_once() -> None:
    """w gamma / sqrt(variance + eps) and (b - mean) gamma / sqrt(variance + eps) + beta, arXiv:1712.05877."""
    network = small_networks.made(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)))
    conv, norm = (
        {key: tensor.numpy().astype(np.float64) for key, tensor in module.state_dict().items()} for module in network
    )
    scale = norm["weight"] / np.sqrt(norm["running_var"] + 1e-5)
    weight = conv["weight"] * scale[:, None, None, None]
    bias = (conv["bias"] - norm["running_mean"]) * scale + norm["bias"]
    reference = of(network, 2, 5, 5)
    exact, rounded = dict(reference.exact.named_buffers()), reference.tensors()
    for name, expected in (("folded_0", weight), ("folded_1", bias)):
        np.testing.assert_allclose(exact[name].numpy(), expected, rtol=1e-14)
        assert np.array_equal(rounded[name], exact[name].numpy().astype(np.float32))
    in_float32 = network[0].weight * (network[1].weight / (network[1].running_var + 1e-5).sqrt())[:, None, None, None]
    assert not np.array_equal(in_float32.detach().numpy(), rounded["folded_0"])  # rounded more than once


class Shared(nn.Module):
    """One convolution, two batch norms, as networks with early exits have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norms = nn.Conv2d(2, 2, 3, padding=1), nn.ModuleList(nn.BatchNorm2d(2) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for norm in self.norms:
            x = norm(self.conv(x)).relu()
        return x


def test_weights_that_are_shared_are_folded_for_each_batch_norm() -> None:
    reference = compare(small_networks.made(Shared), 2, 5, 5, folded=2)
    assert len([name for name in reference.tensors() if name.startswith("folded_")]) == 4


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.norm(x) + x


UNFOLDED = {
    "a layer that something else reads": (Branching, (2, 5, 5)),
    "an activation between": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.BatchNorm2d(3)),
        (2, 5, 5),
    ),
    "batch norm first": (lambda: nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3)), (2, 5, 5)),
    "a linear layer on rows, whose channels lie elsewhere": (
        lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(3)),
        (3, 5),
    ),
}


@pytest.mark.parametrize("name", UNFOLDED)
def test_what_cannot_be_folded_stays_and_computes_the_same(name: str) -> None:
    build, shape = UNFOLDED[name]
    compare(small_networks.made(build), *shape, folded=0)


def test_weight_norm_is_evaluated_in_float64_and_rounded_once() -> None:
    """g v / |v|, arXiv:1602.07868."""
    network = small_networks.made(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(40, 3)))
    g, v = (part.detach().numpy().astype(np.float64) for part in network.parametrizations["weight"].parameters())
    expected = g * v / np.sqrt((v**2).sum(axis=1, keepdims=True))
    reference = of(network, 40)
    (name,) = (name for name in reference.tensors() if name.startswith("folded_"))
    assert np.array_equal(reference.tensors()[name], expected.astype(np.float32))
    assert {node.name for node in reference.program.graph.nodes} & {"mul", "div", "_weight_norm"} == set()


def test_parameters_that_are_only_rearranged_keep_their_names() -> None:
    """The exporter rearranges them itself, bit by bit, and a file that names them can be read."""

    class Turned(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight.t()

    reference = compare(small_networks.made(lambda: Turned(4, 3, bias=False)), 4, folded=0)
    assert {*reference.tensors()} == {"weight"}


class With(nn.Module):
    """A function of the images and of one parameter."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], parameter: Tensor) -> None:
        super().__init__()
        self.function, self.parameter = function, nn.Parameter(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.parameter)


def doubled_between_readers(x: Tensor, p: Tensor) -> Tensor:
    factor = p * 1.1
    once = x * factor
    factor.mul_(2)
    return once * factor


def masked_between_readers(x: Tensor, p: Tensor) -> Tensor:
    mask = p.clone()
    mask[0] = 0
    once = x * mask
    mask[1] = 0
    return once + mask


def filled_from_the_input(x: Tensor, p: Tensor) -> Tensor:
    mask = p * 1.1
    once = x * mask
    mask[1:] = x.amax() * 0 + 2
    return once + mask


@pytest.mark.parametrize("function", [doubled_between_readers, masked_between_readers, filled_from_the_input])
def test_a_constant_written_in_place_is_to_each_reader_what_it_was(function: Callable[..., Tensor]) -> None:
    network = With(function, torch.tensor([0.3, 0.7, 0.9])).eval()
    reference = compare(network, 3, folded=0)
    with torch.no_grad():
        assert apart(in_float64(reference.rounded, inputs(3)), network(inputs(3))) <= 1e-6


def test_complex_parameters_keep_their_imaginary_parts_and_are_folded() -> None:
    phases = torch.polar(torch.ones(3), torch.tensor([0.1, 0.2, 0.3]))
    network = With(lambda x, p: torch.view_as_real(torch.complex(x, x) * p + p * p).flatten(1), phases).eval()
    x, p = inputs(3).double(), phases.to(torch.complex128)
    reference = of(network, 3)
    expected = torch.view_as_real(torch.complex(x, x) * p + p * p).flatten(1)
    assert apart(in_float64(reference.exact, inputs(3)), expected) <= 1e-15
    square = torch.view_as_real(p * p).numpy()
    assert np.array_equal(reference.tensors()["folded_0"], square.astype(np.float32))  # rounded once


def test_what_depends_on_the_input_is_left_alone() -> None:
    reference = compare(small_networks.made(lambda: nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))), 4, folded=0)
    assert reference.program is reference.traced


# --- in float64 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x * torch.tensor(0.1), lambda x: x * np.float64(np.float32(0.1))),
        (lambda x: x + torch.linspace(0, 1, 7), lambda x: x + np.float64(torch.linspace(0, 1, 7).numpy())),
        (lambda x: x * torch.full((7,), 0.3), lambda x: x * np.float64(np.float32(0.3))),
        (lambda x: x * 0.1, lambda x: x * 0.1),
        (lambda x: x.to(torch.float32) / 3, lambda x: x / 3),
        (lambda x: x.half() / 3, lambda x: x / 3),
        (lambda x: x + torch.ones(7, dtype=torch.float32) / 3, lambda x: x + 1 / 3),
        (lambda x: (x * 10).int().float() / 3, lambda x: np.trunc(x * 10) / 3),
        (lambda x: (x * 10).int() * 0.1, lambda x: np.trunc(x * 10) * 0.1),
        (
            lambda x: (x > 0).sum(1, keepdim=True) / (x < 9).sum(1, keepdim=True),
            lambda x: (x > 0).sum(1, keepdims=True) / 7,
        ),
    ],
    ids=[
        *("a tensor", "linspace", "full", "a number", "float32 by name", "half by name", "a quotient", "integers"),
        *("integers and a number", "a quotient of integers"),
    ],
)
def test_every_operator_computes_in_float64_on_the_network_s_own_constants(
    function: Callable[[Tensor], Tensor], expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    x = inputs(7)
    found = in_float64(Call(function), x)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected(x.double().numpy()), rtol=1e-15, atol=1e-15)


def test_floats_are_widened_before_the_first_layer() -> None:
    network = nn.Conv2d(1, 2, 3).double()
    found = in_float64(network, inputs(1, 5, 5))
    with torch.no_grad():
        assert np.array_equal(found, network(inputs(1, 5, 5).double()).numpy())


def test_the_first_of_several_outputs_is_the_logits() -> None:
    class Both(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x.softmax(1)

    assert np.array_equal(in_float64(Both(), inputs(3)), inputs(3).double().numpy())


# --- what the operators are given -------------------------------------------------------------------------------------


def test_arguments_and_sizes_are_the_numbers_of_a_network() -> None:
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.LayerNorm([3, 3], eps=3e-5), nn.LeakyReLU(0.07))
    floats, integers = of(network.eval(), 1, 5, 5).numbers()
    assert {float(np.float32(3e-5)), float(np.float32(0.07))} <= {*floats}  # as the file holds them
    assert {6, 3, 1} <= integers
    assert len({*floats}) == len(floats)


def test_control_flow_is_known() -> None:
    class Conditional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, torch.relu, torch.neg, (x,))

    assert of(Conditional(), 3).control_flow
    assert not of(nn.ReLU(), 3).control_flow


def test_the_modules_that_call_an_operator_are_named() -> None:
    network = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
    traced = of(network, 3).traced
    assert [*program.operator_places(traced, "relu")] == ["0 (ReLU)", "1.1 (ReLU)"]
    assert [*program.operator_places(traced, "gelu")] == []


@pytest.mark.parametrize(
    "build",
    [small_networks.batch_norm, pytest.param(small_networks.warp, marks=pytest.mark.slow)],
    ids=["batch norm", "a grid"],
)
def test_tracing_twice_gives_the_same_tensors(build: Callable[[], nn.Module]) -> None:
    network = small_networks.made(build)
    for one, other in pairwise([of(network, 1, 8, 6).tensors() for _ in range(2)]):
        assert {name: value.tobytes() for name, value in one.items()} == {
            name: value.tobytes() for name, value in other.items()
        }


class Branches(nn.Module):
    """A sum of a wide convolution, a narrow one and the images themselves, each with batch norm: RepVGG's block."""

    def __init__(self, groups: int = 1, stride: int = 1, pad: int = 1) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(4, 4, 3, stride, pad, groups=groups, bias=False), nn.BatchNorm2d(4))
        self.narrow = nn.Sequential(nn.Conv2d(4, 4, 1, stride, groups=groups), nn.BatchNorm2d(4))
        self.same = nn.BatchNorm2d(4) if stride == 1 else None

    def forward(self, images: Tensor) -> Tensor:
        total: Tensor = self.wide(images) + self.narrow(images)
        return total if self.same is None else total + self.same(images)


def convolutions(reference: ReferenceNetwork) -> int:
    return sum(node.target is torch.ops.aten.conv2d.default for node in reference.program.graph.nodes)


@pytest.mark.parametrize(("groups", "stride", "norms"), [(1, 1, 3), (2, 1, 3), (4, 1, 3), (1, 2, 2)])
def test_parallel_branches_become_one_convolution(groups: int, stride: int, norms: int) -> None:
    network = small_networks.made(lambda: Branches(groups, stride))
    assert convolutions(compare(network, 4, 6, 6, folded=norms)) == 1


def summed(branches: Branches, images: Tensor) -> Tensor:
    assert branches.same is not None
    total: Tensor = sum(layer(images) for layer in (branches.wide, branches.narrow, branches.same))  # type: ignore[assignment]
    return total


def added_in_place(branches: Branches, images: Tensor) -> Tensor:
    assert branches.same is not None
    total: Tensor | int = 0
    total += branches.same(images)
    for layer in (branches.narrow, branches.wide):
        total += layer(images)
    assert isinstance(total, Tensor)
    return total


@pytest.mark.parametrize("add", [summed, added_in_place])
def test_a_sum_of_branches_may_begin_with_0(add: Callable[[Branches, Tensor], Tensor]) -> None:
    """As timm's MobileOne has it."""

    class Begun(Branches):
        def forward(self, images: Tensor) -> Tensor:
            return add(self, images)

    assert convolutions(compare(small_networks.made(Begun), 4, 6, 6, folded=3)) == 1


def test_an_identity_beside_a_convolution_of_one_pixel_is_folded_into_it() -> None:
    class Narrow(Branches):
        def forward(self, images: Tensor) -> Tensor:
            assert self.same is not None
            total: Tensor = self.narrow(images) + self.same(images)
            return total + self.wide(images)

    assert convolutions(compare(small_networks.made(Narrow), 4, 6, 6, folded=3)) == 1


def test_a_sum_with_0_that_is_written_in_place_is_still_a_copy() -> None:
    class Copied(Branches):
        def forward(self, images: Tensor) -> Tensor:
            wide = self.wide(images)
            total = wide + 0
            total += self.narrow(images)
            return torch.cat([total, wide], 1)

    network = small_networks.made(Copied)
    network.same = None
    assert convolutions(compare(network, 4, 6, 6, folded=2)) == 2


def added_to_a_view(images: Tensor) -> Tensor:
    total: Tensor | int = 0
    for part in images.chunk(2, 1):
        total += part
    return torch.cat([images, total], 1)  # type: ignore[list-item]


def counted(images: Tensor) -> Tensor:
    counts: Tensor = sum([images > 0.1, images > 0.3])  # type: ignore[assignment]
    return images * counts


@pytest.mark.parametrize("function", [added_to_a_view, counted])
def test_a_sum_with_0_of_anything_but_a_branch_is_left_as_it_is(function: Callable[[Tensor], Tensor]) -> None:
    """The first writes into what the sum with 0 copied, the second counts."""
    compare(Call(function).eval(), 2, 3, folded=0)


def test_branches_with_other_centres_stay_apart() -> None:
    """Without padding the 3x3 kernel's first pixel is not the 1x1 kernel's."""

    class Apart(Branches):
        def forward(self, images: Tensor) -> Tensor:
            result: Tensor = self.wide(images) + self.narrow(images)[:, :, :4, :4]
            return result

    network = small_networks.made(lambda: Apart(pad=0))
    network.same = None
    assert convolutions(compare(network, 4, 6, 6, folded=2)) == 2
