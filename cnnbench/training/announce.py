"""What `fit` says of the images on stderr before it trains."""

from __future__ import annotations

import sys

from lightning.pytorch.utilities import rank_zero_only

from cnnbench.audit import leaks
from cnnbench.datasets.summary import summary
from cnnbench.training.data import ImageData


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
