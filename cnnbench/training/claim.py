"""The run folder while `fit` works in it: locked, claimed before training, given back when training fails."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

from lightning.pytorch.utilities import rank_zero_only

from cnnbench.training.folder import RunFolder, locked
from cnnbench.types import CnnbenchError


def exclusive(run: RunFolder) -> AbstractContextManager[None]:
    """The lock of a run's folder, which the first of several processes holds for all; see `folder.locked`."""
    return locked(run) if is_first_process() else nullcontext()


def is_first_process() -> bool:
    """Whether this is the one of several processes that writes."""
    rank: int = getattr(rank_zero_only, "rank", 0)
    return rank == 0


@rank_zero_only
def remove_replaced(run: RunFolder) -> None:
    """Remove the run that `--overwrite` set aside: the new one has its result."""
    shutil.rmtree(run.replaced, ignore_errors=True)


def _is_occupied(run: RunFolder) -> bool:
    return any(path.exists() for path in (run.last, run.best, run.result))


class FolderClaim:
    """A context in which a run folder belongs to this `fit`. Only the first of several processes acts.

    Args:
        run: The folder.
        overwrite: Whether an earlier run in the folder may be replaced; it is kept until the new one has a result.
        resuming: Whether the run in the folder is continued.
        discards: Whether the folder holds only the beginning of a run that was killed, which is removed.
    """

    def __init__(self, run: RunFolder, *, overwrite: bool, resuming: bool, discards: bool = False) -> None:
        self.run, self.overwrite, self.resuming, self.discards = run, overwrite, resuming, discards
        self.created = False
        """Whether this process created the folder, and may remove it again."""

    def __enter__(self) -> FolderClaim:
        """Raises CnnbenchError: the folder holds another run, or cannot be written (exit 2)."""
        try:
            self._claim()
        except BaseException:
            self._give_back()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._give_back()

    @rank_zero_only
    def _claim(self) -> None:
        """Create the run folder; fail early if it is occupied."""
        path = self.run.path
        if self.discards:
            shutil.rmtree(path, ignore_errors=True)
        if not self.resuming:
            self._set_aside()
        self.created = not path.exists()
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise CnnbenchError(f"cannot write to {path}: {error.strerror}; choose another --runs-dir") from None
        for partial in path.glob(".*-*"):  # of a process that was killed while it wrote a file
            partial.unlink()

    def _set_aside(self) -> None:
        """Rename an earlier run, to keep it until the new one has a result; refuse it without `--overwrite`."""
        run = self.run
        if _is_occupied(run):
            if not self.overwrite:
                raise CnnbenchError(
                    f"{run.path} already holds a run: give --overwrite to replace it, --ckpt_path last to resume it, "
                    "or another --seed_everything, --task or --runs-dir"
                )
            shutil.rmtree(run.replaced, ignore_errors=True)  # what replaced it is complete
            run.path.rename(run.replaced)
        elif run.replaced.exists() and not self.overwrite:
            raise CnnbenchError(
                f"{run.replaced} holds the earlier run, which an --overwrite did not finish replacing: give "
                f"--overwrite to replace it, or rename it to {run.path.name} to keep it"
            )

    @rank_zero_only
    def _give_back(self) -> None:
        """After a failed `fit`: remove what is of no use, and put an earlier run back in its place."""
        if self.created and not self.run.last.exists():  # with last.ckpt there, the new run can be resumed
            shutil.rmtree(self.run.path, ignore_errors=True)
            if self.run.replaced.exists():
                self.run.replaced.rename(self.run.path)
