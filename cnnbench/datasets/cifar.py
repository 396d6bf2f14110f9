"""CIFAR-10 and CIFAR-100, 50,000 + 10,000 colour images of 32 x 32, in torchvision's folder layout.

Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009.
"""

from __future__ import annotations

from cnnbench.datasets import Decoded, Source, _torchvision, dataset
from cnnbench.types import Augment, ImageSpec

AUGMENT = Augment(pad=4, flip=True)  # as in He et al. 2015, section 4.2


@dataset(size="32x32x3", classes=10, uses=["root", "download"])
def cifar10(source: Source) -> Decoded:
    """60,000 photographs of 10 kinds of animals and vehicles, 32 x 32 colour."""
    train, test, class_names = _torchvision.read(
        "CIFAR10",
        source,
        name="cifar10",
        place="cifar-10-batches-py",
        files="data_batch_1 to 5, test_batch, batches.meta",
    )
    spec = ImageSpec(32, 32, 3, num_classes=10, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
    return Decoded(spec, class_names, train, test, augment=AUGMENT)


@dataset(size="32x32x3", classes=100, uses=["root", "download"])
def cifar100(source: Source) -> Decoded:
    """60,000 photographs of 100 kinds of things, 32 x 32 colour."""
    train, test, class_names = _torchvision.read(
        "CIFAR100", source, name="cifar100", place="cifar-100-python", files="train, test, meta"
    )
    spec = ImageSpec(32, 32, 3, num_classes=100, mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762))
    return Decoded(spec, class_names, train, test, augment=AUGMENT)
