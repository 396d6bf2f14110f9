"""result.json: what training did and what testing measured, noted while Lightning runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cnnbench import environment, records
from cnnbench.analysis.cost import fc_weights, total
from cnnbench.analysis.tracer import trace
from cnnbench.architectures import build
from cnnbench.records.schema import Epoch, FitResult, RunConfig, RunRecord, TestResult
from cnnbench.training.classifier import Classifier
from cnnbench.training.folder import RunFolder
from cnnbench.training.identity import identity
from cnnbench.training.predictions import logits_sha256, write_predictions
from cnnbench.training.resources import Meter
from cnnbench.types import CnnbenchError


class Recorder(Callback):
    """Writes result.json: after `fit` what training did, after `test` what the best checkpoint scores.

    Args:
        run: The folder to write to.
        task: The task's name.
        seed: The seed of this run.
        config: The resolved configuration.
        precision_reason: Why training computes with the numbers that it does.
        checkpoint: For `test`, the checkpoint that is read.
    """

    def __init__(
        self,
        run: RunFolder,
        task: str,
        seed: int,
        config: RunConfig,
        precision_reason: str,
        checkpoint: Path | None = None,
    ) -> None:
        self.precision_reason = precision_reason
        self.run, self.task, self.seed, self.config, self.checkpoint = run, task, seed, config, checkpoint
        self.record: RunRecord | None = None
        self.recorded = False
        self.predictions: Tensor | None = None
        self._since = self._validation_since = 0.0
        self._train_seconds = self._validation_seconds = 0.0
        self.identity = ""
        self._curve: list[Epoch] = []
        self._meter: Meter | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        assert pl_module.data is not None
        self.identity = identity(self.config, pl_module.data)
        self._meter = Meter(trainer.strategy.root_device)
        self._meter.start()
        self._since = time.perf_counter() - self._train_seconds  # what an interrupted run had already spent counts

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_since = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        now = time.perf_counter()
        trained = self._validation_since - self._since - self._validation_seconds
        self._validation_seconds += now - self._validation_since
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._curve.append(
            Epoch(
                epoch=trainer.current_epoch + 1,
                steps=trainer.global_step,
                train_seconds=trained,
                images=(trainer.fit_loop.total_batch_idx + 1) * data.images_per_batch,
                val_accuracy=_exact(metrics["val/accuracy"], len(data.loaded.val)),
                val_loss=metrics["val/loss"],
                train_loss=None,
            )
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The loss is known only here, after validation."""
        loss = trainer.callback_metrics.get("train/loss")  # not there where a checkpoint was taken since validation
        if loss is not None and self._curve and self._curve[-1].epoch == trainer.current_epoch + 1:
            self._curve[-1] = records.replace(self._curve[-1], train_loss=float(loss))

    def state_dict(self) -> dict[str, Any]:
        """What was spent so far, and what it bought, for a checkpoint."""
        return {
            "train": time.perf_counter() - self._since,
            "validation": self._validation_seconds,
            "identity": self.identity,
            "curve": [msgspec.to_builtins(epoch) for epoch in self._curve],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting where a checkpoint left off."""
        self._train_seconds, self._validation_seconds = state_dict["train"], state_dict["validation"]
        self._curve = [Epoch(**epoch) for epoch in state_dict["curve"]]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        seconds = time.perf_counter() - self._since
        assert self._meter is not None
        resources = self._meter.read()
        if not self.run.best.is_file():  # Lightning swallows a refused write
            raise CnnbenchError(
                f"no checkpoint was written to {self.run.path}: is the disk full, or the folder read-only?"
            )
        assert isinstance(pl_module, Classifier)
        assert pl_module.spec is not None
        assert pl_module.data is not None
        images = pl_module.data.val_images
        best = torch.load(self.run.best, map_location="cpu", weights_only=True)
        with torch.device("meta"):
            network = build(pl_module.arch, pl_module.spec)
            layers = trace(network, pl_module.spec)
        score = next(s["best_model_score"] for k, s in best["callbacks"].items() if k.startswith("BestAndLast"))
        self.record = RunRecord(
            task=self.task,
            arch=pl_module.arch,
            seed=self.seed,
            data=pl_module.data,
            spec=pl_module.spec,
            cost=total(network, layers),
            fc_weights=fc_weights(layers),
            config=self.config,
            identity=self.identity,
            environment=records.replace(
                environment.describe(),
                processes=trainer.world_size,
                precision=str(trainer.precision),
                precision_reason=self.precision_reason,
            ),
            fit=FitResult(
                epochs=trainer.current_epoch,
                steps=trainer.global_step,
                best_epoch=best["epoch"],
                val_accuracy=_exact(float(score), images),
                val_images=images,
                train_images=pl_module.data.train_images,
                train_seconds=seconds,
                validation_seconds=self._validation_seconds,
                curve=tuple(self._curve),
                resources=resources,
            ),
        )
        records.write(self.run.result, self.record)
        self.run.failure.unlink(missing_ok=True)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        self.predictions = pl_module.predictions.compute().cpu()  # gathers, so every process must come here

    on_predict_epoch_end = on_test_epoch_end

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        assert self.predictions is not None
        assert self.checkpoint is not None
        rows = self.predictions
        assert pl_module.data is not None
        images = pl_module.data.test_images
        if trainer.limit_test_batches == 1.0 and rows[:, 0].tolist() != list(range(images)):
            raise AssertionError(f"{len(rows)} predictions for {images} test images: each must be counted once")
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        correct = int((rows[:, 2] == rows[:, 1]).sum())
        result = TestResult(
            accuracy=correct / len(rows),
            loss=metrics["test/loss"],
            images=len(rows),
            correct=correct,
            checkpoint_sha256=records.sha256(self.checkpoint),
            logits_sha256=logits_sha256(rows[:, 3:].numpy()) if _float32_on_the_cpu(trainer) else None,
        )
        whole = len(rows) == images
        if trainer.is_global_zero:
            self._record_test(result, whole)

    def _record_test(self, result: TestResult, whole: bool) -> None:
        assert self.checkpoint is not None
        assert self.predictions is not None
        run = RunFolder(self.checkpoint.parent)
        self.record = records.replace(records.read(run.result, RunRecord), test=result)
        if self.checkpoint.name == run.best.name and whole:
            write_predictions(run.predictions, self.predictions)
            records.write(run.result, self.record)
            self.recorded = True


def _exact(accuracy: float, images: int) -> float:
    """The fraction that a float32 was rounded from."""
    return round(accuracy * images) / images


def _float32_on_the_cpu(trainer: Trainer) -> bool:
    """Mixed precision is for training: what is scored is computed in float32 (`Classifier.scored`)."""
    return trainer.precision in ("32-true", "bf16-mixed", "16-mixed") and trainer.strategy.root_device.type == "cpu"
