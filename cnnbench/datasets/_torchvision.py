"""torchvision's readers, with one clear line for each way in which they fail."""

from __future__ import annotations

import warnings
from typing import Any
from urllib.error import URLError

import numpy as np

from cnnbench.datasets import Source
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
        CnnbenchError: The files are missing, or are damaged (exit 3), or there is no network to fetch them by (exit 6).
    """
    folder = source.root / place
    fetch = f"`cnnbench download {name} --root {source.root}`"
    if not folder.exists() and not source.download:
        raise DatasetNotFoundError(
            f"{name} not found: no {folder} (expected there: {files}); fetch it with {fetch}, "
            "or point --data.root (export and verify: --root) or CNNBENCH_DATA at the folder that holds it"
        )
    import torchvision  # takes seconds, so not before a reader is called

    make = getattr(torchvision.datasets, reader)
    try:
        with warnings.catch_warnings():
            # torchvision 0.29 hands numpy an `align=0` in its CIFAR unpickling, which numpy 2.4 deprecates
            warnings.simplefilter("ignore")
            read = [make(str(source.root), download=source.download, **options) for options in parts]
    except (RuntimeError, OSError, ValueError, TypeError, KeyError, AssertionError, EOFError) as error:
        reason = " ".join(str(error).split()) or "truncated file"
        failed, remedy = ("fetched into", "check the network, or ") if source.download else ("read from", "")
        if not source.download and isinstance(error, RuntimeError):  # torchvision's, whose text advises to download
            reason = "a file is missing or damaged"
        offline = source.download and (isinstance(error, URLError) or "<urlopen error" in reason)
        raise CnnbenchError(
            f"{name} cannot be {failed} {folder} ({reason}; "
            f"expected there: {files}); {remedy}remove what is damaged and fetch it again with {fetch}",
            Exit.ENVIRONMENT if offline else Exit.DATA,
        ) from None
    return _split(read[0]), _split(read[1]), tuple(getattr(read[0], "classes", ()))


def _split(part: Any) -> Split:
    images = np.asarray(part.data)
    if images.ndim == 3:
        images = images[..., None]  # N, H, W -> N, H, W, 1
    elif images.shape[1] == 3:
        images = images.transpose(0, 2, 3, 1)  # N, C, H, W -> N, H, W, C
    labels = part.targets if hasattr(part, "targets") else part.labels
    return Split(np.ascontiguousarray(images), np.asarray(labels, dtype=np.int64))
