"""Whether the checkpoints of a run will fit on its disk: known before the first step."""

from __future__ import annotations

import shutil
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from cnnbench.training.folder import RunFolder
from cnnbench.types import CnnbenchError

OTHER_BYTES = 2**20
"""For metrics, TensorBoard's events, predictions and the record."""


class RequireRoom(Callback):
    """Refuses to train where the disk has no room for best.ckpt, last.ckpt and the next one while it is written."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises CnnbenchError: there is too little room (exit 2)."""
        present = sum(path.stat().st_size for path in (self.run.best, self.run.last) if path.exists())
        needed = max(3 * checkpoint_bytes(pl_module) - present, 0) + OTHER_BYTES
        folder = _existing(self.run.path)
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise CnnbenchError(
                f"the checkpoints of this run need {needed / 1e6:,.1f} MB in {self.run.path}, where {free / 1e6:,.1f} "
                "MB are free: make room (`cnnbench clean` shows what can go), or choose another --runs-dir"
            )


def checkpoint_bytes(network: nn.Module) -> int:
    """Bytes of parameters and buffers, and of the momentum that SGD keeps for each parameter."""
    stored = [*network.state_dict().values()]
    momentum = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return sum(tensor.numel() * tensor.element_size() for tensor in (*stored, *momentum))


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
