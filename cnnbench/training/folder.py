"""The folder of a run, runs/<task>/seed<k>/: what `fit` and `test` write there, and how it is found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from cnnbench import records
from cnnbench.records.schema import RunRecord
from cnnbench.types import CnnbenchError, Exit

LOCK_SECONDS = 1.0
"""How long to try for a lock. A sweep that looks whether a folder is locked holds it for an instant."""


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
    def lock(self) -> Path:
        """Beside the folder, which may be renamed or removed while the lock is held."""
        return self._beside(".lock")

    @property
    def log(self) -> Path:
        """Output of the run's processes in a sweep, beside the folder."""
        return self._beside(".log")

    @property
    def replaced(self) -> Path:
        """Where an earlier run waits while `fit --overwrite` trains its replacement."""
        return self._beside(".replaced")

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
        """Of the test images."""
        return self.path / "predictions.parquet"

    @property
    def val_predictions(self) -> Path:
        """Of the validation images: what choices are made on."""
        return self.path / "val_predictions.parquet"

    @property
    def robustness(self) -> Path:
        return self.path / "robustness.json"

    @property
    def failure(self) -> Path:
        """Why the last attempt of a sweep gave no result."""
        return self.path / "failure.json"

    def _beside(self, suffix: str) -> Path:
        path = self.path.resolve()
        return path.with_name(path.name + suffix)


@contextmanager
def locked(run: RunFolder) -> Iterator[None]:
    """Hold a run's folder alone: for `fit` and `test`, which write to it.

    Raises:
        CnnbenchError: Another process holds it, or the place cannot be written (exit 2).
    """
    lock = FileLock(run.lock)
    try:
        run.lock.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise CnnbenchError(
            f"{run.path} is in use: another process is training or testing this run; wait until it has ended, "
            "or give another --seed_everything, --task or --runs-dir"
        ) from None
    except OSError as error:
        raise CnnbenchError(f"cannot write to {run.path}: {error.strerror}; choose another --runs-dir") from None
    try:
        yield
    finally:
        lock.release()  # the file stays: whoever waits for it has it open, and a new one would be another lock


def is_locked(run: RunFolder) -> bool:
    """Whether another process works in a run's folder."""
    if not run.lock.exists():
        return False
    lock = FileLock(run.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def is_set_aside(path: Path) -> bool:
    """Whether a part of a relative path says that a folder is being written, or was replaced by `--overwrite`."""
    return any(part.startswith(".") or part.endswith(".replaced") for part in path.parts)


def runs_of(task_folder: Path) -> list[RunFolder]:
    """The runs of a task that have a result, sorted by name; without those that `fit --overwrite` has set aside."""
    results = sorted(task_folder.glob("seed*/result.json"))
    return [RunFolder(path.parent) for path in results if not is_set_aside(path.relative_to(task_folder))]


def runs_below(folder: Path) -> list[RunFolder]:
    """The runs that have a result at any depth below a folder, sorted by path; without those that were set aside."""
    results = sorted(folder.rglob("seed*/result.json"))
    return [RunFolder(path.parent) for path in results if not is_set_aside(path.relative_to(folder))]


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
    runs = [run for run in runs_of(path) if run.best.is_file()]
    if not runs:
        raise CnnbenchError(
            f"no checkpoint at {path}: expected a .ckpt file, or a folder that `fit` wrote, "
            "such as runs/mnist5k_lenet5/seed1",
            Exit.DATA,
        )
    return max(runs, key=lambda run: records.read(run.result, RunRecord).fit.val_accuracy).best
