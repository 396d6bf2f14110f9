"""The folder of a run, runs/<task>/seed<k>/: what `fit` and `test` leave there, and how it is found and read."""

from __future__ import annotations

import hashlib
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from cnnbench import environment, records
from cnnbench.analysis import tracer as anatomy
from cnnbench.analysis.cost import fc_weights, total
from cnnbench.architectures import build
from cnnbench.records.schema import Epoch, FitResult, RunConfig, RunRecord, TestResult
from cnnbench.training.classifier import CHECKPOINT_SCHEMA, Classifier
from cnnbench.training.identity import identity
from cnnbench.training.resources import Meter
from cnnbench.types import CnnbenchError, Exit


@dataclass(frozen=True)
class RunFolder:
    """Where one run keeps what. The names are the same in every run."""

    path: Path

    @property
    def best(self) -> Path:
        """Checkpoint of the epoch with the highest validation accuracy, the earliest of equals."""
        return self.path / "best.ckpt"

    @property
    def last(self) -> Path:
        """Checkpoint of the last finished epoch, to go on from."""
        return self.path / "last.ckpt"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.parquet"

    @property
    def robustness(self) -> Path:
        return self.path / "robustness.json"

    @property
    def failure(self) -> Path:
        """Why the last attempt of a sweep gave no result."""
        return self.path / "failure.json"


def find(source: str | Path) -> Path:
    """The checkpoint that `source` names: a checkpoint, a run folder, or a task folder with one run a seed.

    Of several seeds the one with the best validation accuracy is taken, so that test images never choose.

    Raises:
        CnnbenchError: There is no checkpoint (exit 3).
    """
    path = Path(source)
    if path.is_file():
        return path
    if (path / "best.ckpt").is_file():
        return path / "best.ckpt"
    runs = [RunFolder(result.parent) for result in sorted(path.glob("seed*/result.json"))]
    runs = [run for run in runs if run.best.is_file()]
    if not runs:
        raise CnnbenchError(
            f"no checkpoint at {path}: expected a .ckpt file, or a folder that `fit` wrote, "
            "such as runs/mnist5k_lenet5/seed1",
            Exit.DATA,
        )
    return max(runs, key=lambda run: records.read(run.result, RunRecord).fit.val_accuracy).best


def open_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint of ours without executing anything from it.

    Raises:
        CnnbenchError: It is missing, damaged (even by one byte) or not written by cnnbench (exit 3).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            damaged = archive.testzip()  # torch.load does not look at the checksums: a flipped byte would pass
        if damaged:
            raise CnnbenchError(f"checkpoint {path} is damaged: {damaged} does not match its checksum", Exit.DATA)
        if len({*names}) < len(names):  # one reader takes the first, another the last
            raise CnnbenchError(f"checkpoint {path} holds two entries of one name", Exit.DATA)
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CnnbenchError(
            f"no checkpoint at {path}: run `fit` with the same config first, or give another --ckpt_path", Exit.DATA
        ) from None
    except CnnbenchError:
        raise
    except Exception as error:  # whatever a damaged or hostile file provokes in zipfile or in the unpickler
        reason = str(error).strip().split("\n")[0]
        raise CnnbenchError(f"checkpoint {path} cannot be read: {reason}", Exit.DATA) from None
    schema = checkpoint.get("cnnbench", {}).get("schema") if isinstance(checkpoint, dict) else None
    if schema != CHECKPOINT_SCHEMA:
        raise CnnbenchError(
            f"checkpoint {path} has schema {schema!r}; this version reads {CHECKPOINT_SCHEMA!r}", Exit.DATA
        )
    return checkpoint


def load_classifier(path: Path) -> Classifier:
    """The trained classifier of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        CnnbenchError: See `open_checkpoint`; or weights and architecture do not fit (exit 3).
    """
    checkpoint = open_checkpoint(path)
    made = checkpoint["cnnbench"]
    classifier = Classifier(made["arch"])
    classifier.on_load_checkpoint(checkpoint)
    try:
        classifier.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[-1].strip()
        raise CnnbenchError(
            f"checkpoint {path} does not hold the weights of {made['arch']}: {reason}", Exit.DATA
        ) from None
    return classifier.eval()


class BestAndLast(ModelCheckpoint):
    """best.ckpt by validation accuracy, and last.ckpt; goes on rightly in a run folder that was moved or renamed."""

    def __init__(self, run: RunFolder) -> None:
        super().__init__(
            run.path, "best", monitor="val/accuracy", mode="max", save_last=True, enable_version_counter=False
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning would forget the best score where the folder's path has changed, and keep a stale best.ckpt."""

        def moved(name: str) -> str:
            return str(Path(str(self.dirpath)) / Path(name).name) if name else name

        names = ("best_model_path", "last_model_path", "kth_best_model_path")
        best = {moved(name): score for name, score in state_dict["best_k_models"].items()}
        here = {name: moved(state_dict[name]) for name in names}
        super().load_state_dict({**state_dict, **here, "best_k_models": best, "dirpath": self.dirpath})


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
        self.identity = identity(self.config, self.seed, pl_module.data.sha256)
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
            layers = anatomy.layers(network, pl_module.spec)
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


def write_predictions(path: Path, rows: Tensor) -> None:
    """Parquet with one row an image: index, label, prediction (int32), probabilities and logits (lists of float32).

    Args:
        path: The file to write.
        rows: `(N, 3 + num_classes)`: index, label, prediction, logits.
    """
    columns = {name: pa.array(rows[:, i].int().numpy()) for i, name in enumerate(("index", "label", "prediction"))}
    for name, values in (("probabilities", rows[:, 3:].softmax(dim=1)), ("logits", rows[:, 3:])):
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.flatten().numpy()), values.shape[1])
    with records.replacing(path) as partial:
        pq.write_table(pa.table(columns), partial)


def tested_logits(checkpoint: Path, record: RunRecord) -> np.ndarray | None:
    """The logits `(N, num_classes)` float32 that `test` computed with `checkpoint`, in float32 on the CPU.

    None where it did not: another checkpoint, precision or device, or the file is gone.

    Raises:
        CnnbenchError: They are not the ones that were scored (exit 3).
    """
    run = RunFolder(checkpoint.parent)
    if record.test is None or not record.test.logits_sha256 or checkpoint.name != run.best.name:
        return None
    if not run.predictions.is_file():
        return None
    again = "run `cnnbench test` again"
    try:
        column = pq.read_table(run.predictions, columns=["logits"])["logits"].combine_chunks()
        logits: np.ndarray = column.flatten().to_numpy().reshape(record.test.images, -1)
    except (OSError, ValueError, KeyError, AttributeError) as error:  # pyarrow's errors derive from these
        reason = str(error).strip().split("\n")[0]
        raise CnnbenchError(f"{run.predictions} cannot be read: {reason}; {again}", Exit.DATA) from None
    if logits_sha256(logits) != record.test.logits_sha256:
        raise CnnbenchError(f"{run.predictions} does not hold the logits that were scored; {again}", Exit.DATA)
    return logits


def logits_sha256(logits: np.ndarray) -> str:
    """SHA-256 of the values, in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(logits, dtype="<f4").tobytes()).hexdigest()
