"""torchvision's readers, with one clear line for each way in which they fail."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from cnnbench.datasets import Source
from cnnbench.types import CnnbenchError, Exit, Split


def read(reader: str, source: Source, name: str, files: str) -> tuple[Split, Split, tuple[str, ...]]:
    """Train split, test split and class names of `torchvision.datasets.<reader>`, images `(N, H, W, C)`.

    Args:
        reader: Class name in torchvision.datasets.
        source: Where to look, and whether to download.
        name: Our name of the dataset, for the message.
        files: What torchvision expects under the root, for the message.

    Raises:
        CnnbenchError: The files are missing, cannot be fetched, or are damaged (exit 3).
    """
    import torchvision  # takes seconds, so not before a reader is called

    make = getattr(torchvision.datasets, reader)
    try:
        with warnings.catch_warnings():
            # torchvision 0.29 hands numpy an `align=0` in its CIFAR unpickling, which numpy 2.4 deprecates
            warnings.simplefilter("ignore")
            parts = [make(str(source.root), train=train, download=source.download) for train in (True, False)]
    except RuntimeError as error:
        if "not found" not in str(error).lower():
            raise CnnbenchError(f"{name} in {source.root} cannot be read: {error}", Exit.DATA) from None
        raise CnnbenchError(
            f"{name} not found, or altered, in {source.root} (expected {files}); fetch it with "
            f"`python -m cnnbench fit --data.dataset {name} --model.arch lenet5 --data.download true`, "
            "or point --data.root or CNNBENCH_DATA at it",
            Exit.DATA,
        ) from None
    except (OSError, ValueError, AssertionError, EOFError) as error:  # URLError is an OSError
        raise CnnbenchError(
            f"{name} in {source.root} cannot be {'fetched' if source.download else 'read'} "
            f"({str(error) or 'truncated file'}; expected {files}); remove the files and fetch them again",
            Exit.DATA,
        ) from None
    return _split(parts[0]), _split(parts[1]), tuple(parts[0].classes)


def _split(part: Any) -> Split:
    images = np.asarray(part.data)
    if images.ndim == 3:
        images = images[..., None]  # N, H, W -> N, H, W, 1
    return Split(images, np.asarray(part.targets, dtype=np.int64))
