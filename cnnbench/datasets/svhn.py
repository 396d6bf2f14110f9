"""SVHN, 73,257 + 26,032 colour images of 32 x 32, as torchvision keeps it: two files right in the root.

Netzer et al.: Reading Digits in Natural Images with Unsupervised Feature Learning, 2011.
"""

from __future__ import annotations

from cnnbench.datasets import Decoded, Source, _torchvision, dataset
from cnnbench.datasets.splits import with_pixel_stats
from cnnbench.types import Augment, ImageSpec


@dataset(size="32x32x3", classes=10, uses=["root", "download"])
def svhn(source: Source) -> Decoded:
    """99,289 digits of house numbers in photographs, 32 x 32 colour."""
    train, test, _ = _torchvision.read(
        "SVHN",
        source,
        name="svhn",
        place="train_32x32.mat",
        files="train_32x32.mat, test_32x32.mat",
        parts=({"split": "train"}, {"split": "test"}),
    )
    spec = with_pixel_stats(ImageSpec(32, 32, 3, num_classes=10), train)
    return Decoded(spec, tuple("0123456789"), train, test, augment=Augment(pad=4))  # mirrored digits are others
