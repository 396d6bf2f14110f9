"""PyTorch's own logits, on which every verdict rests: right, in order, and nothing is changed on the way."""

import numpy as np
import pytest
import torch
from export_helpers import exact_logits
from torch import Tensor, nn
from zoo import GRAY, network

from cnnbench.bundles.parity import comparison
from cnnbench.bundles.parity.reference import CHUNK, torch_logits

IMAGES = np.random.RandomState(0).randint(0, 256, size=(3 * CHUNK + 2, 28, 28, 1), dtype=np.uint8)


class Varied(nn.Module):
    """What differs between training and evaluation, and lies in memory in more than one way."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout()
        self.second = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
        self.head = nn.Linear(4, 10)
        nn.init.normal_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.dropout(self.norm(self.first(x))).relu())
        return self.head(x.mean((2, 3)))


def plain(made: nn.Module, images: np.ndarray) -> np.ndarray:
    """One call on all images, in eval mode."""
    planes = torch.tensor(np.moveaxis(images, 3, 1).astype(np.float32) / 255)
    with torch.no_grad():
        return made.eval()(planes).numpy()


def rounding(expected: np.ndarray, exact: np.ndarray) -> float:
    return comparison.error_bound(float(np.abs(expected - exact).max()), float(np.abs(expected).max()))


@pytest.mark.parametrize("count", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 2])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_logits_are_those_of_one_call_in_order_whatever_the_number_of_images(count: int, threads: int) -> None:
    torch.set_num_threads(threads)
    made, images = Varied(), IMAGES[:count]
    expected = plain(made, images)
    found = torch_logits(made.train(), images)
    assert found.dtype == np.float32
    assert found.shape == (count, 10)
    assert np.abs(found - expected).max() <= rounding(expected, exact_logits(made, images))
    assert len({row.tobytes() for row in found.round(4)}) == count  # an image at another's place would be seen


@pytest.mark.parametrize("name", ["lenet5", "netresdeep", "resnet20"])
def test_a_registered_network_gives_what_it_gives_in_one_call(name: str) -> None:
    made = network(name, GRAY)
    images = IMAGES[: CHUNK + 3]
    expected, found, exact = plain(made, images), torch_logits(made, images), exact_logits(made, images)
    assert np.abs(found - expected).max() <= rounding(expected, exact)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(28 * 28, 10))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight


def test_the_logits_are_those_of_the_formula() -> None:
    made = Linear()
    expected = IMAGES.reshape(len(IMAGES), -1) / 255 @ made.weight.detach().numpy().astype(np.float64)
    scale = np.abs(expected).max()
    error = np.abs(torch_logits(made, IMAGES) - expected).max()
    assert 1e-9 * scale < error <= 784 * 2.0**-24 * scale  # it does round, at most half a unit a term


def layout(made: nn.Module) -> list[tuple[str, torch.dtype, tuple[int, ...], bytes]]:
    """Every weight and statistic: type, strides and value."""
    return [(key, t.dtype, t.stride(), t.numpy().tobytes()) for key, t in made.state_dict().items()]


def test_the_network_and_torch_are_left_as_they_were() -> None:
    torch.set_num_threads(3)
    made = Varied().train()
    made.norm.eval()
    modes, before = [module.training for module in made.modules()], layout(made)
    torch_logits(made, IMAGES)
    assert [module.training for module in made.modules()] == modes
    assert layout(made) == before
    assert all(parameter.requires_grad for parameter in made.parameters())
    assert torch.get_num_threads() == 3
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


class FailingError(Exception):
    pass


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise FailingError


def test_torch_is_left_as_it_was_when_the_network_fails() -> None:
    torch.set_num_threads(3)
    with pytest.raises(FailingError):
        torch_logits(Failing(), IMAGES)
    assert torch.get_num_threads() == 3
    assert torch.get_default_dtype() == torch.float32


class Counting(Linear):
    """Notes the images and the threads of every call."""

    calls: list[tuple[int, int]] = []  # noqa: RUF012, shared by the copies that are made of it

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append((len(x), torch.get_num_threads()))
        return super().forward(x)


def test_each_call_takes_one_chunk_on_one_thread() -> None:
    torch.set_num_threads(3)
    Counting.calls.clear()
    torch_logits(Counting(), IMAGES)
    assert sorted(Counting.calls) == [(2, 1), *[(CHUNK, 1)] * 3]
