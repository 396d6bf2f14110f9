"""Multiply-adds forward and backward, against the formula of each layer."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from cnnbench.analysis.cost import cost, count
from cnnbench.analysis.macs import training_macs, training_macs_of
from cnnbench.architectures import architecture
from cnnbench.types import CnnbenchError, ImageSpec

MNIST = ImageSpec(28, 28, 1, 10)


@pytest.mark.parametrize(("arch", "ratio"), [("linear", 2.0), ("mlp", 2.4), ("lenet5", 2.72), ("resnet20", 3.0)])
def test_the_first_layer_costs_two_forward_passes_and_the_others_three(arch: str, ratio: float) -> None:
    assert training_macs(arch, MNIST) / cost(arch, MNIST).macs == pytest.approx(ratio, abs=0.005)


def test_every_layer_but_the_first_computes_the_gradient_of_its_input() -> None:
    first, second, last = 28 * 28 * 9 * 8, 28 * 28 * 9 * 8, 28 * 28 * 8 * 10
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),  # torch's own formula makes eight times as much of it
        nn.Flatten(),
        nn.Linear(28 * 28 * 8, 10),
    )
    assert training_macs_of(network, MNIST) == 2 * first + 3 * (second + last)
    assert network.training
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}


def test_an_architecture_that_is_not_known_is_refused() -> None:
    assert "lenet6" not in architecture
    with pytest.raises(CnnbenchError, match="lenet6"):
        training_macs("lenet6", MNIST)


def test_a_network_that_cannot_be_trained_has_no_figure() -> None:
    class Refuses(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise RuntimeError
            return super().forward(x.flatten(1))

    assert training_macs_of(Refuses(784, 10), MNIST) is None


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(20, 30, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.layer(x[:, :20], x[:, 20:50])


class Deformable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offsets, self.layer = nn.Conv2d(1, 18, 3), DeformConv2d(1, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, self.offsets(x))


class Recurrent(nn.Module):
    """Reads the rows of an image in turn; the state before the first is zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.LSTM(28, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x[:, 0])[0][:, -1])


class Factored(nn.Module):
    """A linear layer whose weights are the product of two matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.rand(784, 64)), nn.Parameter(torch.rand(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ (self.first @ self.second)


class Attention(nn.Module):
    """Of 28 rows of 28 pixels, in four heads."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(28, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.layer(x[:, 0], x[:, 0], x[:, 0], need_weights=False)
        return out


GATES = 4 * 32
PROJECTIONS, SCORES = 28 * 28 * (3 * 28), 28 * 28 * 28


@pytest.mark.parametrize(
    ("network", "macs", "activations"),
    [
        (Bilinear(), 10 * 20 * 30 + 10 * 20, 10),  # first along the 30, then along the 20
        (Deformable(), 26 * 26 * 9 * (18 + 4), 26 * 26 * (18 + 4)),
        (Recurrent(), 28 * (28 + 32) * GATES + 32 * 10, 28 * 2 * GATES + 10),
        (Factored(), 784 * 10, 10),
        (
            Attention(),
            PROJECTIONS + 2 * SCORES + 28 * 28 * 28,
            28 * (3 * 28) + 4 * 28 * 28 + 28 * 28 + 28 * 28,
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_products_are_counted_wherever_they_are_done(
    network: nn.Module, macs: int, activations: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU torch has kernels of its own for attention and recurrent layers."""
    if device == "cpu":
        monkeypatch.setattr(nn.Module, "to", lambda self, device: (_ for _ in ()).throw(RuntimeError))
    found = count(network, MNIST)
    assert (found.macs, found.activations) == (macs, activations)
