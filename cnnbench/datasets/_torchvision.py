"""torchvision's readers, with one clear line for each way in which they fail."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from cnnbench.datasets import Source
from cnnbench.types import CnnbenchError, DatasetNotFoundError, Exit, Split


def read(
    reader: str, source: Source, *, name: str, place: str, files: str = ""
) -> tuple[Split, Split, tuple[str, ...]]:
    """Train split, test split and class names of `torchvision.datasets.<reader>`, images `(N, H, W, C)`.

    Args:
        reader: Class name in torchvision.datasets.
        source: Where to look, and whether to download.
        name: Our name of the dataset, for the message.
        place: The folder under the root that torchvision keeps the files in.
        files: The files it expects there, for the message.

    Raises:
        CnnbenchError: The files are missing, cannot be fetched, or are damaged (exit 3).
    """
    folder = source.root / place
    fetch = (
        f"`python -m cnnbench fit --model.arch lenet5 --data.dataset {name} --data.root {source.root} "
        "--data.download true`"
    )
    if not folder.is_dir() and not source.download:
        raise DatasetNotFoundError(
            f"{name} not found: no folder {folder} (expected there: {files}); fetch it with {fetch}, "
            "or point --data.root (export and verify: --root) or CNNBENCH_DATA at the folder that holds it"
        )
    import torchvision  # takes seconds, so not before a reader is called

    make = getattr(torchvision.datasets, reader)
    try:
        with warnings.catch_warnings():
            # torchvision 0.29 hands numpy an `align=0` in its CIFAR unpickling, which numpy 2.4 deprecates
            warnings.simplefilter("ignore")
            parts = [make(str(source.root), train=train, download=source.download) for train in (True, False)]
    except (RuntimeError, OSError, ValueError, TypeError, KeyError, AssertionError, EOFError) as error:
        reason = " ".join(str(error).split()) or "truncated file"
        failed, remedy = ("fetched into", "check the network, or ") if source.download else ("read from", "")
        if not source.download and isinstance(error, RuntimeError):  # torchvision's, whose text advises to download
            reason = "a file is missing or damaged"
        raise CnnbenchError(
            f"{name} cannot be {failed} {folder} ({reason}; "
            f"expected there: {files}); {remedy}remove what is damaged and fetch it again with {fetch}",
            Exit.DATA,
        ) from None
    return _split(parts[0]), _split(parts[1]), tuple(parts[0].classes)


def _split(part: Any) -> Split:
    images = np.asarray(part.data)
    if images.ndim == 3:
        images = images[..., None]  # N, H, W -> N, H, W, 1
    return Split(images, np.asarray(part.targets, dtype=np.int64))
