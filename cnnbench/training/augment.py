"""Random crop and flip of a batch, with a separate draw for each image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench.types import Augment


@dataclass(frozen=True)
class Draws:
    """One draw per image: crop offsets `dy`, `dx` in [0, 2 * pad] and `flip`, each `(N,)`."""

    dy: Tensor
    dx: Tensor
    flip: Tensor

    def __getitem__(self, index: Tensor | slice) -> Draws:
        return Draws(self.dy[index], self.dx[index], self.flip[index])

    def to(self, device: torch.device) -> Draws:
        return Draws(self.dy.to(device), self.dx.to(device), self.flip.to(device))


def draw(augment: Augment, count: int, *, generator: torch.Generator) -> Draws:
    """Draws for `count` images, made on the CPU so that they do not depend on the device."""
    dy, dx = torch.randint(2 * augment.pad + 1, (2, count), generator=generator)
    flip = torch.rand(count, generator=generator) < (0.5 if augment.flip else 0.0)
    return Draws(dy, dx, flip)


def apply(images: Tensor, augment: Augment, *, draws: Draws) -> Tensor:
    """Crop and flip `images` `(N, H, W, C)`, each by its own draw; any type and device, shape kept.

    `unfold` views every crop of the padded batch without copying; indexing then copies the chosen one of each image.
    With the channels last the rows of an image lie together, and both copies take about half the time.
    """
    height, width, pad = *images.shape[1:3], augment.pad
    if pad:
        windows = F.pad(images, (0, 0, pad, pad, pad, pad)).unfold(1, height, 1).unfold(2, width, 1)
        # N, 2 * pad + 1, 2 * pad + 1, C, H, W
        index = torch.arange(len(images), device=images.device)
        images = windows.permute(0, 1, 2, 4, 5, 3)[index, draws.dy, draws.dx]  # N, H, W, C
    if augment.flip:
        images = torch.where(draws.flip.view(-1, 1, 1, 1), images.flip(2), images)
    return images
