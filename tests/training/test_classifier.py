import math

import pytest
import torch
from torch.nn import functional as F

from cnnbench.training.classifier import LABEL_SMOOTHING, MOMENTUM, Classifier, Predictions
from cnnbench.types import CnnbenchError, ImageSpec

SPEC = ImageSpec(28, 28, 1, 10, mean=(0.13,), std=(0.31,))
NAMES = tuple("0123456789")


def built(arch: str = "lenet5") -> Classifier:
    classifier = Classifier(arch)
    classifier.build(SPEC, {"name": "digits"}, NAMES)
    return classifier


class FakeTrainer:
    """What the classifier asks of a trainer, without one."""

    max_epochs, limit_train_batches, accumulate_grad_batches, max_steps = 3, 1.0, 1, -1
    gradient_clip_val: float | None = None
    is_last_batch = False

    class datamodule:  # noqa: N801 - stands in for Lightning's attribute
        steps_per_epoch = 10


def test_training_loss_is_smoothed_cross_entropy_in_its_long_form() -> None:
    classifier = built()
    classifier.trainer = FakeTrainer()  # type: ignore[assignment]
    classifier.train_loss = torch.zeros(())
    pixels, labels = torch.rand(4, 1, 28, 28), torch.tensor([3, 1, 0, 9])
    targets = F.one_hot(labels, 10) * (1 - LABEL_SMOOTHING) + LABEL_SMOOTHING / 10
    expected = -(targets * classifier(pixels).log_softmax(1)).sum(1).mean()
    loss = classifier.training_step((pixels, labels, torch.arange(4)), 0)
    torch.testing.assert_close(loss, expected)


def test_optimizer_is_nesterov_sgd_with_decay_on_weights_alone() -> None:
    classifier = built("resnet20")
    classifier._trainer = FakeTrainer()  # type: ignore[assignment]
    (optimizer,), _ = classifier.configure_optimizers()
    decayed, others = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.SGD)
    assert all(group["nesterov"] and group["momentum"] == MOMENTUM for group in optimizer.param_groups)
    assert (decayed["weight_decay"], others["weight_decay"]) == (classifier.weight_decay, 0)
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim == 1 for p in others["params"])
    counted = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    assert counted == sum(p.numel() for p in classifier.parameters())


def test_the_optimizer_is_one_kernel_unless_lightning_clips_gradients() -> None:
    for clip, fused in ((None, True), (1.0, False)):
        classifier = built()
        trainer = FakeTrainer()
        trainer.gradient_clip_val = clip
        classifier._trainer = trainer  # type: ignore[assignment]
        (optimizer,), _ = classifier.configure_optimizers()
        assert optimizer.param_groups[0]["fused"] is fused


def test_learning_rate_rises_for_a_quarter_and_ends_near_zero() -> None:
    classifier = built()
    classifier._trainer = FakeTrainer()  # type: ignore[assignment]
    (optimizer,), (schedule,) = classifier.configure_optimizers()
    rates = []
    for _ in range(30):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule["scheduler"].step() if len(rates) < 30 else None
    assert max(rates) == pytest.approx(classifier.lr, rel=0.02)
    assert rates.index(max(rates)) in (6, 7)
    assert rates[-1] < classifier.lr / 10_000


@pytest.mark.parametrize(
    ("limit", "accumulate", "max_steps", "expected"),
    [(1.0, 1, -1, 30), (4, 1, -1, 12), (0.5, 1, -1, 15), (1.0, 4, -1, 9), (1.0, 1, 7, 7)],
)
def test_total_steps_follow_the_trainer_flags(limit: float, accumulate: int, max_steps: int, expected: int) -> None:
    trainer = FakeTrainer()
    trainer.limit_train_batches, trainer.accumulate_grad_batches, trainer.max_steps = limit, accumulate, max_steps
    classifier = built()
    classifier._trainer = trainer  # type: ignore[assignment]
    assert classifier._total_steps() == expected


def test_schedule_needs_a_number_of_epochs() -> None:
    trainer = FakeTrainer()
    trainer.max_epochs = -1
    classifier = built()
    classifier._trainer = trainer  # type: ignore[assignment]
    with pytest.raises(CnnbenchError, match="max_epochs"):
        classifier._total_steps()


def test_a_loss_that_is_not_finite_stops_training_with_advice() -> None:
    with pytest.raises(CnnbenchError, match=r"lenet5 diverged .* smaller --model.lr"):
        built()._log_epoch(torch.tensor(math.nan))


def test_a_checkpoint_rebuilds_the_network_without_the_data() -> None:
    trained = built()
    checkpoint: dict[str, object] = {"state_dict": trained.state_dict()}
    trained.on_save_checkpoint(checkpoint)
    fresh = Classifier("lenet5")
    fresh.on_load_checkpoint(checkpoint)
    fresh.load_state_dict(checkpoint["state_dict"])  # type: ignore[arg-type]
    pixels = torch.rand(3, 1, 28, 28)
    assert torch.equal(fresh.eval()(pixels), trained.eval()(pixels))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "mlp"}, "holds mlp, the config names lenet5"),
        ({"spec": {"height": 28, "width": 28, "channels": 1, "num_classes": 7}}, "7 classes"),
        ({"class_names": ["a"] * 10}, "classes, size and normalisation must agree"),
        ({"schema": "other/9"}, "schema 'other/9'"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(change: dict[str, object], message: str) -> None:
    trained = built()
    checkpoint: dict[str, dict[str, object]] = {}
    trained.on_save_checkpoint(checkpoint)
    checkpoint["cnnbench"] |= change
    with pytest.raises(CnnbenchError, match=message):
        trained.on_load_checkpoint(checkpoint)


@pytest.mark.parametrize("options", [{"lr": 0}, {"lr": -1.0}, {"lr": math.nan}, {"weight_decay": -0.1}])
def test_impossible_hyper_parameters_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(CnnbenchError, match=r"expected lr > 0"):
        Classifier("lenet5", **options)


def test_predictions_are_sorted_by_index_and_keep_the_argmax_of_the_logits() -> None:
    predictions = Predictions()
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 3.0000002]])
    predictions.update(torch.tensor([5, 2]), torch.tensor([0, 2]), logits)
    rows = predictions.compute()
    assert rows[:, :3].tolist() == [[2, 2, 2], [5, 0, 0]]
    torch.testing.assert_close(rows[:, 3:], logits.flip(0))
