"""Why residuals: what depth does to features on the way up and to gradients on the way down."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench import pictures
from cnnbench.architectures import build
from cnnbench.datasets.choice import open_choice
from cnnbench.lab import Lesson, Numbers, lesson
from cnnbench.records.schema import DataChoice
from cnnbench.types import ImageSpec, Split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 14
"""Digits are averaged to a quarter of their pixels: 56 layers four times are to train in two minutes."""
STEPS, BATCH, LR = 60, 64, 0.05
NETWORKS = ("plain56", "resnet56")


@dataclass(frozen=True)
class Signal:
    """At the output of the first convolution and of each of 27 blocks, image to logits."""

    features: list[float]
    """Standard deviation of the feature maps."""
    gradients: list[float]
    """Norm of the loss gradient with respect to them."""


@dataclass(frozen=True)
class Trained:
    """One network: its signal at initialisation and after training, and what it learnt."""

    before: Signal
    after: Signal
    loss: float
    accuracy: float


@lesson(name="depth", order=10, trains=True)
def depth() -> Lesson:
    """56 layers, plain against residual: features and gradients by layer, at initialisation and after training."""
    data = open_choice(DataChoice(dataset="mnist5k"))
    train, val = _small(data.train), _small(data.val)
    found = {(name, norm): _followed(name, norm, train, val) for norm in (False, True) for name in NETWORKS}
    plain, residual = (found[name, False] for name in NETWORKS)
    plain_bn, residual_bn = (found[name, True] for name in NETWORKS)
    claims = [
        (
            "Without batch norm, the plain network's features fade on the way up, at initialisation: the last block's "
            f"standard deviation is {_last(plain.before.features):.0e} of the first's; the residual network's "
            f"{_last(residual.before.features):.2f}",
            _last(plain.before.features) < 1e-10 and 0.1 < _last(residual.before.features) < 10,
        ),
        (
            f"Its gradients fade on the way down: the first block's is {_first(plain.before.gradients):.0e} of the "
            f"last's; the residual network's {_first(residual.before.gradients):.2f}",
            _first(plain.before.gradients) < 1e-10 and 0.1 < _first(residual.before.gradients) < 10,
        ),
        (
            "Batch norm keeps the plain network's features at one size, but its gradients then grow on the way down, "
            f"{_first(plain_bn.before.gradients):,.0f} fold; through shortcuts "
            f"{_first(residual_bn.before.gradients):,.0f} fold",
            0.5 < _last(plain_bn.before.features) < 2
            and _first(plain_bn.before.gradients) > 20 * _first(residual_bn.before.gradients),
        ),
        (
            f"After {STEPS} steps of training the plain network without batch norm knows nothing ({plain.accuracy:.0%} "
            f"of validation digits right), with batch norm {plain_bn.accuracy:.0%}; the residual one "
            f"{residual.accuracy:.0%} and {residual_bn.accuracy:.0%}",
            plain.accuracy < 0.2
            and residual.accuracy > plain.accuracy + 0.1
            and residual_bn.accuracy > plain_bn.accuracy + 0.1,
        ),
    ]
    he = {name: _under_he(name, train) for name in NETWORKS}
    claims.append(
        (
            "How fast it fades is the initialisation's doing (torch's own multiplies by about 0.41 a layer): under "
            f"He's, again without batch norm, the plain network's features end at "
            f"{_last(he['plain56'].features):.3f} of the stem's, while the residual network's, "
            f"to which every block adds, grow to {_last(he['resnet56'].features):,.0f} times it",
            1e-4 < _last(he["plain56"].features) < 1 and _last(he["resnet56"].features) > 100,
        )
    )
    rows = [
        {
            "network": f"{name}, {'batch norm' if norm else 'no batch norm'}",
            "features at initialisation, last block / stem": _last(run.before.features),
            "features after training": _last(run.after.features),
            "gradients at initialisation, stem / last block": _first(run.before.gradients),
            "gradients after training": _first(run.after.gradients),
            "training loss": run.loss,
            "validation accuracy": run.accuracy,
        }
        for (name, norm), run in found.items()
    ]
    return Lesson(
        "Depth",
        "plain56 and resnet56 have the same layers and initial weights; one has shortcuts. Digits of mnist5k at "
        f"{SIDE}x{SIDE}, torch's own initialisation, {STEPS} steps of SGD with Nesterov momentum 0.9 and batches of "
        f"{BATCH}, the rate rising to {LR} and falling to zero. With batch norm the residual network's features grow "
        "slowly, since every block adds to them.",
        claims,
        [Numbers("56 layers", rows)],
        _figure(found),
        "Features and gradients by block: the plain network's fall or rise by orders of magnitude, the residual one's "
        "do not",
    )


def _small(split: Split) -> tuple[Tensor, Tensor]:
    """Pixels `(N, 1, 14, 14)` in [0, 1] and labels."""
    pixels = torch.from_numpy(split.images).permute(0, 3, 1, 2).float() / 255
    return F.avg_pool2d(pixels, 2), torch.from_numpy(split.labels)


def _under_he(name: str, train: tuple[Tensor, Tensor]) -> Signal:
    """The signal at initialisation without batch norm, under He's initialisation instead of torch's."""
    torch.manual_seed(1)
    network = _built(name, norm=False, pixels=train[0])
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return _signal(network, train[0][:BATCH], train[1][:BATCH])


def _built(name: str, norm: bool, pixels: Tensor) -> nn.Module:
    mean, std = pixels.mean().item(), pixels.std().item()
    network = build(name, ImageSpec(SIDE, SIDE, 1, num_classes=10, mean=(mean,), std=(std,)))
    if not norm:
        for key, module in list(network.named_modules()):
            if isinstance(module, nn.BatchNorm2d):
                network.set_submodule(key, nn.Identity())
    return network


def _followed(name: str, norm: bool, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor]) -> Trained:
    torch.manual_seed(1)
    pixels, labels = train
    network = _built(name, norm, pixels)
    before = _signal(network, pixels[:BATCH], labels[:BATCH])
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=STEPS, cycle_momentum=False)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    loss = torch.zeros(())
    for chosen in order[: STEPS * BATCH].view(STEPS, BATCH):
        loss = F.cross_entropy(network(pixels[chosen]), labels[chosen])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    after = _signal(network, pixels[:BATCH], labels[:BATCH])
    with torch.no_grad():
        right = network.eval()(val[0]).argmax(dim=1) == val[1]
    return Trained(before, after, loss.item(), right.float().mean().item())


def _signal(network: nn.Module, pixels: Tensor, labels: Tensor) -> Signal:
    """Statistics of the feature maps `(N, C, H, W)` of one batch, in training mode, in float64: float32 loses 1e-46."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    network = copy.deepcopy(network).double().train()
    blocks = [module for module in network.get_submodule("1").children() if list(module.children())]
    for block in blocks:
        block.register_forward_hook(keep)
    torch.autograd.backward(F.cross_entropy(network(pixels.double()), labels))
    gradients = [output.grad.norm().item() for output in outputs if output.grad is not None]
    return Signal([output.std().item() for output in outputs], gradients)


def _last(values: list[float]) -> float:
    return values[-1] / values[0]


def _first(values: list[float]) -> float:
    return values[0] / values[-1]


def _figure(found: dict[tuple[str, bool], Trained]) -> Figure:
    figure, panels = pictures.new(11.5, 7, panels=4, rows=2)
    figure.suptitle("56 layers: plain (orange) against residual (blue); dashed: after training")
    for row, norm in enumerate((False, True)):
        for axes, part in zip(panels[2 * row : 2 * row + 2], ("features", "gradients"), strict=True):
            for colour, name in zip(pictures.COLOURS[1::-1], NETWORKS, strict=True):
                run = found[name, norm]
                places = np.arange(len(run.before.features))
                axes.plot(places, getattr(run.before, part), color=colour, label=name)
                axes.plot(places, getattr(run.after, part), color=colour, linestyle="--")
            axes.set_yscale("log")
            axes.set_xlabel("block")
            what = "standard deviation of the features" if part == "features" else "norm of the gradient"
            axes.set_title(f"{what}, {'batch norm' if norm else 'no batch norm'}", fontsize=11)
    panels[0].legend()
    return figure
