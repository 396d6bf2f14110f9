"""Four ways to write the loss of a classifier, and why the logits stay raw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench import pictures
from cnnbench.lab import Claim, Lesson, Numbers, Row, lesson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOLERANCE = 1e-12


@dataclass(frozen=True)
class Form:
    """One way to write the loss."""

    name: str
    value: float
    gradient_error: float
    """Largest distance of its gradient from (p - y) / N."""


@lesson(name="losses", order=8)
def losses() -> Lesson:
    """log-softmax and NLL, cross-entropy, and the one-hot form are one loss with one gradient."""
    torch.manual_seed(0)
    logits = torch.randn(256, 10, dtype=torch.float64) * 5
    labels = torch.randint(0, 10, (256,))
    forms = _measure(logits, labels)
    rows: list[Row] = [
        {"form": form.name, "loss": form.value, "gradient's distance from (p - y) / N": form.gradient_error}
        for form in forms
    ]
    return Lesson(
        "Losses",
        "Networks here return raw logits; the loss takes their log-softmax itself. 256 random rows of 10 logits in "
        "float64.",
        [*_claims_of_forms(forms), _claim_of_smoothing(logits, labels), *_claims_of_raw_logits()],
        [Numbers("The same loss four times", rows)],
        _draw(),
        "Cross-entropy against the margin between two logits, with and without label smoothing",
    )


def _forms(labels: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """The loss as a function of the logits `(N, 10)`, for labels `(N,)`, in four forms."""
    one_hot = F.one_hot(labels, 10).double()
    return {
        "log-softmax, then negative log-likelihood": lambda z: F.nll_loss(F.log_softmax(z, dim=1), labels),
        "cross-entropy of the logits": lambda z: F.cross_entropy(z, labels),
        "one-hot: -sum of y log p": lambda z: -(one_hot * z.log_softmax(dim=1)).sum(dim=1).mean(),
        "log-sum-exp minus the label's logit": lambda z: (z.logsumexp(1) - z.gather(1, labels[:, None])[:, 0]).mean(),
    }


def _measure(logits: Tensor, labels: Tensor) -> list[Form]:
    expected = (logits.softmax(dim=1) - F.one_hot(labels, 10).double()) / len(labels)
    forms = []
    for name, loss in _forms(labels).items():
        z = logits.clone().requires_grad_()
        value = loss(z)
        (gradient,) = torch.autograd.grad(value, z)
        forms.append(Form(name, value.item(), (gradient - expected).abs().max().item()))
    return forms


def _claims_of_forms(forms: list[Form]) -> list[Claim]:
    values = [form.value for form in forms]
    spread, distance = max(values) - min(values), max(form.gradient_error for form in forms)
    return [
        Claim(f"All four give the same number: they differ by {spread:.1e}", spread < TOLERANCE),
        Claim(f"They have the same gradient, (p - y) / N: largest distance {distance:.1e}", distance < TOLERANCE),
    ]


def _claim_of_smoothing(logits: Tensor, labels: Tensor) -> Claim:
    smooth = F.cross_entropy(logits, labels, label_smoothing=0.1)
    target = 0.9 * F.one_hot(labels, 10).double() + 0.1 / 10
    by_hand = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()
    return Claim(
        "Label smoothing of 0.1 is the one-hot form with 0.91 for the label and 0.01 for each of nine other classes",
        torch.allclose(smooth, by_hand, atol=TOLERANCE),
    )


def _claims_of_raw_logits() -> list[Claim]:
    large = torch.tensor([[1000.0, 0.0]])
    naive = -(large.exp() / large.exp().sum()).log()[0, 0]
    stable = F.cross_entropy(large, torch.tensor([0]))
    rectified = F.cross_entropy(F.relu(torch.tensor([[2.0, -8.0]])), torch.tensor([0]))
    raw = F.cross_entropy(torch.tensor([[2.0, -8.0]]), torch.tensor([0]))
    return [
        Claim(
            f"A softmax written with a bare exp overflows at a logit of 1000 ({naive}), the log-softmax does not "
            f"({stable})",
            bool(naive.isnan()) and stable.item() == 0,
        ),
        Claim(
            f"A ReLU on the logits loses information: (2, -8) has a loss of {raw:.6f}, and after a ReLU (2, 0) has "
            f"{rectified:.4f}",
            rectified.item() > 100 * raw.item(),
        ),
    ]


def _draw() -> Figure:
    figure, (axes,) = pictures.new(9, 4.6)
    margin = torch.linspace(-8, 8, 400)
    axes.plot(margin, F.softplus(-margin), color=pictures.COLOURS[0], label="cross-entropy")
    pairs = torch.stack([margin, torch.zeros_like(margin)], dim=1)
    smoothed = F.cross_entropy(pairs, torch.zeros(400, dtype=torch.int64), label_smoothing=0.1, reduction="none")
    axes.plot(margin, smoothed, color=pictures.COLOURS[1], label="with label smoothing 0.1: overconfidence costs, too")
    axes.plot(margin, (margin < 0).float(), color="#666666", linestyle="--", label="0/1 error")
    axes.set_xlabel("logit of the label minus logit of the other of two classes")
    axes.set_ylabel("loss")
    axes.legend()
    return figure
