"""result.json: what training did and what testing measured, noted while Lightning runs."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cnnbench import environment, records
from cnnbench.analysis.cost import fc_weights, traced_cost
from cnnbench.analysis.macs import training_macs
from cnnbench.analysis.per_class import tally
from cnnbench.analysis.tracer import trace_architecture
from cnnbench.records.schema import (
    Environment,
    Epoch,
    FitResult,
    NetworkChecks,
    Resources,
    RunConfig,
    RunRecord,
    SplitResult,
    TestResult,
)
from cnnbench.training import process
from cnnbench.training.checkpoints import load_classifier
from cnnbench.training.classifier import Classifier
from cnnbench.training.data import Batch
from cnnbench.training.folder import RunFolder
from cnnbench.training.identity import identity
from cnnbench.training.predictions import logits_sha256, write_predictions
from cnnbench.training.resources import Meter
from cnnbench.training.stored import StoredCheckpoint, newest, open_checkpoint
from cnnbench.types import CnnbenchError, Exit


class FitState(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint holds, besides the weights, for the record of its run."""

    task: str
    seed: int
    config: RunConfig
    identity: str
    environment: Environment
    train_seconds: float
    validation_seconds: float
    curve: tuple[Epoch, ...]
    resources: Resources
    checks: NetworkChecks | None = None


def fit_state(checkpoint: StoredCheckpoint) -> FitState:
    """What a checkpoint says of its run.

    Raises:
        CnnbenchError: It says nothing, or not what this version reads (exit 3).
    """
    callbacks = checkpoint.content.get("callbacks")
    return _fit_state(callbacks.get(Recorder.__qualname__) if isinstance(callbacks, dict) else None)


def _fit_state(content: Any) -> FitState:
    try:
        return msgspec.convert(content, FitState)
    except (msgspec.ValidationError, CnnbenchError) as error:
        raise CnnbenchError(
            f"the checkpoint does not hold the state of a run that this version resumes ({error}): train it again",
            Exit.DATA,
        ) from None


def fit_record(state: FitState, classifier: Classifier, *, epochs: int, steps: int) -> RunRecord:
    """The record of a run whose training has ended.

    Args:
        state: What was noted while it trained.
        classifier: As it was trained; its weights are not read.
        epochs: Finished ones.
        steps: Steps of the optimizer.

    Raises:
        CnnbenchError: The run never validated, so there is no best epoch (exit 2).
    """
    assert classifier.spec is not None
    assert classifier.data is not None
    if not state.curve:
        raise CnnbenchError(
            "training ended without a validation pass, so there is no best epoch: "
            "see --trainer.check_val_every_n_epoch, --trainer.limit_val_batches and --trainer.max_epochs"
        )
    traced, weights = trace_architecture(classifier.arch, classifier.spec), classifier.weight_of_class
    best = max(state.curve, key=lambda epoch: epoch.val_accuracy)  # the earliest of equals
    return RunRecord(
        task=state.task,
        arch=classifier.arch,
        seed=state.seed,
        data=classifier.data,
        spec=classifier.spec,
        cost=traced_cost(traced),
        fc_weights=fc_weights(traced.layers),
        training_macs=training_macs(classifier.arch, classifier.spec),
        config=state.config,
        identity=state.identity,
        environment=state.environment,
        fit=FitResult(
            epochs=epochs,
            steps=steps,
            best_epoch=best.epoch - 1,
            val_accuracy=best.val_accuracy,
            val_images=classifier.data.val_images,
            train_images=classifier.data.train_images,
            train_seconds=state.train_seconds,
            validation_seconds=state.validation_seconds,
            curve=state.curve,
            resources=state.resources,
            forked=process.forked,
        ),
        checks=state.checks,
        class_names=classifier.class_names,
        class_weights=None if weights is None else tuple(weights.tolist()),
    )


def finish(run: RunFolder) -> RunRecord | None:
    """Write the result of a run that was killed after its last checkpoint, from what the checkpoint holds.

    None where there is nothing to finish: there is a result, or training has not ended.

    Raises:
        CnnbenchError: The checkpoint cannot be read (exit 3).
    """
    if run.result.is_file() or not run.best.is_file() or not run.last.is_file():
        return None
    checkpoint = open_checkpoint(newest(run))
    if not checkpoint.has_finished:
        return None
    record = fit_record(
        fit_state(checkpoint),
        load_classifier(checkpoint.path),
        epochs=checkpoint.epoch + 1,
        steps=checkpoint.steps,
    )
    write_result(run, record)
    return record


def write_result(run: RunFolder, record: RunRecord) -> None:
    """Write result.json; a failure of an earlier attempt is removed."""
    records.write(run.result, record)
    run.failure.unlink(missing_ok=True)


