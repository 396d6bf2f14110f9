"""Small networks of every way to move, join and resize positions, for tests of receptive fields."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Function(nn.Module):
    """Calls a function with the input and layers."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def conv(inputs: int = 3, outputs: int = 3, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)


def space_to_depth(x: Tensor) -> Tensor:
    """By a view and a permutation, as most networks do it."""
    images, channels, rows, columns = x.shape
    apart = x.reshape(images, channels, rows // 2, 2, columns // 2, 2)
    return apart.permute(0, 1, 3, 5, 2, 4).reshape(images, 4 * channels, rows // 2, columns // 2)


def focus(x: Tensor) -> Tensor:
    """By slices with a step."""
    corners = (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2])
    return torch.cat(corners, 1)


def windows(x: Tensor) -> Tensor:
    return F.unfold(x, 3, padding=1).view(x.shape[0], -1, *x.shape[2:])


def sum_in_place(x: Tensor) -> Tensor:
    y = F.relu(x)
    y += F.avg_pool2d(y, 3, stride=1, padding=1)
    return y


STEPS: dict[str, Callable[[], nn.Module]] = {
    "3x3": conv,
    "5x5 by 2": lambda: conv(kernel=5, stride=2),
    "dilated": lambda: nn.Conv2d(3, 3, (3, 2), padding=(2, 1), dilation=2),
    "depthwise": lambda: nn.Conv2d(3, 3, 3, padding=1, groups=3),
    "max pool": lambda: nn.MaxPool2d(2),
    "overlapping max pool": lambda: nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
    "average pool": lambda: nn.AvgPool2d(2),
    "nearest": lambda: nn.Upsample(scale_factor=2),
    "bilinear": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "by 3 nearest": lambda: nn.Upsample(scale_factor=3),
    "transposed": lambda: nn.ConvTranspose2d(3, 3, 2, 2),
    "transposed 3x3": lambda: nn.ConvTranspose2d(3, 3, 3, 2, padding=1, output_padding=1),
    "pixel shuffle": lambda: nn.Sequential(nn.Conv2d(3, 12, 1), nn.PixelShuffle(2)),
    "space to depth": lambda: nn.Sequential(Function(space_to_depth), nn.Conv2d(12, 3, 1)),
    "pixel unshuffle": lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 3, 1)),
    "focus": lambda: nn.Sequential(Function(focus), nn.Conv2d(12, 3, 1)),
    "unfold": lambda: nn.Sequential(Function(windows), nn.Conv2d(27, 3, 1)),
    "roll": lambda: Function(lambda x: x + torch.roll(x, (2, 1), (2, 3))),
    "shift": lambda: Function(lambda x: x[:, :, 1:, 2:] + x[:, :, :-1, :-2]),
    "every second row": lambda: Function(lambda x: x[:, :, ::2]),
    "every second channel": lambda: nn.Sequential(nn.Conv2d(3, 6, 1), Function(lambda x: x[:, ::2])),
    "shortcut": lambda: Function(lambda x, layer: F.relu(x + layer(x)), conv(kernel=5)),
    "in place": lambda: Function(sum_in_place),
    "gate": lambda: Function(lambda x, layer: x * F.softplus(layer(x)), conv()),
    "maximum": lambda: Function(lambda x, layer: torch.max(x, layer(x)), conv()),
}
