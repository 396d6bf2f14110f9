"""Four ways to write the loss of a classifier, and why the logits stay raw."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench import pictures
from cnnbench.lab import Lesson, Numbers, lesson


@lesson(name="losses", order=8)
def losses() -> Lesson:
    """log-softmax and NLL, cross-entropy, and the one-hot form are one loss with one gradient."""
    torch.manual_seed(0)
    logits = torch.randn(256, 10, dtype=torch.float64) * 5
    labels = torch.randint(0, 10, (256,))
    one_hot = F.one_hot(labels, 10).double()
    forms: dict[str, Callable[[Tensor], Tensor]] = {
        "log-softmax, then negative log-likelihood": lambda z: F.nll_loss(F.log_softmax(z, dim=1), labels),
        "cross-entropy of the logits": lambda z: F.cross_entropy(z, labels),
        "one-hot: -sum of y log p": lambda z: -(one_hot * z.log_softmax(dim=1)).sum(dim=1).mean(),
        "log-sum-exp minus the label's logit": lambda z: (z.logsumexp(1) - z.gather(1, labels[:, None])[:, 0]).mean(),
    }
    formula = (logits.softmax(dim=1) - one_hot) / len(labels)
    rows, values, gradients = [], [], []
    for name, loss in forms.items():
        z = logits.clone().requires_grad_()
        value = loss(z)
        (gradient,) = torch.autograd.grad(value, z)
        values.append(value.item())
        gradients.append((gradient - formula).abs().max().item())
        rows.append({"form": name, "loss": values[-1], "gradient's distance from (p - y) / N": gradients[-1]})
    smooth = F.cross_entropy(logits, labels, label_smoothing=0.1)
    target = 0.9 * one_hot + 0.1 / 10
    smooth_by_hand = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()
    large = torch.tensor([[1000.0, 0.0]])
    naive = -(large.exp() / large.exp().sum()).log()[0, 0]
    stable = F.cross_entropy(large, torch.tensor([0]))
    rectified = F.cross_entropy(F.relu(torch.tensor([[2.0, -8.0]])), torch.tensor([0]))
    raw = F.cross_entropy(torch.tensor([[2.0, -8.0]]), torch.tensor([0]))
    claims = [
        (f"All four are one number: they differ by {max(values) - min(values):.1e}", max(values) - min(values) < 1e-12),
        (f"They have one gradient, (p - y) / N: largest distance {max(gradients):.1e}", max(gradients) < 1e-12),
        (
            "Label smoothing of 0.1 is the one-hot form with 0.91 for the label and 0.01 for each of nine other "
            "classes",
            torch.allclose(smooth, smooth_by_hand, atol=1e-12),
        ),
        (
            f"A softmax written with a bare exp overflows at a logit of 1000 ({naive}), the log-softmax does not "
            f"({stable})",
            bool(naive.isnan()) and stable.item() == 0,
        ),
        (
            f"A ReLU on the logits forgets: (2, -8) has a loss of {raw:.6f}, and after a ReLU (2, 0) has "
            f"{rectified:.4f}",
            rectified.item() > 100 * raw.item(),
        ),
    ]
    figure, (axes,) = pictures.new(9, 4.6)
    margin = torch.linspace(-8, 8, 400)
    axes.plot(margin, F.softplus(-margin), color=pictures.COLOURS[0], label="cross-entropy")
    pairs = torch.stack([margin, torch.zeros_like(margin)], dim=1)
    smoothed = F.cross_entropy(pairs, torch.zeros(400, dtype=torch.int64), label_smoothing=0.1, reduction="none")
    axes.plot(margin, smoothed, color=pictures.COLOURS[1], label="with label smoothing 0.1: being too sure costs, too")
    axes.plot(margin, (margin < 0).float(), color="#666666", linestyle="--", label="0/1 error")
    axes.set_xlabel("logit of the label minus logit of the other of two classes")
    axes.set_ylabel("loss")
    axes.legend()
    return Lesson(
        "Losses",
        "Networks here return raw logits; the loss takes their log-softmax itself. 256 random rows of 10 logits in "
        "float64.",
        claims,
        [Numbers("The same loss four times", rows)],
        figure,
        "Cross-entropy against the margin between two logits, with and without label smoothing",
    )
