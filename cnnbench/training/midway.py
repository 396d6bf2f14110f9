"""What a checkpoint needs besides weights and counters for a resumed run to compute the same bits."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cnnbench.training.classifier import Classifier
from cnnbench.types import CnnbenchError, Exit

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
        """Raises CnnbenchError: what it holds has not the form of a generator's state (exit 3)."""
        self.loaded = checkpoint.get(KEY, {})
        if self.loaded and not _is_whole(self.loaded):
            raise CnnbenchError("the checkpoint's random numbers cannot be those of this version of torch", Exit.DATA)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if len(self.loaded.get("random", ())) != trainer.world_size:  # none was loaded, or one of other processes
            return
        # copies: torch 2.14 ends the process by SIGSEGV for a state that lies within a larger tensor
        own = {name: values[trainer.global_rank].clone() for name, values in self.loaded.items()}
        torch.set_rng_state(own["random"].cpu())
        if "random_cuda" in own and trainer.strategy.root_device.type == "cuda":
            torch.cuda.set_rng_state(own["random_cuda"].cpu(), trainer.strategy.root_device)
        assert isinstance(pl_module, Classifier)
        pl_module.train_loss = own["train_loss"].to(trainer.strategy.root_device)


def _is_whole(loaded: Any) -> bool:
    """Whether the values of all processes are there, with the shapes that torch takes."""
    if not (isinstance(loaded, dict) and all(isinstance(values, Tensor) for values in loaded.values())):
        return False
    random, loss = loaded.get("random"), loaded.get("train_loss")
    if random is None or loss is None:
        return False
    state = torch.get_rng_state()
    return bool(random.dtype == state.dtype and random.shape[1:] == state.shape and loss.shape == random.shape[:1])


def _of_all(trainer: Trainer, values: Tensor) -> Tensor:
    """The values `(...)` of all processes, `(processes, ...)`."""
    if trainer.world_size == 1:
        return values.cpu()[None]
    values = values.to(trainer.strategy.root_device).contiguous()
    gathered = [torch.empty_like(values) for _ in range(trainer.world_size)]
    torch.distributed.all_gather(gathered, values)
    return torch.stack(gathered).cpu()
