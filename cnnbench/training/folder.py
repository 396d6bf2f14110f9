"""The folder of a run, runs/<task>/seed<k>/: what `fit` and `test` write there, and how it is found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cnnbench import records
from cnnbench.records.schema import RunRecord
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
