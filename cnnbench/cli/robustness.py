"""`robustness`: accuracy of runs on shifted test images."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from cnnbench import progress
from cnnbench.cli.hints import say_next
from cnnbench.cli.table import Format, render
from cnnbench.records.schema import Robustness
from cnnbench.tables.columns import Column
from cnnbench.tables.text import percent_digits
from cnnbench.types import Exit


def robustness(
    runs: list[str],
    *,
    images: int = 2000,
    root: str | None = None,
    folder: str | None = None,
    format: Format = "table",
) -> int:
    """Shift test images by up to four pixels and score runs at every shift; writes robustness.json beside each.

    Args:
        runs: Folders of tested runs, or folders below which they are, or tasks and architectures, whose runs are in
            the folder runs; the best checkpoint of each is scored.
        images: Number of test images to shift, spread evenly over the split, which may be sorted by class.
        root: Folder of the downloaded datasets, if the data has moved.
        folder: Folder of your own images, if the data has moved.
        format: How to print the table: for people (table, markdown) or for programs (csv, json).

    Examples:
        cnnbench robustness runs
        cnnbench robustness runs/mnist5k_lenet5/seed1 --images 500
    """
    from cnnbench.bench.robustness import find_tested_runs, measure_robustness, stored_robustness
    from cnnbench.training.spelling import run_path

    paths = [run_path(name, arch=None, dataset=None, seed=None, runs_dir="runs") for name in runs]
    found = find_tested_runs(paths)
    rows = []
    for place, run in enumerate(found):
        record = stored_robustness(run, images=images)
        if record:
            print(f"kept: {run} was measured before, the same checkpoint on as many images", file=sys.stderr)
        else:
            with progress.display(len(found), begun=place):
                progress.step(f"{run} at 81 shifts")
                record = measure_robustness(run, images=images, root=root, folder=folder)
        rows.append(_row(run, record))
    render(COLUMNS, rows, title="Accuracy on shifted test images, and how feature maps move with them", format=format)
    say_next("compare", *runs, "--view", "robustness", format=format)
    return Exit.OK


@dataclass(frozen=True)
class RobustnessRow:
    """One run; accuracies are fractions."""

    run: str
    task: str
    arch: str
    dataset: str
    seed: int
    images: int
    unshifted: float
    mean: float
    worst: float
    layer: str | None
    stride: int | None
    equivariance_1px: float | None
    equivariance_4px: float | None
    reason: str | None


def _row(run: Path, record: Robustness) -> RobustnessRow:
    centre = record.shifts.index(0)
    features = record.equivariance
    return RobustnessRow(
        run=str(run),
        task=record.task,
        arch=record.arch,
        dataset=record.dataset,
        seed=record.seed,
        images=record.images,
        unshifted=record.accuracy[centre][centre],
        mean=record.mean,
        worst=record.worst,
        layer=features.layer if features else None,
        stride=features.stride if features else None,
        equivariance_1px=features.errors[0] if features else None,
        equivariance_4px=features.errors[-1] if features else None,
        reason=record.reason or None,
    )


COLUMNS = [
    Column("task", "task"),
    Column("seed", "seed", right=True),
    Column("images", "images", "{:,}".format, right=True),
    Column("unshifted", "unshifted", percent_digits, unit="%", right=True),
    Column("mean", "mean of 81 shifts", percent_digits, unit="%", right=True),
    Column("worst", "worst", percent_digits, unit="%", right=True),
    Column("layer", "feature map"),
    Column("stride", "its stride", right=True),
    Column("equivariance_1px", "its error, 1 pixel", "{:.3f}".format, right=True),
    Column("equivariance_4px", "4 pixels", "{:.3f}".format, right=True),
    Column("reason", "why none"),
]
