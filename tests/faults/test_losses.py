"""Losses that are no numbers or no good, splits that are scored in part, and batch norm over a single value."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import cnnbench
from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.architectures import architecture
from cnnbench.records.schema import RunRecord
from cnnbench.training.classifier import Classifier
from cnnbench.training.folder import RunFolder
from cnnbench.types import Exit

LINEAR = ["--config", "mnist5k_linear", "--data.train_images", "256"]
RUN = RunFolder(Path("runs/mnist5k_linear/seed1"))


def test_a_validation_loss_that_is_no_number_ends_the_run_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    huge = ["--model.arch", "lenet5_relu", "--model.lr", "1e38", "--trainer.limit_train_batches", "1"]
    assert main(["fit", *huge, "--data.train_images", "256", "--trainer.max_epochs", "2"]) == Exit.USAGE
    *_, said = capsys.readouterr().err.splitlines()
    assert said == (
        "cnnbench: lenet5_relu diverged in epoch 1: the validation loss is nan; train with a smaller --model.lr "
        "than 1e+38"
    )
    assert not Path("runs/mnist5k_lenet5_relu/seed1").exists()


def test_the_best_weights_before_a_validation_loss_that_is_no_number_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spoil(self: Classifier) -> None:
        if self.current_epoch == 1:
            next(self.network.parameters()).data.fill_(float("nan"))

    monkeypatch.setattr(Classifier, "on_validation_start", spoil)
    assert main(["fit", *LINEAR, "--trainer.max_epochs", "3"]) == Exit.USAGE
    for checkpoint in (RUN.best, RUN.last):
        content = torch.load(checkpoint, weights_only=True)
        assert content["epoch"] == 0
        assert all(weights.isfinite().all() for weights in content["state_dict"].values())
    assert not RUN.result.exists()


def test_a_loss_that_is_finite_and_absurd_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    short = [*LINEAR, "--trainer.max_epochs", "2"]
    assert main(["fit", *short, "--model.lr", "1e15", "--model.weight_decay", "0"]) == 0
    curve = records.read(RUN.result, RunRecord).fit.curve
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(warned) == 1
    assert curve[-1].val_loss > 1e10
    assert f"{max(curve[-1].val_loss, curve[-1].train_loss or 0):.3g}; that of equal probabilities" in warned[0]
    assert main(["fit", *short, "--overwrite"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_one_batch_of_test_images_is_scored_and_not_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    short = [*LINEAR, "--trainer.max_epochs", "1", "--trainer.limit_test_batches", "1"]
    assert main(["fit", *short, "--test"]) == 0
    assert "of 250 images" in capsys.readouterr().out
    assert records.read(RUN.result, RunRecord).test is None
    assert main(["test", *short]) == 0
    assert "the result is not recorded" in capsys.readouterr().err
    assert not RUN.predictions.exists()


class Normalised(nn.Module):
    """Batch norm over one value per channel and image."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.BatchNorm1d(8), nn.Linear(8, classes))
        self.layers(torch.rand(2, 1, 28, 28))

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.layers(pixels)
        return logits


def test_batch_norm_over_a_single_value_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(architecture, "entries", dict(architecture.entries))

    @cnnbench.register_architecture
    def normalised(spec: cnnbench.ImageSpec) -> nn.Module:
        return Normalised(spec.num_classes)

    short = ["--model.arch", "normalised", "--data.train_images", "64", "--trainer.max_epochs", "1"]
    assert main(["fit", *short, "--data.batch_size", "1"]) == Exit.USAGE
    *_, said = capsys.readouterr().err.splitlines()
    assert said == (
        "cnnbench: normalised has batch norm, which needs more than 1 image per step and process here: "
        "give a larger --data.batch_size"
    )
    assert main(["fit", *short, "--data.batch_size", "2"]) == 0
