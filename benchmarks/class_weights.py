"""Balanced class weights on uneven classes: 400 images of one digit and 12 of each other, with and without.

    python benchmarks/class_weights.py [--seeds 3] [--epochs 30]

The digits are those of mnist5k, written as a folder of PNG files, with 6 of each but one for validation; the test
split has 50 of each. lenet5_relu at batches of 64. Prints a Markdown table: mean over the seeds of the balanced
accuracy on the test split, and the lowest recall of a class.
"""

import argparse
import contextlib
import os
import tempfile
from collections import Counter
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image

import cnnbench
from cnnbench.analysis.per_class import balanced_accuracy, recalls
from cnnbench.datasets.choice import open_choice
from cnnbench.records.schema import DataChoice

COMMON, RARE = 1, {"train": 12, "val": 6, "test": 50}
"""The frequent digit, and how many images each other one has."""


def write(folder: Path) -> None:
    """The digits as files."""
    data = open_choice(DataChoice(dataset="mnist5k"))
    for name, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        seen: Counter[int] = Counter()
        for image, label in zip(split.images, split.labels.tolist(), strict=True):
            seen[label] += 1
            if label == COMMON or seen[label] <= RARE[name]:
                place = folder / name / str(label)
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.asarray(image[..., 0])).save(place / f"{seen[label]}.png")


def scores(folder: Path, weights: str | None, lr: float, seed: int, epochs: int) -> tuple[float, float]:
    """Balanced accuracy and lowest recall of a run."""
    options = {"dataset": "folder", "folder": str(folder), "size": 28, "channels": 1, "batch_size": 64}
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        record = cnnbench.fit(
            arch="lenet5_relu",
            lr=lr,
            class_weights=weights,
            seed=seed,
            max_epochs=epochs,
            runs_dir=folder.parent / "runs",
            overwrite=True,
            test=True,
            **options,
        )
    assert record is not None
    assert record.test is not None
    assert record.test.by_class is not None
    counts = record.test.by_class
    return balanced_accuracy(counts), min(recall.share for recall in recalls(counts))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    chosen = parser.parse_args()
    print("| --model.lr | --model.class_weights | balanced accuracy, % | lowest recall, % |")
    print("| ---: | --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "digits"
        write(folder)
        for lr in (0.2, 0.05, 0.02):
            for weights in (None, "balanced"):
                found = [scores(folder, weights, lr, seed, chosen.epochs) for seed in range(1, chosen.seeds + 1)]
                balanced, lowest = (100 * fmean(values) for values in zip(*found, strict=True))
                print(f"| {lr} | {weights or 'none'} | {balanced:.2f} | {lowest:.2f} |", flush=True)


if __name__ == "__main__":
    main()
