"""int8 files with weights of 7 and of 8 bits, on this processor: accuracy, and how far graph optimisations move logits.

    python benchmarks/int8_weights.py exports/mnist_lenet5 [BUNDLE ...] [--images 2000]

With optimisations, ONNX Runtime computes in 8-bit kernels; without them, in float32 on the same rounded numbers. Where
the two differ by more than rounding, sums of the kernels saturate. A bundle's data set is read as its run read it.
"""

import argparse
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
from onnxruntime import quantization
from rounds import table

from cnnbench import records
from cnnbench.bundles import quantise
from cnnbench.datasets.choice import open_choice
from cnnbench.records.bundle import Manifest
from cnnbench.runtime import providers


def main() -> None:
    """Quantise each bundle's float32 file in both ways, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=2000, help="of the test split (default 2000)")
    chosen = parser.parse_args()
    rows = [
        [
            "bundle",
            "weights, bits",
            "float32 right, %",
            "int8 right, %",
            "without optimisations, %",
            "logits apart, % of the largest",
        ]
    ]
    for bundle in chosen.bundles:
        manifest = records.read(bundle / "manifest.json", Manifest)
        data = open_choice(manifest.data)
        pixels, labels = data.test.images[: chosen.images], data.test.labels[: chosen.images]

        def right(found: np.ndarray, labels: np.ndarray = labels) -> str:
            return f"{100 * (found.argmax(1) == labels).mean():.2f}"

        fp32 = logits(bundle / "model.onnx", pixels, "on")
        for bits in (7, 8):
            with tempfile.TemporaryDirectory() as folder, quantised_to(bits):
                file = Path(folder) / "int8.onnx"
                onnx.save(
                    quantise.make("int8", onnx.load(bundle / "model.onnx"), images=data.train.images, dtype="uint8"),
                    file,
                )
                on, off = logits(file, pixels, "on"), logits(file, pixels, "off")
            apart = f"{100 * np.abs(on - off).max() / np.abs(off).max():.2f}"
            rows.append([manifest.task, str(bits), right(fp32), right(on), right(off), apart])
    table(rows)


def quantised_to(bits: int) -> Any:
    """ONNX Runtime's quantiser with so many bits for weights, whatever it is asked for."""
    make: Callable[..., None] = quantization.quantize_static

    @functools.wraps(make)
    def changed(*arguments: Any, **options: Any) -> None:
        make(*arguments, **{**options, "reduce_range": bits == 7})

    return mock.patch.object(quantization, "quantize_static", changed)


def logits(file: Path, pixels: np.ndarray, level: providers.Level) -> np.ndarray:
    """Of every image, at one level of graph optimisation."""
    (found,) = providers.open_session(file, level=level, threads=1).run(["logits"], {"pixels": pixels})
    return np.asarray(found)


if __name__ == "__main__":
    main()
