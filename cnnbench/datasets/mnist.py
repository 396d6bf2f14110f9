"""MNIST and Fashion-MNIST, 60,000 + 10,000 gray images of 28 x 28, in torchvision's folder layout.

LeCun, Cortes, Burges: The MNIST database. Xiao, Rasul, Vollgraf: Fashion-MNIST, 2017 (arXiv:1708.07747).
"""

from __future__ import annotations

from cnnbench.datasets import Decoded, Source, _torchvision, dataset
from cnnbench.types import Augment, ImageSpec

FILES = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte"


@dataset(
    size="28x28x1",
    classes=10,
    sha256="f9f06a0dd76ba0dd234d7126d2a7a40257f9e97a61831ac2811f3450d6b90d4a",
    uses=["root", "download"],
)
def mnist(source: Source) -> Decoded:
    """70,000 handwritten digits, 28 x 28 gray."""
    train, test, _ = _torchvision.read("MNIST", source, name="mnist", place="MNIST/raw", files=FILES)
    return Decoded(
        spec=ImageSpec(28, 28, 1, num_classes=10, mean=(0.1307,), std=(0.3081,)),
        class_names=tuple("0123456789"),
        train=train,
        test=test,
        augment=Augment(pad=2),
    )


@dataset(size="28x28x1", classes=10, uses=["root", "download"])
def fashion_mnist(source: Source) -> Decoded:
    """70,000 photographs of clothes, 28 x 28 gray."""
    train, test, _ = _torchvision.read(
        "FashionMNIST", source, name="fashion_mnist", place="FashionMNIST/raw", files=FILES
    )
    return Decoded(
        spec=ImageSpec(28, 28, 1, num_classes=10, mean=(0.2860,), std=(0.3530,)),
        class_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        train=train,
        test=test,
        augment=Augment(pad=2, flip=True),
    )
