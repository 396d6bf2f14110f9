"""What `fit` says of the images before it trains: how many of each split and class, and what was left out."""

from __future__ import annotations

import numpy as np

from cnnbench.types import Dataset, Split, one_line

FEW_CLASSES = 6
"""Of so many, each is counted; of more, the smallest and the largest."""


def summary(data: Dataset) -> list[str]:
    """What is known of the files, a line each, and a line that counts the images."""
    splits = {"train": data.train, "val": data.val, "test": data.test}
    counts = "; ".join(f"{name} {_counts(split, data.class_names)}" for name, split in splits.items())
    return [*data.notes, one_line(f"images: {counts}")]


def _counts(split: Split, class_names: tuple[str, ...]) -> str:
    counts = np.bincount(split.labels, minlength=len(class_names))
    if len(class_names) <= FEW_CLASSES:
        each = ", ".join(f"{name} {count:,}" for name, count in zip(class_names, counts, strict=True))
    else:
        least, most = int(counts.argmin()), int(counts.argmax())
        fewest = f"{counts[least]:,} ({class_names[least]})"
        each = f"{len(class_names)} classes of {fewest} to {counts[most]:,} ({class_names[most]})"
        if counts[least] == counts[most]:
            each = f"{len(class_names)} classes of {counts[most]:,}"
    return f"{len(split):,} ({each})"
