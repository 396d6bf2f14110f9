"""Small networks of other people's kinds: some that are no function of the image, some that exporters get wrong."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.architectures.layers import Normalize
from cnnbench.types import ImageSpec

SPEC = ImageSpec(8, 6, 1, num_classes=3)
CHANNELS = 4


class Around(nn.Module):
    """A convolution, then `inner`, the mean over places and a linear layer: gray images of 8 by 6 to three logits."""

    def __init__(self, inner: nn.Module, channels: int = CHANNELS) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, CHANNELS, 3, padding=1)
        self.inner = inner
        self.head = nn.Linear(channels, SPEC.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(F.relu(self.stem(x)))  # N, C, H, W, or N, C
        logits: Tensor = self.head(x.mean((2, 3)) if x.ndim == 4 else x)
        return logits


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def made(build: Callable[[], nn.Module]) -> nn.Module:
    """A network in evaluation mode, its weights the same in every process; what batch norm has learned is not nothing.

    Fresh batch norm is the identity, which folding could not get wrong.
    """
    torch.manual_seed(0)
    network = build()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.running_mean is not None and module.running_var is not None:
                nn.init.normal_(module.running_mean, std=0.5)
                nn.init.uniform_(module.running_var, 0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.5)
    return network.eval()


# --- no functions of the image ----------------------------------------------------------------------------------------


class Counting(nn.Module):
    """Adds how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return x + 1e-6 * self.calls


class Remembering(nn.Module):
    """Adds the mean of the images before."""

    def __init__(self) -> None:
        super().__init__()
        self.before = 0.0

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            x, self.before = x + 1e-6 * self.before, float(x.detach().mean())
        return x


class OfTheFirst(nn.Module):
    """Subtracts the mean of the images that it saw first."""

    def __init__(self) -> None:
        super().__init__()
        self.first: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.first is None and not torch.compiler.is_exporting():
            self.first = float(x.detach().mean())
        return x - 1e-6 * (self.first or 0.0)


class Building(nn.Module):
    """Builds a table in its first call, as ConViT does of its relative positions."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if len(self.table) != x.shape[-1]:
            self.table = torch.arange(x.shape[-1], dtype=x.dtype)
        return x + self.table


class Reseeding(nn.Module):
    """Noise, its generator set anew in each call: the same at every call."""

    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return x + 0.01 * torch.randn_like(x)


def noise() -> nn.Module:
    return Around(Call(lambda x: x + 1e-6 * torch.randn_like(x)))


def dropout_in_evaluation() -> nn.Module:
    return Around(Call(lambda x: F.dropout(x, 0.5, training=True)))


def batch_mean() -> nn.Module:
    return Around(Call(lambda x: x - 1e-6 * x.mean(0, keepdim=True)))


def untracked() -> nn.Module:
    return Around(nn.BatchNorm2d(CHANNELS, track_running_stats=False))


def other_for_one() -> nn.Module:
    return Around(Call(lambda x: x * (2 if x.shape[0] == 1 else 1)))


def drawn_elsewhere() -> nn.Module:
    """Noise of another library, which a traced graph holds as one number."""
    random = np.random.RandomState(0)
    return Around(Call(lambda x: x + 1e-6 * float(random.standard_normal())))


def neighbour() -> nn.Module:
    """Each image sees a little of the one before it."""
    return Around(Call(lambda x: x + 1e-6 * torch.roll(x, 1, 0)))


def reseeding() -> nn.Module:
    return Around(Reseeding())


def counting() -> nn.Module:
    return Around(Counting())


def remembering() -> nn.Module:
    return Around(Remembering())


def of_the_first() -> nn.Module:
    return Around(OfTheFirst())


def least_of_the_batch() -> nn.Module:
    """The least pixel of the batch, which is 0 in nearly all, is subtracted."""
    return nn.Sequential(Call(lambda x: x - x.min()), Around(nn.Identity()))


def range_of_the_batch() -> nn.Module:
    return nn.Sequential(Call(lambda x: (x - x.min()) / (x.max() - x.min())), Around(nn.Identity()))


# --- functions of the image -------------------------------------------------------------------------------------------


class Rows(nn.Module):
    """The rows of a feature map, each a mean, through `mixer` `(N, H, C)`, and their mean."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x: Tensor) -> Tensor:
        rows = self.mixer(x.mean(3).transpose(1, 2))
        mixed: Tensor = rows[0] if isinstance(rows, tuple) else rows
        return mixed.mean(1)  # N, C


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(CHANNELS, 2, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return self.attention(x, x, x, need_weights=False)[0]


def layer_norm() -> nn.Module:
    return Around(nn.LayerNorm([CHANNELS, SPEC.height, SPEC.width]))


def attention() -> nn.Module:
    return Around(Rows(SelfAttention()))


def encoder_layer() -> nn.Module:
    return Around(Rows(nn.TransformerEncoderLayer(CHANNELS, 2, 8, batch_first=True)))


class Places(nn.Module):
    """An encoder layer over the places of an image, as in a vision transformer: layer norm first, GELU."""

    def __init__(self) -> None:
        super().__init__()
        options: dict[str, Any] = {"dropout": 0.0, "activation": "gelu", "norm_first": True, "batch_first": True}
        self.layer = nn.TransformerEncoderLayer(CHANNELS, 2, 8, **options)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.layer(x.flatten(2).transpose(1, 2))
        return mixed.mean(1)  # N, C


def vision_transformer() -> nn.Module:
    return Around(Places())


def gru() -> nn.Module:
    return Around(Rows(nn.GRU(CHANNELS, 5, batch_first=True, bidirectional=True)), channels=10)


def lstm() -> nn.Module:
    return Around(Rows(nn.LSTM(CHANNELS, 5, batch_first=True)), channels=5)


def halves() -> nn.Module:
    """Parts of a size that is computed."""
    return Around(Call(lambda x: torch.cat(x.split(x.shape[1] // 2, dim=1)[::-1], dim=1)))


def batch_norm() -> nn.Module:
    return Around(nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS), nn.ReLU()))


def normalised() -> nn.Module:
    """Numbers of every kind: a mean and a deviation, folded weights, an epsilon, a pool, literals."""
    spec = ImageSpec(SPEC.height, SPEC.width, 1, SPEC.num_classes, mean=(0.13,), std=(0.31,))
    inner = nn.Sequential(
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        nn.BatchNorm2d(CHANNELS),
        nn.ReLU(),
        nn.LayerNorm([CHANNELS, SPEC.height, SPEC.width]),
        nn.AvgPool2d(3, stride=1, padding=1),
    )
    return nn.Sequential(Normalize(spec), Around(inner))


def weight_norm() -> nn.Module:
    return Around(nn.utils.parametrizations.weight_norm(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)))


def smooth() -> nn.Module:
    """Group norm and GELU, whose constants the exporter writes itself."""
    return Around(nn.Sequential(nn.GroupNorm(2, CHANNELS), nn.GELU(), nn.MaxPool2d(2, ceil_mode=True)))


def warp() -> nn.Module:
    """A grid that depends on nothing but sizes."""

    def sampled(x: Tensor) -> Tensor:
        theta = torch.eye(2, 3, dtype=x.dtype).expand(x.shape[0], 2, 3)
        return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)

    return Around(Call(sampled))


def odd_pool() -> nn.Module:
    """5 divides neither 8 nor 6."""
    return Around(nn.Sequential(nn.AdaptiveMaxPool2d(5), nn.ReLU()))
