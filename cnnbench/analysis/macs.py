"""Multiply-adds by torch's counter, with the operators that it does not know, and those of a training step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from cnnbench.architectures import build
from cnnbench.architectures.handling import copy_network
from cnnbench.types import ImageSpec

ATEN = torch.ops.aten
FLOPS_PER_MAC = 2
"""torch's counter counts a multiply-add as two operations."""


def counter() -> FlopCounterMode:
    """torch's counter of operations, two for each multiply-add of a convolution or a matrix product."""
    return FlopCounterMode(display=False, custom_mapping=_formulas())


def training_macs(arch: str, spec: ImageSpec) -> int | None:
    """Multiply-adds of a forward and a backward pass of `arch`, per image; None where it cannot be counted.

    No gradient is computed for the image, so that the first layer costs two forward passes and the others three.
    Work on parameters alone is done once per step whatever the batch and is not counted: the count is the difference
    between a batch of four and one of two, by two. Batch norm refuses a single image.

    Raises:
        CnnbenchError: Unknown architecture, or a size that it cannot take (exit 2).
    """
    with torch.device("meta"):
        network = build(arch, spec)
    try:
        return _training_macs(network, spec)
    except Exception:  # whatever a network of others raises for tensors without values
        pass
    with torch.random.fork_rng(devices=[]):
        network = build(arch, spec)
        try:
            return _training_macs(network, spec)
        except Exception:  # for instance for noise instead of an image
            return None


def forward_share(macs: int, training: int | None) -> float:
    """What a forward pass costs of a training step, by multiply-adds: 1/2 for one linear layer, 1/3 for deep networks.

    A third where training was not counted (Kaplan et al. 2020, arXiv:2001.08361: the backward pass costs twice the
    forward one).
    """
    return macs / training if training else 1 / 3


def training_macs_of(network: nn.Module, spec: ImageSpec) -> int | None:
    """As `training_macs`, of a network that is there already; it is left as it is."""
    for device in ("meta", "cpu"):
        try:
            return _training_macs(copy_network(network).to(device), spec)
        except Exception:  # as in `training_macs`
            continue
    return None


def _training_macs(network: nn.Module, spec: ImageSpec) -> int:
    network.train()
    device = next((parameter.device for parameter in network.parameters()), torch.device("meta"))
    counts = []
    for images in (2, 4):
        pixels = torch.rand(images, spec.channels, spec.height, spec.width, device=device)
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), counter() as flops:
            logits = network(pixels)
            if logits.requires_grad:  # a network without parameters learns nothing
                logits.sum().backward()
        counts.append(int(flops.get_total_flops()) // FLOPS_PER_MAC)
    return (counts[1] - counts[0]) // 2


def _formulas() -> dict[Any, Callable[..., int]]:
    """For operators that torch's counter does not know, or counts otherwise than they compute."""
    formulas: dict[Any, Callable[..., int]] = {
        ATEN.convolution_backward: _convolution_backward,
        ATEN._trilinear: _trilinear,
    }
    if hasattr(torch.ops.torchvision, "deform_conv2d"):  # there once torchvision was imported
        formulas[torch.ops.torchvision.deform_conv2d] = _deformable
        formulas[torch.ops.torchvision._deform_conv2d_backward] = _deformable_backward
    return formulas


def _convolution_backward(gradient: Any, x: Any, weight: Any, *options: Any, out_val: Any = None, **_: Any) -> int:
    """As many as forward for the gradient of the input, and for that of the weights.

    torch 2.14 counts the weights' as if there were no groups: 64 times too many for a depthwise one of 64 channels.
    """
    transposed, mask = options[4], options[7]
    forward = conv_flop_count(list(x), list(weight), list(gradient), transposed=transposed)
    return int(forward) * (int(mask[0]) + int(mask[1]))


def _trilinear(first: Any, second: Any, third: Any, *options: Any, **_: Any) -> int:
    """Sum over a product of three tensors, which `nn.Bilinear` is: along its longest summed dimension first."""
    sizes = [list(shape) for shape in (first, second, third)]
    for shape, expanded in zip(sizes, options[:3], strict=True):
        for dimension in sorted(expanded):
            shape.insert(dimension, 1)
    space: list[int] = [max(sides) for sides in zip(*sizes, strict=True)]
    longest = max((space[dimension] for dimension in options[3]), default=1)
    elements = math.prod(space)
    return FLOPS_PER_MAC * (elements + elements // int(longest))


def _deformable(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """A convolution over sampled pixels; the sampling is not counted, as pooling is not."""
    return int(conv_flop_count(list(x), list(weight), list(out_shape)))


def _deformable_backward(gradient: Any, x: Any, weight: Any, *_: Any, **__: Any) -> int:
    return 2 * int(conv_flop_count(list(x), list(weight), list(gradient)))
