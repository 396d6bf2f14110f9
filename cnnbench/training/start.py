"""How `fit` begins: from the first step, from a checkpoint, or with nothing to do but to write the result.

The first process decides before it launches others, and passes the decision to them in an environment variable. Where
something else launches the processes, such as torchrun, each decides by itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cnnbench.records.schema import RunConfig
from cnnbench.training.claim import is_first_process
from cnnbench.training.data import ImageData
from cnnbench.training.folder import RunFolder
from cnnbench.training.identity import first_difference, identity
from cnnbench.training.recorder import fit_state
from cnnbench.training.stored import StoredCheckpoint, newest, open_checkpoint
from cnnbench.types import CnnbenchError, Dataset

VARIABLE = "CNNBENCH_FIT_START"


class Start(msgspec.Struct, frozen=True):
    """How a `fit` begins."""

    checkpoint: str | None = None
    """To resume from; None trains from the first step."""
    finishes: bool = False
    """Whether training has ended, and only the result is missing."""
    discards: bool = False
    """Whether the folder holds only the beginning of a run that was killed, which may be removed."""


def decide(folder: RunFolder, config: RunConfig, *, data: ImageData, checkpoint: Path | None, overwrite: bool) -> Start:
    """How `fit` begins in a folder.

    Args:
        folder: The folder of the run, locked.
        config: The configuration.
        data: The images; they are loaded only where a checkpoint must be of this configuration.
        checkpoint: The one to resume from, where the user named one.
        overwrite: Whether another run in the folder may be replaced.

    Raises:
        CnnbenchError: The checkpoint is of another configuration or of other images, or its run is finished (exit 2);
            it cannot be read (exit 3).
    """
    passed = os.environ.get(VARIABLE)
    if passed and not is_first_process():
        return msgspec.json.decode(passed, type=Start)
    if checkpoint:
        return _resume(folder, config, data=data, checkpoint=checkpoint)
    if folder.result.is_file() and is_first_process():  # the others may look after the first has written it
        return Start()
    if overwrite and folder.replaced.exists():
        return _finish_replacement(folder, config, data)
    return Start() if overwrite else _finish(folder, config, data)


def _resume(folder: RunFolder, config: RunConfig, *, data: ImageData, checkpoint: Path) -> Start:
    stored = open_checkpoint(checkpoint)
    _check_same_run(stored, config, data)
    if not stored.has_finished:
        return Start(str(checkpoint))
    has_result = folder.result.is_file() and is_first_process()
    if has_result or not folder.best.is_file() or checkpoint.resolve() != newest(folder).resolve():
        raise CnnbenchError("the run is finished; nothing to resume")
    return Start(finishes=True)


def _finish(folder: RunFolder, config: RunConfig, data: ImageData) -> Start:
    """Where the folder holds this very run without its result: finish it, or train it again from the first step."""
    if not folder.last.is_file():
        again = folder.best.is_file() and not folder.replaced.exists() and _is_of_run(folder.best, config, data)
        return Start(discards=again)  # killed in its first epoch
    last = newest(folder)
    finished = folder.best.is_file() and open_checkpoint(last).has_finished
    return Start(finishes=finished and _is_of_run(last, config, data))


def _finish_replacement(folder: RunFolder, config: RunConfig, data: ImageData) -> Start:
    """Go on with a run that `--overwrite` began and that has no result yet; another one is replaced."""
    try:
        if not folder.last.is_file() or not _is_of_run(folder.last, config, data):
            return Start(discards=True)
        if not open_checkpoint(folder.last).has_finished:
            return Start(str(folder.last))
    except CnnbenchError:  # damaged, or of an older version
        return Start(discards=True)
    return Start(finishes=True) if folder.best.is_file() else Start(discards=True)


def _is_of_run(checkpoint: Path, config: RunConfig, data: ImageData) -> bool:
    return fit_state(open_checkpoint(checkpoint)).identity == identity(config, _images(data))


def _check_same_run(stored: StoredCheckpoint, config: RunConfig, data: ImageData) -> None:
    """Refuse to resume where the configuration, or the images, are not those of the checkpoint."""
    difference = first_difference(fit_state(stored).config, config)
    if difference:
        name, before, now = difference
        raise CnnbenchError(
            f"the interrupted run had {name} {before}, the config says {now}: "
            "resume it with the same configuration, or train afresh"
        )
    before, now = stored.content["cnnbench"]["data"]["sha256"], _images(data).sha256
    if before != now:
        raise CnnbenchError(
            f"the interrupted run was trained on images that hash to {before[:12]}, these hash to {now[:12]}: "
            "resume it with the same images, or train afresh"
        )


def _images(data: ImageData) -> Dataset:
    data.prepare_data()
    return data.loaded


@contextmanager
def passed_on(start: Start) -> Iterator[None]:
    """Pass the decision to the processes that are launched meanwhile."""
    if not is_first_process():
        yield
        return
    os.environ[VARIABLE] = msgspec.json.encode(start).decode()
    try:
        yield
    finally:
        del os.environ[VARIABLE]
