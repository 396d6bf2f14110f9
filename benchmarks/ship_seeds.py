"""Whether `ship` finds the best network: the whole procedure with several seeds, against a full sweep.

    python benchmarks/ship_seeds.py [--dataset mnist5k] [--budget 3m] [--seeds 5] [--epochs 27] [--sweep-seeds 3]

The sweep trains every network that one of the procedures has trained, with the longest schedule, and tests it. A
shipped file is as good as the best network of the sweep where its test accuracy is at most one standard error below the
mean of that one; the standard error is that of one accuracy on these test images. All is kept in the folder --out: the
same command goes on where it was stopped.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from statistics import mean

from rounds import process, table

from cnnbench import records
from cnnbench.records.schema import RunRecord
from cnnbench.shipping.record import Decision

SEEDS_OF_ONE = 5
"""Of the runs of one procedure: the next one begins after them, so that they share no run."""


def shipped(number: int, *, dataset: str, budget: str, out: Path) -> Decision:
    """The decision of one procedure."""
    seed = 1 + SEEDS_OF_ONE * number
    place = out / f"ship{seed}"
    process(
        ["-m", "cnnbench", "ship", "--dataset", dataset, "--budget", budget, "--seed", str(seed), "--out", str(place)]
    )
    return records.read(place / "decision.json", Decision)


def swept(archs: Sequence[str], *, dataset: str, epochs: int, seeds: int, out: Path) -> dict[str, list[float]]:
    """Test accuracies of each network, by seed."""
    tasks = [f"{dataset}_{arch}" for arch in archs]
    schedule = ["--override", f"trainer.max_epochs={epochs}"]
    where = ["--runs-dir", str(out), "--jobs", "2"]
    process(["-m", "cnnbench", "sweep", *tasks, "--seeds", str(seeds), *schedule, *where])
    found = defaultdict(list)
    for task in tasks:
        for seed in range(1, seeds + 1):
            record = records.read(out / task / f"seed{seed}" / "result.json", RunRecord)
            assert record.test is not None
            found[record.arch].append(record.test.accuracy)
    return dict(found)


def main() -> None:
    """Ship with every seed, sweep, and print a row per seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="mnist5k")
    parser.add_argument("--budget", default="3m", help="of each procedure, as for `cnnbench ship` (default 3m)")
    parser.add_argument("--seeds", type=int, default=5, help="procedures (default 5)")
    parser.add_argument("--epochs", type=int, default=27, help="of the sweep (default 27, the longest schedule)")
    parser.add_argument("--sweep-seeds", type=int, default=3, help="of each network of the sweep (default 3)")
    parser.add_argument("--out", type=Path, default=Path("shipped/seeds"), help="folder (default shipped/seeds)")
    chosen = parser.parse_args()
    decisions = []
    for number in range(chosen.seeds):
        decisions.append(shipped(number, dataset=chosen.dataset, budget=chosen.budget, out=chosen.out))
        print(f"{number + 1} of {chosen.seeds} shipped: {decisions[-1].answer}", file=sys.stderr)
    archs = sorted({one.arch for decision in decisions for one in decision.competitors if one.runs})
    found = swept(
        archs, dataset=chosen.dataset, epochs=chosen.epochs, seeds=chosen.sweep_seeds, out=chosen.out / "runs"
    )
    best = max(found, key=lambda arch: mean(found[arch]))
    top = mean(found[best])
    rows = [["seed", "network", "epochs", "precision", "test accuracy", "below the best", "as good", "seconds"]]
    rows += [row(decision, top) for decision in decisions]
    table(rows)
    for arch in sorted(found, key=lambda arch: -mean(found[arch])):
        accuracies = ", ".join(f"{accuracy:.2%}" for accuracy in found[arch])
        print(f"{arch}: {mean(found[arch]):.2%} on test images with {chosen.epochs} epochs ({accuracies})")
    as_good = sum(cells[-2] == "yes" for cells in rows)
    print(f"within one standard error of {best}: {as_good} of {len(decisions)}")


def row(decision: Decision, top: float) -> list[str]:
    """What is said of a procedure, beside the best accuracy of the sweep."""
    file, seed, seconds = decision.chosen, str(decision.request.seed), f"{decision.seconds:.0f}"
    if file is None:
        return [seed, "none", "", "", "", "", "no", seconds]
    accuracy = file.test.accuracy
    as_good = "yes" if accuracy >= top - sqrt(top * (1 - top) / file.test.images) else "no"
    below = f"{100 * (top - accuracy):.2f} points"
    return [seed, file.arch, str(file.epochs), file.precision, f"{accuracy:.2%}", below, as_good, seconds]


if __name__ == "__main__":
    main()
