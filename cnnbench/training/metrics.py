"""metrics.csv: what was logged, a row per epoch, the same whether or not the run was interrupted."""

from __future__ import annotations

import csv
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from cnnbench import records
from cnnbench.training.folder import RunFolder


class MetricsTable(Callback):
    """Writes metrics.csv anew after every epoch. The rows travel in the checkpoints: a resumed run continues them.

    `epoch` counts from 1 and `steps` are those of the optimizer so far, as in result.json; of several validations in an
    epoch the last counts, and an epoch without one has none.

    Args:
        run: The folder to write to.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.rows: list[dict[str, float]] = []
        self.validated: dict[str, float] = {}
        """What the last validation of this epoch has logged."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.validated = {name: value for name, value in _logged(trainer).items() if name.startswith("val/")}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trained = {name: value for name, value in _logged(trainer).items() if not name.startswith("val/")}
        row = {"epoch": trainer.current_epoch + 1, "steps": trainer.global_step, **trained, **self.validated}
        self.rows = [earlier for earlier in self.rows if earlier["epoch"] < row["epoch"]] + [row]
        if trainer.is_global_zero:
            self._write()

    def _write(self) -> None:
        columns = dict.fromkeys(name for row in self.rows for name in row)
        with records.replacing(self.run.metrics) as partial, partial.open("w", newline="") as file:
            table = csv.DictWriter(file, list(columns), lineterminator="\n")
            table.writeheader()
            table.writerows(self.rows)

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows, "validated": self.validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the rows of a checkpoint."""
        self.rows, self.validated = [*state_dict["rows"]], {**state_dict["validated"]}


def _logged(trainer: Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items()}
