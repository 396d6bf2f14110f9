"""What `fit` says on stderr: of the images before it trains, and of a loss that is bad afterwards."""

from __future__ import annotations

import math
import sys

from lightning.pytorch.utilities import rank_zero_only

from cnnbench.audit import leaks
from cnnbench.datasets.summary import summary
from cnnbench.records.schema import RunRecord
from cnnbench.training.data import ImageData

LARGEST_LOSS = 1e3
"""At the end of training. That of equal probabilities is ln(classes), 6.9 for a thousand classes."""


@rank_zero_only
def announce(data: ImageData) -> None:
    """How many images there are, what is done to them, and whether any are both trained on and scored.

    The same files give other results under other choices.
    """
    print(*summary(data.loaded), sep="\n", file=sys.stderr)
    files = data.loaded.preprocessing if data.config.folder else None
    chosen = f"; transparency on level {files.background}, 16 bits >> {files.shift}" if files else ""
    print(f"augmentation: {data.loaded.augment}{chosen}", file=sys.stderr)
    if data.config.folder and (told := leaks.warning(leaks.leaks_of(data.loaded), data.loaded)):
        print(f"warning: {told}", file=sys.stderr)


def warn_of_loss(record: RunRecord) -> None:
    """Say that training has diverged where its losses are finite, yet far from any that is of use."""
    last = record.fit.curve[-1]
    loss = max(last.val_loss, last.train_loss or 0.0)
    if loss > LARGEST_LOSS:
        classes = record.spec.num_classes
        print(
            f"warning: the loss ended at {loss:.3g}; that of equal probabilities is ln({classes}) = "
            f"{math.log(classes):.3g}: training has diverged, train with a smaller --model.lr",
            file=sys.stderr,
        )