class Recorder(Callback):
    """Writes result.json: after `fit` what training did, after `test` what the best checkpoint scores.

    Args:
        run: The folder to write to.
        task: The task's name.
        seed: The seed of this run.
        config: The resolved configuration.
        precision_reason: Why training computes with the numbers that it does.
        checkpoint: For `test`, the checkpoint that is read.
        checks: What was found when the network was tried, where it is not one of ours.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        task: str,
        seed: int,
        config: RunConfig,
        precision_reason: str,
        checkpoint: Path | None = None,
        checks: NetworkChecks | None = None,
    ) -> None:
        self.precision_reason, self.checks = precision_reason, checks
        self.run, self.task, self.seed, self.config, self.checkpoint = run, task, seed, config, checkpoint
        self.record: RunRecord | None = None
        self.recorded = self.keeps_validation = False
        self.predictions: Tensor | None = None
        self._since = self._validation_since = 0.0
        self._train_seconds = self._validation_seconds = 0.0
        self.identity = ""
        self._curve: list[Epoch] = []
        self._meter: Meter | None = None
        self._environment: Environment | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        assert pl_module.data is not None
        self.identity = _joined(self.identity, identity(self.config, pl_module.data))
        self._environment = records.replace(
            environment.describe(),
            processes=trainer.world_size,
            precision=str(trainer.precision),
            precision_reason=self.precision_reason,
        )
        self._meter = Meter(trainer.strategy.root_device)
        self._meter.start()
        self._since = time.perf_counter() - self._train_seconds  # what an interrupted run had already spent counts

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        self._validation_since = time.perf_counter()
        if self._meter is not None:  # the sanity check comes before training
            self._meter.pause()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self.on_test_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate" and self.keeps_validation:
            self._keep_validation(trainer, pl_module)
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        assert self._meter is not None
        self._meter.resume()
        now = time.perf_counter()
        trained = self._validation_since - self._since - self._validation_seconds
        self._validation_seconds += now - self._validation_since
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        assert isinstance(pl_module, Classifier)
        pl_module.refuse_divergence(metrics["val/loss"], "validation loss")
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

    def state(self) -> FitState:
        """What was done so far. Only while training."""
        assert self._meter is not None
        assert self._environment is not None
        return FitState(
            task=self.task,
            seed=self.seed,
            config=self.config,
            identity=self.identity,
            environment=self._environment,
            train_seconds=time.perf_counter() - self._since,
            validation_seconds=self._validation_seconds,
            curve=tuple(self._curve),
            resources=self._meter.read(),
            checks=self.checks,
        )

    def state_dict(self) -> dict[str, Any]:
        """The state as plain values, for a checkpoint."""
        content: dict[str, Any] = msgspec.to_builtins(self.state())
        return content

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting where a checkpoint left off."""
        state = _fit_state(state_dict)
        self._train_seconds, self._validation_seconds = state.train_seconds, state.validation_seconds
        self._curve = [*state.curve]
        self.identity = state.identity

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        assert isinstance(pl_module, Classifier)
        self.record = fit_record(self.state(), pl_module, epochs=trainer.current_epoch, steps=trainer.global_step)
        write_result(self.run, self.record)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        pl_module.predictions.reset()

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, *__: int
    ) -> None:
        assert isinstance(pl_module, Classifier)
        _, labels, index = batch
        pl_module.predictions.update(index, labels, logits=outputs)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        self.predictions = pl_module.predictions.compute().cpu()  # gathers, so every process must come here

    on_predict_epoch_end = on_test_epoch_end

    def _keep_validation(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what the best checkpoint answers for the validation images, where all of them were scored."""
        assert isinstance(pl_module, Classifier)
        assert pl_module.data is not None
        rows, result = self._scored(trainer, loss="val/loss")
        if trainer.is_global_zero and result.images == pl_module.data.val_images:
            record = records.replace(records.read(self.run.result, RunRecord), val=result)
            names = trainer.datamodule.loaded.val.names  # type: ignore[attr-defined]
            write_predictions(self.run.val_predictions, rows, names=names)
            records.write(self.run.result, record)
            self.record = record

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        assert pl_module.data is not None
        rows, scored = self._scored(trainer, loss="test/loss")
        images = pl_module.data.test_images
        every_batch = (
            isinstance(trainer.limit_test_batches, float) and trainer.limit_test_batches == 1.0
        )  # 1 is a batch
        if every_batch and rows[:, 0].tolist() != list(range(images)):
            raise AssertionError(f"{len(rows)} predictions for {images} test images: each must be counted once")
        if trainer.is_global_zero:
            names = trainer.datamodule.loaded.test.names  # type: ignore[attr-defined]
            self._record_test(TestResult(**msgspec.structs.asdict(scored)), complete=len(rows) == images, names=names)

    def _scored(self, trainer: Trainer, *, loss: str) -> tuple[Tensor, SplitResult]:
        """The rows of a pass over a split, and what they come to; `loss` is the name of the metric."""
        assert self.checkpoint is not None
        assert self.predictions is not None
        rows = self.predictions
        correct = int((rows[:, 2] == rows[:, 1]).sum())
        labels, predictions = rows[:, 1:3].long().numpy().T
        return rows, SplitResult(
            accuracy=correct / len(rows),
            loss=float(trainer.callback_metrics[loss]),
            images=len(rows),
            correct=correct,
            checkpoint_sha256=records.sha256(self.checkpoint),
            logits_sha256=logits_sha256(rows[:, 3:].numpy()) if _float32_on_the_cpu(trainer) else None,
            by_class=tally(labels, predictions, classes=rows.shape[1] - 3),
        )

    def _record_test(self, result: TestResult, *, complete: bool, names: np.ndarray | None) -> None:
        assert self.checkpoint is not None
        assert self.predictions is not None
        run = RunFolder(self.checkpoint.parent)
        self.record = records.replace(records.read(run.result, RunRecord), test=result)
        if self.checkpoint.name == run.best.name and complete:
            write_predictions(run.predictions, self.predictions, names=names)
            records.write(run.result, self.record)
            self.recorded = True


def _joined(before: str, now: str) -> str:
    """The identity of a run that was begun under one identity and is resumed under another: neither of the two."""
    return now if before in ("", now) else hashlib.sha256(f"{before} {now}".encode()).hexdigest()


def _exact(accuracy: float, images: int) -> float:
    """The fraction that a float32 was rounded from."""
    return round(accuracy * images) / images


def _float32_on_the_cpu(trainer: Trainer) -> bool:
    """Mixed precision is for training: what is scored is computed in float32 (`Classifier.scored`)."""
    return trainer.precision in ("32-true", "bf16-mixed", "16-mixed") and trainer.strategy.root_device.type == "cpu"
