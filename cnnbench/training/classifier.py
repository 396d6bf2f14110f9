"""The one recipe, as a LightningModule around any registered architecture."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Accuracy, MeanMetric, Metric
from torchmetrics.utilities import dim_zero_cat

from cnnbench.architectures import architecture, build
from cnnbench.architectures.handling import to_channels_last
from cnnbench.datasets.splits import balanced_weights
from cnnbench.records.schema import DataRecord
from cnnbench.training.data import Batch, ImageData
from cnnbench.training.schedule import batches_per_epoch
from cnnbench.training.sources import built_from, check_unchanged
from cnnbench.training.stored import CHECKPOINT_SCHEMA, check_room, open_checkpoint, our_part
from cnnbench.types import CnnbenchError, Exit, ImageSpec

LABEL_SMOOTHING = 0.1  # Szegedy et al. 2015 (arXiv:1512.00567), section 7
MOMENTUM = 0.9
WARM_UP = 0.25  # part of the steps in which the learning rate rises; it falls along a cosine for the rest

if TYPE_CHECKING:
    of_the_class = classmethod
else:
    # Lightning's, which is refused on an instance, where the classifier that it returns would be lost
    of_the_class = type(vars(LightningModule)["load_from_checkpoint"])


class Predictions(Metric):
    """Index, label, prediction and logits of every image seen, gathered from all processes by `compute`."""

    full_state_update = False
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, index: Tensor, labels: Tensor, *, logits: Tensor) -> None:
        columns = torch.stack([index, labels, logits.argmax(dim=1)], dim=1).float()  # exact below 2 ** 24
        self.rows.append(torch.cat([columns, logits.float()], dim=1))

    def compute(self) -> Tensor:
        """`(N, 3 + num_classes)` float32, sorted by index: index, label, prediction, logits."""
        rows: Tensor = dim_zero_cat(self.rows)
        return rows[rows[:, 0].argsort()]


class Classifier(LightningModule):
    """A network and the recipe that trains it, the same for every architecture.

    SGD with Nesterov momentum, one-cycle learning rate (Smith and Topin 2017, arXiv:1708.07120), label smoothing,
    weight decay on weights but not on biases and batch norm. The network is built once the data is known, so that
    a task names its dataset in one place.

    Args:
        arch: Name of a registered architecture; `python -m cnnbench list` prints them.
        lr: Peak learning rate.
        weight_decay: L2 penalty on the weights.
        compile: Train with torch.compile, which takes a while to start; evaluation runs as it always does.
        class_weights: balanced lets every class count alike in the loss, however many training images it has.
    """

    network: nn.Module
    weight_of_class: Tensor | None

    def __init__(
        self,
        arch: str,
        *,
        lr: float = 0.2,
        weight_decay: float = 5e-4,
        compile: bool = False,
        class_weights: Literal["balanced"] | None = None,
    ) -> None:
        super().__init__()
        architecture[arch]  # an unknown name fails before any data is read
        if not lr > 0 or not weight_decay >= 0:
            raise CnnbenchError(f"model.lr {lr}, model.weight_decay {weight_decay}: expected lr > 0, weight_decay >= 0")
        if class_weights not in (None, "balanced"):
            raise CnnbenchError(f"model.class_weights {class_weights!r}: expected balanced, or none")
        self.save_hyperparameters()
        self.register_buffer("weight_of_class", None, persistent=False)  # with the network to its device
        self.class_weights = class_weights
        self.arch, self.lr, self.weight_decay, self.compiled = arch, lr, weight_decay, compile
        self.trained: Callable[[Tensor], Tensor] = self.forward
        self.spec: ImageSpec | None = None
        self.data: DataRecord | None = None
        self.class_names: tuple[str, ...] = ()
        self.built_from: dict[str, str] = {}

    def build(self, spec: ImageSpec, *, data: DataRecord, class_names: tuple[str, ...]) -> None:
        """Build the network; does nothing where it is built already, as Lightning asks of `configure_model`.

        Args:
            spec: The images that it sees.
            data: What a checkpoint says of them; `ImageData.description` has it.
            class_names: In the order of the labels.

        Raises:
            CnnbenchError: The network cannot be built or cannot take the images (exit 2).
        """
        if self.spec is not None:
            return
        self.spec, self.data, self.class_names = spec, data, class_names
        self.network = build(self.arch, spec)
        self.built_from = built_from(self.arch)
        count = spec.num_classes
        # without the checks of their arguments, each of which would wait for a GPU; what comes in is ours
        self.val_accuracy = Accuracy(task="multiclass", num_classes=count, average="micro", validate_args=False)
        self.val_loss = MeanMetric(nan_strategy="disable")
        self.test_accuracy = Accuracy(task="multiclass", num_classes=count, average="micro", validate_args=False)
        self.test_loss = MeanMetric(nan_strategy="disable")
        self.predictions = Predictions()
        self.train_loss = torch.zeros(())

    def configure_model(self) -> None:
        """Build the network for the Trainer's data.

        Without a Trainer, as in `load_from_checkpoint`, `on_load_checkpoint` builds it.

        Raises:
            CnnbenchError: The Trainer was given no ImageData, or one with other images than the network was built for
                (exit 2).
        """
        trainer = self._attached_trainer()
        if trainer is None:
            return
        module = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(module, ImageData):
            raise CnnbenchError("the Trainer has no data for a Classifier: call it with datamodule=ImageData(...)")
        self.build(module.loaded.spec, data=module.description, class_names=module.loaded.class_names)
        self._check_takes(module)
        if self.class_weights is not None and trainer.state.fn == "fit":
            weights = balanced_weights(module.loaded.train.labels, classes=module.loaded.spec.num_classes)
            self.weight_of_class = torch.from_numpy(weights).float().to(self.device)
        to_channels_last(self.network)  # as the batches lie
        if self.compiled:
            # the network alone: the LightningModule around it is bookkeeping, which would be compiled again and again
            self.trained = torch.compile(self.network.forward)

    def _check_takes(self, module: ImageData) -> None:
        """Refuse images of another size or other classes; whatever their statistics, the network normalises them."""
        assert self.spec is not None
        given, names = module.loaded.spec, module.loaded.class_names
        if (given.size, names) != (self.spec.size, self.class_names):
            raise CnnbenchError(
                f"{self.arch} was built for {self.data.name if self.data else '?'} ({self.spec}), but the data is "
                f"{module.description.name} ({given}): size and classes must agree"
            )

    def _attached_trainer(self) -> Trainer | None:
        try:
            return self.trainer
        except RuntimeError:  # Lightning's, where there is none
            return None

    def forward(self, pixels: Tensor) -> Tensor:
        """Raw logits `(N, num_classes)` of pixels `(N, C, H, W)` in [0, 1].

        Raises:
            CnnbenchError: The network is not built yet, since the data is unknown (exit 2).
        """
        if self.spec is None:
            raise CnnbenchError(
                f"{self.arch} is not built yet: its data is unknown; give it to a Trainer with an ImageData, load a "
                "checkpoint, or call `build(spec, data=..., class_names=...)`"
            )
        logits: Tensor = self.network(pixels)
        return logits

    def scored(self, pixels: Tensor) -> Tensor:
        """The logits that count: those of the network as it is exported, without the rounding of mixed precision."""
        with torch.autocast(self.device.type, enabled=False):
            logits: Tensor = self(pixels)
        return logits

    def on_train_epoch_start(self) -> None:
        self.train_loss = torch.zeros((), device=self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        pixels, labels, _ = batch
        loss = self._loss(self._training_logits(pixels), labels)
        self.train_loss += loss.detach()
        if self.trainer.is_last_batch:  # self.log at every step would cost more than a small network's arithmetic
            self._log_epoch(self.train_loss / (batch_idx + 1))
        return loss

    def _training_logits(self, pixels: Tensor) -> Tensor:
        """Raises CnnbenchError: batch norm is given a single value per channel (exit 2)."""
        try:
            return self.trained(pixels)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):  # torch's words in _verify_batch_size
                raise
            raise CnnbenchError(
                f"{self.arch} has batch norm, which needs more than {len(pixels)} image per step and process here: "
                "give a larger --data.batch_size"
            ) from None

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over the images, each counted as its class weighs: as if images of rare classes were repeated.

        Not by cross_entropy's own weights: with label smoothing they would also weigh the classes that an image is not.
        """
        if self.weight_of_class is None:
            return F.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING)
        losses = F.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING, reduction="none")
        return (losses * self.weight_of_class[labels]).mean()

    def _log_epoch(self, loss: Tensor) -> None:
        self.refuse_divergence(loss.item(), "loss")
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        lr = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
        self.log("train/lr", lr, on_step=False, on_epoch=True, sync_dist=True)

    def refuse_divergence(self, loss: float, what: str) -> None:
        """Raises CnnbenchError: a loss is not finite (exit 2)."""
        if not math.isfinite(loss):
            raise CnnbenchError(
                f"{self.arch} diverged in epoch {self.current_epoch + 1}: the {what} is {loss}; "
                f"train with a smaller --model.lr than {self.lr}"
            )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        pixels, labels, index = batch
        logits = self.scored(pixels)
        self.val_accuracy.update(logits, labels)
        self.val_loss.update(F.cross_entropy(logits, labels), weight=len(labels))
        if self.trainer.state.fn == "validate":  # not the passes between epochs, whose weights are not kept
            self.predictions.update(index, labels, logits=logits)
        self.log("val/accuracy", self.val_accuracy, prog_bar=True)
        self.log("val/loss", self.val_loss)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        pixels, labels, index = batch
        logits = self.scored(pixels)
        self.test_accuracy.update(logits, labels)
        self.test_loss.update(F.cross_entropy(logits, labels), weight=len(labels))
        self.predictions.update(index, labels, logits=logits)
        self.log("test/accuracy", self.test_accuracy)
        self.log("test/loss", self.test_loss)

    def on_test_start(self) -> None:
        self.predictions.reset()

    on_validation_start = on_test_start

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.scored(batch[0])

    def configure_optimizers(self) -> Any:
        weights = [p for p in self.parameters() if p.ndim > 1]
        others = [p for p in self.parameters() if p.ndim <= 1]
        groups = [{"params": weights, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}]
        fused = not self.trainer.gradient_clip_val  # one kernel for all weights, where Lightning may not clip gradients
        optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=MOMENTUM, nesterov=True, fused=fused)
        steps = self.total_steps()
        # a warm-up of a single step has length 0, by which torch would divide
        warm_up = WARM_UP if WARM_UP * steps != 1 else 2 * WARM_UP
        # the momentum stays where it is: the recipe cycles the learning rate alone
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.lr, total_steps=steps, pct_start=warm_up, cycle_momentum=False
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def total_steps(self) -> int:
        """Optimizer steps of the whole run, under the Trainer's flags.

        Not trainer.estimated_stepping_batches: reading it in configure_optimizers makes Lightning 2.6.6 forget the
        loader's state when a run is resumed.
        """
        trainer = self.trainer
        if trainer.max_epochs is None or trainer.max_epochs < 1:
            raise CnnbenchError(f"trainer.max_epochs is {trainer.max_epochs}: expected a number of epochs, at least 1")
        steps: int = trainer.datamodule.steps_per_epoch  # type: ignore[attr-defined]
        total = trainer.max_epochs * -(-batches_per_epoch(trainer, steps) // trainer.accumulate_grad_batches)
        return min(total, trainer.max_steps) if trainer.max_steps > 0 else total

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilding the network needs: plain values, which loading never executes."""
        assert self.spec is not None
        checkpoint["cnnbench"] = {
            "schema": CHECKPOINT_SCHEMA,
            "arch": self.arch,
            "spec": {**asdict(self.spec), "mean": list(self.spec.mean), "std": list(self.spec.std)},
            "class_names": list(self.class_names),
            "data": msgspec.to_builtins(self.data),
        }
        if self.built_from:
            checkpoint["cnnbench"]["built_from"] = self.built_from
        if self.weight_of_class is not None:
            checkpoint["cnnbench"]["weight_of_class"] = self.weight_of_class.tolist()
        unsaved = self.unsaved_buffers()
        if unsaved:
            checkpoint["cnnbench"]["buffers"] = unsaved

    def unsaved_buffers(self) -> dict[str, Tensor]:
        """Buffers that `state_dict` leaves out, as their modules ask for; a rebuilt network may draw other values."""
        saved = self.state_dict().keys()
        return {name: buffer for name, buffer in self.network.named_buffers(prefix="network") if name not in saved}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the network if nothing has, and refuse weights made for another one.

        Raises:
            CnnbenchError: The checkpoint is of another architecture or data than the config names (exit 2); it is not
                one of ours, or the source of its network has changed (exit 3).
        """
        saved = our_part(checkpoint)
        if saved["arch"] != self.arch:
            raise CnnbenchError(
                f"the checkpoint holds {saved['arch']}, the config names {self.arch}: use the same --model.arch"
            )
        if "built_from" in saved:  # not in those of networks of ours, nor in older ones
            check_unchanged(self.arch, saved["built_from"])
        spec = ImageSpec(**saved["spec"])
        if self.spec is None:
            check_room(checkpoint["state_dict"], arch=self.arch, spec=spec)
        self.build(spec, data=msgspec.convert(saved["data"], DataRecord), class_names=tuple(saved["class_names"]))
        assert self.spec is not None
        if (spec, tuple(saved["class_names"])) != (self.spec, self.class_names):
            raise CnnbenchError(
                f"the checkpoint was trained on {saved['data']['name']} ({spec}), "
                f"but the data is {self.data.name if self.data else '?'} ({self.spec}): "
                "classes, size and normalisation must agree"
            )
        if "weight_of_class" in saved and self.weight_of_class is None:
            self.weight_of_class = torch.tensor(saved["weight_of_class"], dtype=torch.float32)
        unsaved = self.unsaved_buffers()
        for name, values in saved.get("buffers", {}).items():
            if name not in unsaved or unsaved[name].shape != getattr(values, "shape", None):
                raise CnnbenchError(f"the checkpoint holds a buffer {name} that {self.arch} has not", Exit.DATA)
            unsaved[name].copy_(values)
        trainer = self._attached_trainer()
        if trainer is not None and trainer.state.fn == "fit":
            self._check_resumable(checkpoint)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's; every way to a checkpoint's weights ends here.

        Raises:
            CnnbenchError: They are not those of the network (exit 3).
        """
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            reason = str(error).strip().split("\n")[-1].strip()  # the first line names the class alone
            raise CnnbenchError(
                f"the checkpoint does not hold the weights of {self.arch}: {reason}", Exit.DATA
            ) from None

    @of_the_class
    def load_from_checkpoint(
        cls,  # noqa: N805 - the decorator makes it a class method
        checkpoint_path: Any,
        *arguments: Any,
        **options: Any,
    ) -> Classifier:
        """As Lightning's, of a checkpoint that `fit` or a Trainer wrote.

        Raises:
            CnnbenchError: It is missing, damaged or not one of ours, or its weights are of another network (exit 3).
        """
        if isinstance(checkpoint_path, str | Path) and "://" not in str(checkpoint_path):  # no open file, no address
            open_checkpoint(Path(checkpoint_path))
        loaded: Classifier = super().load_from_checkpoint(checkpoint_path, *arguments, **options)
        return loaded

    def _check_resumable(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint restores optimizer and schedule with their settings: refuse a config with other ones."""
        before, schedule = checkpoint["hyper_parameters"], checkpoint["lr_schedulers"][0]
        stated = {
            "model.lr": (before["lr"], self.lr),
            "model.weight_decay": (before["weight_decay"], self.weight_decay),
            "model.class_weights": (before.get("class_weights"), self.class_weights),
            "number of steps (trainer.max_epochs, data.batch_size)": (schedule["total_steps"], self.total_steps()),
        }
        for name, (was, now) in stated.items():
            if was != now:
                raise CnnbenchError(
                    f"the interrupted run had {name} {was}, the config says {now}: a one-cycle schedule cannot be "
                    "changed during a run; resume with the same settings, or train afresh"
                )
        if checkpoint["global_step"] >= self.total_steps():
            raise CnnbenchError("the run is finished; nothing to resume")
