"""MNIST and what has its format: gray images of 28 x 28 in idx files, in torchvision's folder layout.

LeCun, Cortes, Burges: The MNIST database. Xiao, Rasul, Vollgraf: Fashion-MNIST, 2017 (arXiv:1708.07747). Clanuwat et
al.: Deep Learning for Classical Japanese Literature, 2018 (arXiv:1812.01718). Cohen et al.: EMNIST, 2017
(arXiv:1702.05373).
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from cnnbench.datasets import Decoded, Source, _torchvision, dataset
from cnnbench.datasets.splits import with_pixel_stats
from cnnbench.types import Augment, CnnbenchError, Exit, ImageSpec, Split

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files, compressed."""

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


@dataset(
    size="28x28x1",
    classes=10,
    sha256="145c7cc693ba9309a106bf85524ac71e85fcfb2e7d8183008ef3c512c60b6793",
    uses=["root", "download"],
)
def fashion_mnist(source: Source) -> Decoded:
    """70,000 photographs of clothes, 28 x 28 gray."""
    place = "FashionMNIST/raw"
    if not (source.root / place).exists() and DEBIAN.is_dir():
        train, test = _compressed(DEBIAN, "train"), _compressed(DEBIAN, "t10k")
    else:
        train, test, _ = _torchvision.read("FashionMNIST", source, name="fashion_mnist", place=place, files=FILES)
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


@dataset(size="28x28x1", classes=10, uses=["root", "download"])
def kmnist(source: Source) -> Decoded:
    """70,000 handwritten Japanese characters of 10 kinds, 28 x 28 gray."""
    train, test, names = _torchvision.read("KMNIST", source, name="kmnist", place="KMNIST/raw", files=FILES)
    spec = with_pixel_stats(ImageSpec(28, 28, 1, num_classes=10), train)
    return Decoded(spec, names, train, test, augment=Augment(pad=2))


@dataset(size="28x28x1", classes=47, uses=["root", "download"])
def emnist(source: Source) -> Decoded:
    """131,600 handwritten digits and letters of 47 kinds (EMNIST Balanced), 28 x 28 gray."""
    kinds = ", ".join(f"emnist-balanced-{name}" for name in FILES.replace("t10k", "test").split(", "))
    parts = ({"split": "balanced", "train": True}, {"split": "balanced", "train": False})
    train, test, names = _torchvision.read(
        "EMNIST", source, name="emnist", place="EMNIST/raw", files=kinds, parts=parts
    )
    train, test = (Split(np.ascontiguousarray(part.images.swapaxes(1, 2)), part.labels) for part in (train, test))
    spec = with_pixel_stats(ImageSpec(28, 28, 1, num_classes=47), train)
    return Decoded(spec, names, train, test, augment=Augment(pad=2))  # the files have rows and columns exchanged


def _compressed(folder: Path, part: str) -> Split:
    """One split of compressed idx files.

    Raises:
        CnnbenchError: They are missing or damaged (exit 3).
    """
    images, labels = (folder / f"{part}-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1"))
    try:
        pixels = np.frombuffer(gzip.decompress(images.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28, 1)
        targets = np.frombuffer(gzip.decompress(labels.read_bytes()), np.uint8, offset=8)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise CnnbenchError(f"fashion_mnist cannot be read from {folder}: {error}", Exit.DATA) from None
    return Split(pixels, targets.astype(np.int64))
