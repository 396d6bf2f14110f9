"""The classifier and its data without our verbs: in a notebook, or under a Trainer of the user's own."""

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

import cnnbench
from cnnbench.types import CnnbenchError, Exit

SMALL: dict[str, Any] = {"train_images": 200, "batch_size": 50}
QUIET: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


def test_batches_need_no_trainer() -> None:
    pixels, labels, index = next(iter(cnnbench.ImageData("mnist5k", batch_size=32).train_dataloader()))
    assert (pixels.shape, labels.shape, index.shape) == ((32, 1, 28, 28), (32,), (32,))
    assert (pixels.dtype, float(pixels.min()), float(pixels.max())) == (torch.float32, 0.0, 1.0)


def test_every_pass_over_the_batches_begins_with_the_first() -> None:
    loader = cnnbench.ImageData("mnist5k", **SMALL).train_dataloader()
    first = next(iter(loader))
    for _ in range(2):
        passed = list(loader)
        assert len(passed) == len(loader) == 4
        assert torch.equal(passed[0][2], first[2])
    loader.load_state_dict({"epoch": 0, "batch": 3})
    assert [len(list(loader)) for _ in range(2)] == [1, 4]
    loader.set_epoch(1)
    assert not torch.equal(next(iter(loader))[2], first[2])


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_other_data_than_ours_is_refused() -> None:
    class Other(lightning.LightningDataModule):
        def train_dataloader(self) -> list[int]:
            return [1]

    with pytest.raises(CnnbenchError, match="call it with datamodule=ImageData"):
        Trainer(max_epochs=1, **QUIET).fit(cnnbench.Classifier("linear"), Other())


def test_an_unknown_option_of_the_data_is_refused_with_the_nearest() -> None:
    with pytest.raises(CnnbenchError, match=r"unknown option 'batchsize' of ImageData: did you mean batch_size\?"):
        cnnbench.ImageData("mnist5k", batchsize=3)


def test_a_classifier_without_data_says_what_is_missing() -> None:
    classifier, data = cnnbench.Classifier("lenet5"), cnnbench.ImageData("mnist5k")
    with pytest.raises(CnnbenchError, match=r"call `build\(spec, data=..., class_names=...\)`") as refused:
        classifier(torch.zeros(1, 1, 28, 28))
    assert refused.value.code == Exit.USAGE
    classifier.build(data.loaded.spec, data=data.description, class_names=data.loaded.class_names)
    assert classifier(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*smaller than the logging interval")
def test_a_plain_trainer_trains_to_the_weights_of_fit() -> None:
    cnnbench.fit(arch="lenet5", seed=3, max_epochs=2, precision="32-true", **SMALL)
    lightning.seed_everything(3, verbose=False)
    classifier, data = cnnbench.Classifier("lenet5"), cnnbench.ImageData("mnist5k", **SMALL)
    Trainer(max_epochs=2, **QUIET).fit(classifier, data)
    loaded = cnnbench.Classifier.load_from_checkpoint("runs/mnist5k_lenet5/seed3/last.ckpt", map_location="cpu")
    assert loaded.state_dict().keys() == classifier.state_dict().keys()
    for name, weights in classifier.state_dict().items():
        assert torch.equal(weights, loaded.state_dict()[name]), name
    assert (loaded.spec, loaded.class_names) == (classifier.spec, classifier.class_names)
    pixels, _, _ = next(iter(data.test_dataloader()))
    assert loaded.eval()(pixels).shape == (len(pixels), 10)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_plain_trainer_predicts_the_logits_of_every_test_image(run: Path) -> None:
    classifier, data = cnnbench.Classifier.load_from_checkpoint(run / "best.ckpt"), cnnbench.ImageData("mnist5k")
    trainer = Trainer(**QUIET)
    batches = trainer.predict(classifier, data)
    assert batches is not None
    with torch.no_grad():
        expected = [classifier.eval()(pixels) for pixels, _, _ in data.predict_dataloader()]
    assert [tuple(logits.shape) for logits in batches] == [(250, 10), (250, 10)]  # type: ignore[union-attr]
    torch.testing.assert_close(torch.cat(batches), torch.cat(expected))  # type: ignore[arg-type]
    assert classifier.predictions.rows == []  # nobody collects them twice
    for _ in range(2):
        trainer.test(classifier, data, verbose=False)
        assert len(classifier.predictions.compute()) == 500


class Counts(Callback):
    """Counts the steps it sees."""

    steps = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.steps += 1


def test_callbacks_and_loggers_of_the_user_are_added() -> None:
    counts = Counts()
    cnnbench.fit(arch="linear", max_epochs=1, **SMALL, callbacks=[counts], loggers=[CSVLogger("mine", "", "")])
    assert counts.steps == 4
    assert "val/accuracy" in Path("mine/metrics.csv").read_text().partition("\n")[0]
    assert "val/accuracy" in Path("runs/mnist5k_linear/seed1/metrics.csv").read_text().partition("\n")[0]


class Random(torch.nn.Module):
    """Scales by a buffer that its state_dict leaves out."""

    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.rand(28, 28), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


def test_buffers_that_a_state_dict_leaves_out_survive_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnbench.architectures import architecture

    monkeypatch.setattr(architecture, "entries", dict(architecture.entries))
    layers = [Random, torch.nn.Flatten, lambda: torch.nn.Linear(784, 10)]
    cnnbench.register_architecture(name="scaled")(lambda spec: torch.nn.Sequential(*(layer() for layer in layers)))
    cnnbench.fit(arch="scaled", max_epochs=1, skip_checks=True, **SMALL)
    loaded = [cnnbench.Classifier.load_from_checkpoint("runs/mnist5k_scaled/seed1/last.ckpt") for _ in range(2)]
    scales = [classifier.network[1][0].scale for classifier in loaded]  # type: ignore[index]
    assert torch.equal(*scales)
    stored = torch.load("runs/mnist5k_scaled/seed1/last.ckpt", weights_only=True)["cnnbench"]["buffers"]
    assert torch.equal(stored["network.1.0.scale"], scales[0])
