"""Honest networks with unusual numbers are exported and proven: what the proof must not refuse."""

from collections.abc import Callable

import numpy as np
import pytest
import small_networks
import torch
from small_networks import CHANNELS, SPEC, Around
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.bundles import graph
from cnnbench.bundles.parity.golden import golden_images
from cnnbench.bundles.parity.proof import prove


class With(nn.Module):
    """A function of the images and of one parameter `p`."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], p: Tensor) -> None:
        super().__init__()
        self.function, self.p = function, nn.Parameter(p)

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images, self.p)


def outside_autocast(x: Tensor, p: Tensor) -> Tensor:
    """A region that computes in float32 whatever training does, as EfficientViT's attention."""
    with torch.autocast("cpu", enabled=False):
        return p * x / (x.abs().sum((1, 2, 3), keepdim=True) + 0.1)


def attended(x: Tensor, p: Tensor) -> Tensor:
    """Two attentions whose scales round to one float32, one of them given by the size of a head."""
    tokens = x.flatten(2).transpose(1, 2)[:, None, :, :3]
    given = F.scaled_dot_product_attention(tokens, p * tokens, tokens, scale=float(np.float32(3**-0.5)))
    seen = F.scaled_dot_product_attention(tokens, tokens, given)[:, 0].transpose(1, 2)
    return torch.cat([seen, seen[:, :1]], 1).unflatten(2, (SPEC.height, SPEC.width))


class Cell(nn.Module):
    """A GRU cell over the columns, from a state of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(CHANNELS, CHANNELS)

    def forward(self, images: Tensor) -> Tensor:
        columns = images.mean(3)
        state = columns.new_zeros(images.shape[0], CHANNELS)
        for index in range(3):
            state = self.cell(columns[:, :, index], state)
        return state


def behind_a_convolution(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), *layers)


def normalised_by_deviation(x: Tensor, p: Tensor) -> Tensor:
    deviation, mean = torch.std_mean(x, (1, 2, 3), keepdim=True)
    return p * (x - mean) / (deviation + 1)


ONE = torch.ones(1)
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "a parameter and a literal of one value": lambda: With(
        lambda x, p: x * p.view(1, 1, 1, 1) + 0.1, torch.full((1,), 0.1)
    ),
    "a literal and its float32": lambda: With(lambda x, p: p * x * 0.1 + torch.tanh(x * float(np.float32(0.1))), ONE),
    "dropout before batch norm": lambda: behind_a_convolution(nn.Dropout(0.1), nn.BatchNorm2d(CHANNELS)),
    "a cast before batch norm": lambda: behind_a_convolution(
        With(lambda x, p: x.float(), ONE), nn.BatchNorm2d(CHANNELS)
    ),
    "grouped transposed convolution": lambda: nn.Sequential(
        nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2, groups=2), nn.BatchNorm2d(CHANNELS)
    ),
    "deviation over three axes": lambda: With(normalised_by_deviation, ONE),
    "softplus with its threshold": lambda: With(lambda x, p: F.softplus(p * x * 60), ONE),
    "cosine similarity": lambda: With(lambda x, p: p * x * F.cosine_similarity(x, x.roll(1, 2), 1).unsqueeze(1), ONE),
    "SELU": nn.SELU,
    "logarithm to base 10": lambda: With(lambda x, p: torch.log10(p * x + 2), ONE),
    "RMS norm of its dtype's epsilon": lambda: With(
        lambda x, p: F.rms_norm(x, (SPEC.width,), p), torch.ones(SPEC.width)
    ),
    "the epsilon of the dtype": lambda: With(
        lambda x, p: p * x / (x.abs().amax((1, 2, 3), keepdim=True) + torch.finfo(x.dtype).eps), ONE
    ),
    "rows of a table": lambda: With(
        lambda x, p: x * p[0].view(1, -1, 1, 1) + p[1].view(1, -1, 1, 1), torch.randn(2, CHANNELS)
    ),
    "elements of a vector": lambda: With(lambda x, p: x * p[0] + x.flip(2) * p[1], torch.tensor([0.3, 0.7, 0.1])),
    "a corner of a parameter": lambda: With(
        lambda x, p: x + p[:, :, : SPEC.height, : SPEC.width], torch.randn(1, CHANNELS, SPEC.height + 2, SPEC.width + 2)
    ),
    "a recurrent cell": Cell,
    "constants close to 0 and 1": lambda: With(
        lambda x, p: p * x * 1.000005 / ((x * x + 1e-12).sqrt().sum((1, 2, 3), keepdim=True) + 1e-8), ONE
    ),
    "integers and numbers": lambda: With(lambda x, p: p * x + x.argmax(1, keepdim=True) / 7, ONE),
    "a complex parameter": lambda: With(
        lambda x, p: torch.fft.ifft2(torch.fft.fft2(x) * p).real,
        torch.randn(SPEC.height, SPEC.width, dtype=torch.complex64),
    ),
    "a table of the first call": small_networks.Building,
    "attention with the scale of its heads and with a rounded one": lambda: With(attended, ONE),
    "a region without autocast": lambda: With(outside_autocast, ONE),
    "bounds of two kinds": lambda: With(lambda x, p: (p * x).clamp(-3, 2.9), ONE),
    "padding of negative width": lambda: With(lambda x, p: F.pad(p * x, (-1, 1, 0, -2), value=0.3), ONE),
    "a scale from which a size follows": lambda: nn.Upsample(scale_factor=1.3, mode="bilinear"),
}
FAST = {
    "a parameter and a literal of one value",
    "dropout before batch norm",
    "a corner of a parameter",
    "constants close to 0 and 1",
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in NETWORKS], ids=str
)
def test_an_honest_network_is_proven(name: str) -> None:
    network = small_networks.made(lambda: Around(NETWORKS[name]()))
    exported = graph.to_onnx(network, SPEC, metadata={})
    test = np.random.RandomState(0).randint(0, 256, (20, SPEC.height, SPEC.width, SPEC.channels)).astype(np.uint8)
    proof = prove(exported, images=golden_images(test).pixels[:8], dtype="uint8").proof
    assert proof.graph_error <= 1e-13
