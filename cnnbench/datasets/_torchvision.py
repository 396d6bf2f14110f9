"""torchvision's readers, with one clear line for each way in which they fail."""

from __future__ import annotations

import errno
import os
import warnings
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np

from cnnbench import records
from cnnbench.datasets import Source
from cnnbench.datasets._fetch import fetch, shown
from cnnbench.datasets.archives import DAMAGE
from cnnbench.types import CnnbenchError, DatasetNotFoundError, Exit, Split

TRAIN_AND_TEST = ({"train": True}, {"train": False})
"""How most readers are asked for one split and the other."""


def read(
    reader: str,
    source: Source,
    *,
    name: str,
    place: str,
    files: str = "",
    parts: tuple[dict[str, Any], dict[str, Any]] = TRAIN_AND_TEST,
) -> tuple[Split, Split, tuple[str, ...]]:
    """Train split, test split and class names of `torchvision.datasets.<reader>`, images `(N, H, W, C)`.

    Args:
        reader: Class name in torchvision.datasets.
        source: Where to look, and whether to download.
        name: Our name of the dataset, for the message.
        place: The folder under the root that torchvision keeps the files in, or a file where it has none.
        files: The files it expects there, for the message.
        parts: Arguments by which the reader is asked for the training and the test split.

    Raises:
        CnnbenchError: The files are missing, or are damaged (exit 3); there is no network to fetch them by (exit 6); or
            they cannot be written (exit 2).
    """
    folder = source.root / place
    fetch_by = f"`cnnbench download {name} --root {source.root}`"
    if not folder.exists() and not source.download:
        raise DatasetNotFoundError(
            f"{name} not found: no {folder} (expected there: {files}); fetch it with {fetch_by}, "
            "or point --data.root (export and verify: --root) or CNNBENCH_DATA at the folder that holds it"
        )
    import torchvision  # takes seconds, so not before a reader is called

    def make(root: Path, download: bool) -> list[Any]:
        with warnings.catch_warnings(), shown():
            # torchvision 0.29 hands numpy an `align=0` in its CIFAR unpickling, which numpy 2.4 deprecates
            warnings.simplefilter("ignore")
            return [getattr(torchvision.datasets, reader)(str(root), download=download, **part) for part in parts]

    try:
        read = fetch(make, source.root, name=name) if source.download else make(source.root, False)
    except (RuntimeError, TypeError, AssertionError, HTTPException, *DAMAGE) as error:
        reason = " ".join(str(error).split()) or "truncated file"
        failed, remedy, code = "read from", "", Exit.DATA
        if source.download:
            _refuse_unwritable(error, folder)
            failed, remedy, code = "fetched into", "check the network, or ", _code_of(error)
        elif isinstance(error, RuntimeError):  # torchvision's, whose text advises to download
            reason = "a file is missing or damaged"
        raise CnnbenchError(
            f"{name} cannot be {failed} {folder} ({reason}; "
            f"expected there: {files}); {remedy}remove what is damaged and fetch it again with {fetch_by}",
            code,
        ) from None
    return _split(read[0]), _split(read[1]), tuple(getattr(read[0], "classes", ()))


def _refuse_unwritable(error: Exception, folder: Path) -> None:
    """Raises CnnbenchError: what was fetched cannot be written (exit 2)."""
    denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) if isinstance(error, OSError) else False
    if denied or records.no_room(error):
        reason = os.strerror(getattr(error, "errno", None) or errno.ENOSPC)
        raise CnnbenchError(f"cannot write {folder}: {reason}; choose another --root") from None


def _code_of(error: Exception) -> Exit:
    """Whether the network was at fault, or what came by it."""
    offline = isinstance(error, URLError | TimeoutError | ConnectionError | HTTPException)
    told = any(sign in str(error) for sign in ("<urlopen error", "HTTP Error", "timed out"))  # by torchvision's text
    return Exit.ENVIRONMENT if offline or told else Exit.DATA


def _split(part: Any) -> Split:
    images = np.asarray(part.data)
    if images.ndim == 3:
        images = images[..., None]  # N, H, W -> N, H, W, 1
    elif images.shape[1] == 3:
        images = images.transpose(0, 2, 3, 1)  # N, C, H, W -> N, H, W, C
    labels = part.targets if hasattr(part, "targets") else part.labels
    return Split(np.ascontiguousarray(images), np.asarray(labels, dtype=np.int64))
