"""STL-10, 5,000 + 8,000 colour images of 96 x 96, in torchvision's folder layout.

Coates, Lee, Ng: An Analysis of Single-Layer Networks in Unsupervised Feature Learning, 2011.
"""

from __future__ import annotations

from cnnbench.datasets import Decoded, Source, _torchvision, dataset
from cnnbench.datasets.splits import with_pixel_stats
from cnnbench.types import Augment, ImageSpec


@dataset(size="96x96x3", classes=10, uses=["root", "download"])
def stl10(source: Source) -> Decoded:
    """13,000 photographs of 10 kinds of animals and vehicles, 96 x 96 colour; those without labels are not read."""
    train, test, names = _torchvision.read(
        "STL10",
        source,
        name="stl10",
        place="stl10_binary",
        files="train_X.bin, train_y.bin, test_X.bin, test_y.bin, unlabeled_X.bin, class_names.txt",
        parts=({"split": "train"}, {"split": "test"}),
    )
    spec = with_pixel_stats(ImageSpec(96, 96, 3, num_classes=10), train)
    return Decoded(spec, names, train, test, augment=Augment(pad=12, flip=True))  # padded as 4 at 32 pixels
