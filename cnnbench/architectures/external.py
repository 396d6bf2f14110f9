"""Other libraries' image classifiers by name: `torchvision/<name>` and `timm/<name>`, untrained.

`+small` after the name gives the network a stem for small images: its first convolution becomes 3x3 with stride 1, and
the pooling before its second convolution goes. Auxiliary heads, which only training would use, are left out.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from cnnbench.registry import Entry
from cnnbench.types import CnnbenchError, Exit, ImageSpec

SMALL = "+small"

# Counted by `list` beside ours, at the size and with the classes that their authors published them for. torchvision's
# card of inception_v3 counts the auxiliary head, its card of googlenet does not.
PUBLISHED = {
    "torchvision/googlenet": ImageSpec(224, 224, 3, 1000),
    "torchvision/inception_v3": ImageSpec(299, 299, 3, 1000),
}


@dataclass(frozen=True)
class External(Entry):
    """A network of another library."""

    ours: ClassVar[bool] = False

    def load(self) -> Callable[[ImageSpec], nn.Module]:
        name, small = self.function.removesuffix(SMALL), self.function.endswith(SMALL)
        return partial(make, library=self.module, model=name, small=small)


def entry(name: str) -> External:
    """The network that `name` (`<library>/<name>`, with or without `+small`) means.

    Raises:
        CnnbenchError: Unknown library or name, or not an image classifier (exit 2); timm is not installed (exit 6).
    """
    library, _, model = name.partition("/")
    if library not in LIBRARIES:
        raise CnnbenchError(f"unknown architecture {name!r}: expected torchvision/<name> or timm/<name> before a slash")
    classifiers, others = LIBRARIES[library][0]()
    model_alone = model.removesuffix(SMALL)
    if model_alone in others:
        raise CnnbenchError(f"{library}/{model_alone} is not an image classifier with floating-point weights")
    if model_alone not in classifiers:
        near = difflib.get_close_matches(model_alone, classifiers, n=3)
        advice = " or ".join(f"{library}/{word}" for word in near) or f"{library}/{classifiers[0]}"
        raise CnnbenchError(
            f"unknown architecture {name!r}: did you mean {advice}? {library} has {len(classifiers)} classifiers"
        )
    return External(name, library, model, f"{model_alone} of {library}")


def make(spec: ImageSpec, *, library: str, model: str, small: bool = False, auxiliary: bool = False) -> nn.Module:
    """Build `model` of `library` for `spec`, from normalised pixels `(N, C, H, W)` to logits `(N, num_classes)`.

    Raises:
        CnnbenchError: `small` is set for a network whose stem cannot be made smaller (exit 2).
    """
    builder = LIBRARIES[library][1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            network: nn.Module = builder(model, spec, auxiliary)
        except NotImplementedError:
            # it reads tensors while it is built (RegNet's widths), which meta ones do not allow
            with torch.device("cpu"):
                network = builder(model, spec, auxiliary)
            network.to(torch.get_default_device())
    return small_stem(network, spec, name=f"{library}/{model}") if small else network


def params_with_auxiliary_heads(name: str, spec: ImageSpec) -> int:
    """Parameters of one of torchvision's networks as its authors count it, with the heads that only training uses."""
    library, _, model = name.partition("/")
    with torch.device("meta"):
        return sum(p.numel() for p in make(spec, library=library, model=model, auxiliary=True).parameters())


def small_stem(network: nn.Module, spec: ImageSpec, *, name: str) -> nn.Module:
    """Put a 3x3 convolution of stride 1 first, and take out the pooling before the second convolution.

    Raises:
        CnnbenchError: The first convolution is already that, or cuts the image into patches (exit 2).
    """
    order = [key for key, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.MaxPool2d)]
    convolutions = [key for key in order if isinstance(network.get_submodule(key), nn.Conv2d)]
    if not convolutions:
        raise CnnbenchError(f"{name}{SMALL}: the network has no convolution to begin with")
    first = network.get_submodule(convolutions[0])
    assert isinstance(first, nn.Conv2d)
    second = order.index(convolutions[1]) if len(convolutions) > 1 else len(order)
    pools = [key for key in order[:second] if isinstance(network.get_submodule(key), nn.MaxPool2d)]
    if first.kernel_size == first.stride and first.stride != (1, 1):
        raise CnnbenchError(
            f"{name}{SMALL}: its first convolution cuts the image into patches of "
            f"{first.stride[0]}x{first.stride[1]} pixels, which the layers behind it count on"
        )
    if first.stride == (1, 1) and not pools:
        raise CnnbenchError(f"{name}{SMALL}: its stem keeps the size of the image already; use {name}")
    stem = nn.Conv2d(spec.channels, first.out_channels, kernel_size=3, padding=1, bias=first.bias is not None)
    network.set_submodule(convolutions[0], stem)
    for key in pools:
        network.set_submodule(key, nn.Identity())
    return network


def _torchvision_names() -> tuple[list[str], list[str]]:
    """Classifiers, and torchvision's networks for other tasks."""
    from torchvision import models

    classifiers = models.list_models(module=models)
    return classifiers, sorted(set(models.list_models()) - set(classifiers))


def _torchvision(model: str, spec: ImageSpec, auxiliary: bool) -> nn.Module:
    from torchvision import models

    options: dict[str, Any] = {}
    if model in ("googlenet", "inception_v3"):
        options = {"aux_logits": auxiliary, "init_weights": torch.get_default_device().type != "meta"}
    if model.startswith("vit_") and spec.height == spec.width:
        options = {"image_size": spec.height}  # fixes its position embedding
    network: nn.Module = models.get_model(model, weights=None, num_classes=spec.num_classes, **options)
    if spec.channels != 3:  # torchvision's take three
        key, first = next((key, layer) for key, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
        network.set_submodule(key, _of_channels(first, spec.channels))
    return network


def _of_channels(layer: nn.Module, channels: int) -> nn.Conv2d:
    """The same convolution for images of `channels` channels."""
    assert isinstance(layer, nn.Conv2d)
    options: Any = {key: getattr(layer, key) for key in ("kernel_size", "stride", "padding")}
    return nn.Conv2d(channels, layer.out_channels, bias=layer.bias is not None, **options)


def _timm_names() -> tuple[list[str], list[str]]:
    try:
        import timm
    except ImportError:
        raise CnnbenchError("timm is not installed: pip install 'cnnbench[timm]'", Exit.ENVIRONMENT) from None
    return timm.list_models(), []


def _timm(model: str, spec: ImageSpec, auxiliary: bool) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(
        model, pretrained=False, num_classes=spec.num_classes, in_chans=spec.channels
    )
    return network


LIBRARIES: dict[str, tuple[Callable[[], tuple[list[str], list[str]]], Callable[[str, ImageSpec, bool], nn.Module]]] = {
    # library: its names, classifiers and others; and what builds one
    "torchvision": (_torchvision_names, _torchvision),
    "timm": (_timm_names, _timm),
}
