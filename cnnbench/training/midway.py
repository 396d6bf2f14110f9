"""What a checkpoint needs besides weights and counters for a resumed run to compute the same bits."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cnnbench.training.classifier import Classifier

KEY = "midway"
"""In a checkpoint."""


class Midway(Callback):
    """Keeps each process's random numbers, which dropout draws from, and its sum of the epoch's losses so far."""

    def __init__(self) -> None:
        self.loaded: dict[str, Tensor] = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        assert isinstance(pl_module, Classifier)
        state = {"random": torch.get_rng_state(), "train_loss": pl_module.train_loss.detach()}
        if trainer.strategy.root_device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(trainer.strategy.root_device)
        checkpoint[KEY] = {name: _of_all(trainer, values) for name, values in state.items()}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.loaded = checkpoint.get(KEY, {})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if len(self.loaded.get("random", ())) != trainer.world_size:  # none was loaded, or one of other processes
            return
        own = {name: values[trainer.global_rank] for name, values in self.loaded.items()}
        torch.set_rng_state(own["random"].cpu())
        if "random_cuda" in own and trainer.strategy.root_device.type == "cuda":
            torch.cuda.set_rng_state(own["random_cuda"].cpu(), trainer.strategy.root_device)
        assert isinstance(pl_module, Classifier)
        pl_module.train_loss = own["train_loss"].to(trainer.strategy.root_device)


def _of_all(trainer: Trainer, values: Tensor) -> Tensor:
    """The values `(...)` of all processes, `(processes, ...)`."""
    gathered: Tensor = trainer.strategy.all_gather(values.to(trainer.strategy.root_device))
    return gathered.cpu().reshape(trainer.world_size, *values.shape)
