"""Why residuals: the effect of depth on features in the forward pass and on gradients in the backward pass."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench import pictures, pixels
from cnnbench.architectures import build
from cnnbench.datasets.choice import open_choice
from cnnbench.lab import Claim, Lesson, Numbers, Row, lesson
from cnnbench.records.schema import DataChoice
from cnnbench.types import ImageSpec, Split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 14
"""Digits are averaged to a quarter of their pixels, so that 56 layers train four times in two minutes."""
STEPS, BATCH, LR = 60, 64, 0.05
PLAIN, RESIDUAL = NETWORKS = ("plain56", "resnet56")


@dataclass(frozen=True)
class Images:
    """Pixels `(N, 1, SIDE, SIDE)` in [0, 1] and labels `(N,)`."""

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Signal:
    """At the output of the first convolution and of each of 27 blocks, image to logits."""

    features: list[float]
    """Standard deviation of the feature maps."""
    gradients: list[float]
    """Norm of the loss gradient with respect to them."""

    @property
    def forward_ratio(self) -> float:
        """Features of the last block over those of the stem."""
        return self.features[-1] / self.features[0]

    @property
    def backward_ratio(self) -> float:
        """Gradients of the stem over those of the last block."""
        return self.gradients[0] / self.gradients[-1]


@dataclass(frozen=True)
class Trained:
    """One network: its signal at initialisation and after training, training loss, validation accuracy."""

    before: Signal
    after: Signal
    loss: float
    accuracy: float


Networks = dict[str, Trained]
"""By name, the plain one first."""


@lesson(name="depth", order=10, trains=True)
def depth() -> Lesson:
    """56 layers, plain against residual: features and gradients by layer, at initialisation and after training."""
    data = open_choice(DataChoice(dataset="mnist5k"))
    train, val = _small(data.train), _small(data.val)
    bare, normed = ({name: _train(name, norm, train, val) for name in NETWORKS} for norm in (False, True))
    claims = [
        *_claims_of_bare(bare[PLAIN].before, bare[RESIDUAL].before),
        _claim_of_batch_norm(normed[PLAIN].before, normed[RESIDUAL].before),
        _claim_of_training(bare, normed),
        _claim_of_initialisation(*(_under_he(name, train) for name in NETWORKS)),
    ]
    return Lesson(
        "Depth",
        "plain56 and resnet56 have the same layers and initial weights; one has shortcuts. Digits of mnist5k at "
        f"{SIDE}x{SIDE}, torch's own initialisation, {STEPS} steps of SGD with Nesterov momentum 0.9 and batches of "
        f"{BATCH}, the rate rising to {LR} and falling to zero. With batch norm the residual network's features grow "
        "slowly, since every block adds to them.",
        claims,
        [Numbers("56 layers", [*_rows(bare, "no batch norm"), *_rows(normed, "batch norm")])],
        _draw({"no batch norm": bare, "batch norm": normed}),
        "Features and gradients by block: the plain network's fall or rise by orders of magnitude, the residual one's "
        "do not",
    )


def _small(split: Split) -> Images:
    images = pixels.to_float(torch.from_numpy(split.images))
    return Images(F.avg_pool2d(images, 2), torch.from_numpy(split.labels))


def _build(name: str, norm: bool, images: Tensor) -> nn.Module:
    """A network that normalises by the mean and deviation of `images`; with or without batch norm."""
    mean, std = images.mean().item(), images.std().item()
    network = build(name, ImageSpec(SIDE, SIDE, 1, num_classes=10, mean=(mean,), std=(std,)))
    if not norm:
        for key, module in list(network.named_modules()):
            if isinstance(module, nn.BatchNorm2d):
                network.set_submodule(key, nn.Identity())
    return network


def _train(name: str, norm: bool, train: Images, val: Images) -> Trained:
    torch.manual_seed(1)
    network = _build(name, norm, train.pixels)
    before = _signal(network, train)
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=STEPS, cycle_momentum=False)
    order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(1))
    loss = torch.zeros(())
    for batch in order[: STEPS * BATCH].view(STEPS, BATCH):
        loss = F.cross_entropy(network(train.pixels[batch]), train.labels[batch])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    after = _signal(network, train)
    with torch.no_grad():
        correct = network.eval()(val.pixels).argmax(dim=1) == val.labels
    return Trained(before, after, loss.item(), correct.float().mean().item())


def _under_he(name: str, train: Images) -> Signal:
    """The signal at initialisation without batch norm, under He's initialisation instead of torch's."""
    torch.manual_seed(1)
    network = _build(name, norm=False, images=train.pixels)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return _signal(network, train)


def _signal(network: nn.Module, images: Images) -> Signal:
    """Statistics of the feature maps `(N, C, H, W)` of the first batch, in training mode.

    In float64: float32 underflows at 1e-46.
    """
    outputs: list[Tensor] = []

    def _keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    network = copy.deepcopy(network).double().train()
    blocks = [module for module in network.get_submodule("1").children() if list(module.children())]
    for block in blocks:
        block.register_forward_hook(_keep)
    logits = network(images.pixels[:BATCH].double())
    torch.autograd.backward(F.cross_entropy(logits, images.labels[:BATCH]))
    gradients = [output.grad.norm().item() for output in outputs if output.grad is not None]
    return Signal([output.std().item() for output in outputs], gradients)


def _claims_of_bare(plain: Signal, residual: Signal) -> list[Claim]:
    """Without batch norm, at initialisation."""
    return [
        Claim(
            "Without batch norm, the plain network's features fade on the way up, at initialisation: the last block's "
            f"standard deviation is {plain.forward_ratio:.0e} of the first's; the residual network's "
            f"{residual.forward_ratio:.2f}",
            plain.forward_ratio < 1e-10 and 0.1 < residual.forward_ratio < 10,
        ),
        Claim(
            f"Its gradients fade on the way down: the first block's is {plain.backward_ratio:.0e} of the last's; the "
            f"residual network's {residual.backward_ratio:.2f}",
            plain.backward_ratio < 1e-10 and 0.1 < residual.backward_ratio < 10,
        ),
    ]


def _claim_of_batch_norm(plain: Signal, residual: Signal) -> Claim:
    return Claim(
        "Batch norm keeps the plain network's features at one size, but its gradients then grow on the way down, "
        f"{plain.backward_ratio:,.0f} fold; through shortcuts {residual.backward_ratio:,.0f} fold",
        0.5 < plain.forward_ratio < 2 and plain.backward_ratio > 20 * residual.backward_ratio,
    )


def _claim_of_training(bare: Networks, normed: Networks) -> Claim:
    plain, residual = (bare[name].accuracy for name in NETWORKS)
    plain_normed, residual_normed = (normed[name].accuracy for name in NETWORKS)
    return Claim(
        f"After {STEPS} steps of training the plain network without batch norm is near chance ({plain:.0%} of "
        f"validation digits right), with batch norm {plain_normed:.0%}; the residual one {residual:.0%} and "
        f"{residual_normed:.0%}",
        plain < 0.2 and residual > plain + 0.1 and residual_normed > plain_normed + 0.1,
    )


def _claim_of_initialisation(plain: Signal, residual: Signal) -> Claim:
    return Claim(
        "How fast it fades depends on the initialisation (torch's own multiplies by about 0.41 per layer): under He's, "
        f"again without batch norm, the plain network's features end at {plain.forward_ratio:.3f} of the stem's, while "
        f"the residual network's, to which every block adds, grow to {residual.forward_ratio:,.0f} times it",
        1e-4 < plain.forward_ratio < 1 and residual.forward_ratio > 100,
    )


def _rows(networks: Networks, norm: str) -> list[Row]:
    return [
        {
            "network": f"{name}, {norm}",
            "features at initialisation, last block / stem": trained.before.forward_ratio,
            "features after training": trained.after.forward_ratio,
            "gradients at initialisation, stem / last block": trained.before.backward_ratio,
            "gradients after training": trained.after.backward_ratio,
            "training loss": trained.loss,
            "validation accuracy": trained.accuracy,
        }
        for name, trained in networks.items()
    ]


def _draw(networks: dict[str, Networks]) -> Figure:
    """Features (left) and gradients (right) by block, a row per kind of normalisation."""
    figure, panels = pictures.new(11.5, 7, panels=4, rows=2)
    figure.suptitle("56 layers: plain (orange) against residual (blue); dashed: after training")
    for row, (norm, by_name) in enumerate(networks.items()):
        for axes, part in zip(panels[2 * row : 2 * row + 2], ("features", "gradients"), strict=True):
            for colour, (name, trained) in zip(pictures.COLOURS[1::-1], by_name.items(), strict=True):
                blocks = np.arange(len(trained.before.features))
                axes.plot(blocks, getattr(trained.before, part), color=colour, label=name)
                axes.plot(blocks, getattr(trained.after, part), color=colour, linestyle="--")
            axes.set_yscale("log")
            axes.set_xlabel("block")
            what = "standard deviation of the features" if part == "features" else "norm of the gradient"
            axes.set_title(f"{what}, {norm}", fontsize=11)
    panels[0].legend()
    return figure
