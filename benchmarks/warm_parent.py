"""Short runs in one sweep, whose processes are forked, against as many single `fit`s.

    python benchmarks/warm_parent.py [--runs 8] [--rounds 3]

Each run is lenet5 on 512 images of mnist5k for one epoch, trained and tested; seconds for all of them, one after the
other. Both leave the same results.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rounds import compared, interleaved, options

from cnnbench import records
from cnnbench.records.schema import RunRecord

TASK = "mnist5k_lenet5"
FLAGS = {"data.train_images": "512", "trainer.max_epochs": "1"}


def cnnbench(*arguments: str) -> None:
    """The command line."""
    subprocess.run([sys.executable, "-m", "cnnbench", *arguments], check=True, capture_output=True)


def swept(folder: Path, runs: int) -> None:
    """All runs in one sweep."""
    overrides = [word for key, value in FLAGS.items() for word in ("--override", f"{key}={value}")]
    cnnbench("sweep", TASK, "--seeds", str(runs), *overrides, "--runs-dir", str(folder))


def single(folder: Path, runs: int) -> None:
    """Each run by a `fit`."""
    flags = [f"--{key}={value}" for key, value in FLAGS.items()]
    for seed in range(1, runs + 1):
        arguments = ("--config", TASK, "--seed_everything", str(seed), "--test", "--runs-dir", str(folder))
        cnnbench("fit", *arguments, *flags)


def accuracies(folder: Path) -> list[float]:
    """Accuracies of the runs in a folder, by seed."""
    found = (records.read(path, RunRecord) for path in sorted(folder.glob("*/*/result.json")))
    return [record.test.accuracy for record in found if record.test]


def main() -> None:
    """Measure, compare the results, and print a row."""
    parser = options(__doc__, rounds=3)
    parser.add_argument("--runs", type=int, default=8)
    chosen = parser.parse_args()
    results: list[list[float]] = []

    def seconds(way: Callable[[Path, int], None]) -> float:
        with tempfile.TemporaryDirectory() as folder:
            since = time.perf_counter()
            way(Path(folder), chosen.runs)
            spent = time.perf_counter() - since
            results.append(accuracies(Path(folder)))
        return spent

    sides = {"one sweep": lambda: seconds(swept), "single fits": lambda: seconds(single)}
    found = interleaved(sides, chosen.rounds)
    if any(result != results[0] or len(result) != chosen.runs for result in results):
        sys.exit(f"the results differ: {results}")
    compared(f"{chosen.runs} short runs", found, unit="s", ours="one sweep", least=3, fewer_is_better=True)


if __name__ == "__main__":
    main()
