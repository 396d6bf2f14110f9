"""Two or more sides measured in turns, each in its own process; medians and ratios.

Shared by the scripts beside it. A round measures every side once, in random order, so that other load on the
machine affects all alike; the ratio is taken within a round, and its median and range over the rounds are reported.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from cnnbench import environment

Sides = dict[str, Callable[[], float]]


def options(description: str | None, rounds: int = 5) -> argparse.ArgumentParser:
    """A parser with the options of every script."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"rounds of turns (default {rounds})")
    return parser


def interleaved(sides: Sides, rounds: int) -> dict[str, list[float]]:
    """Measure each side once per round; a line on stderr per figure."""
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in random.sample(list(sides), len(sides)):
            figures[name].append(sides[name]())
            print(f"round {number + 1} of {rounds}: {name} {figures[name][-1]:.6g}", file=sys.stderr)
    return figures


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table, its first row the heading, and the machine it was measured on."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "| " + " | ".join(["---"] * len(rows[0])) + " |")
    print("\n".join(lines), f"\n({machine()})", sep="\n")


def compared(
    what: str,
    figures: dict[str, list[float]],
    *,
    unit: str,
    ours: str,
    least: float,
    fewer_is_better: bool = False,
) -> None:
    """Print a row for each of the other sides: how many times as good `ours` is, and whether that reaches `least`."""
    rows = [["what", "against", f"ours, {unit}", f"other, {unit}", "ratio: median (range)", "required", "reached"]]
    for name, others in figures.items():
        if name == ours:
            continue
        pairs = list(zip(figures[ours], others, strict=True))
        ratios = [b / a if fewer_is_better else a / b for a, b in pairs]
        middle = median(ratios)
        rows.append(
            [
                what,
                name,
                f"{median(figures[ours]):,.4g}",
                f"{median(others):,.4g}",
                f"{middle:.3g} ({min(ratios):.3g} to {max(ratios):.3g}) of {len(ratios)} rounds",
                f"{least:g}",
                "yes" if middle >= least else "no",
            ]
        )
    table(rows)


def machine() -> str:
    """Processor, cores, threads and versions, as a caption."""
    versions = environment.versions()
    gpus = "no GPU" if not environment.gpus() else ", ".join(environment.gpus())
    named = ", ".join(
        f"{name} {versions[name]}" for name in ("torch", "lightning", "onnxruntime-gpu") if name in versions
    )
    return f"{environment.cpu_name()}, {os.cpu_count()} cores, {gpus}; {named}"


def process(arguments: Sequence[str]) -> str:
    """The stdout of Python with these arguments. If it fails, the benchmark exits with its stderr."""
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(arguments)} exited with {result.returncode}:\n{result.stderr}")
    return result.stdout


def fit(arguments: Sequence[str]) -> dict:
    """Train by the command line in a folder that is removed again; the run's record."""
    with tempfile.TemporaryDirectory() as folder:
        process(["-m", "cnnbench", "fit", *arguments, "--runs-dir", folder])
        (record,) = Path(folder).glob("*/*/result.json")
        return json.loads(record.read_text())


def fit_flags(
    arch: str,
    *,
    dataset: str,
    batch: int,
    epochs: int,
    lr: float = 0.05,
    folder: str | None = None,
    steps: float | None = None,
    validate: bool = True,
) -> list[str]:
    """Flags of `fit` for a measurement. `steps` limits an epoch; without `validate`, one batch is scored per epoch."""
    flags = {
        "model.arch": arch,
        "model.lr": lr,
        "data.dataset": dataset,
        "data.folder": folder,
        "data.batch_size": batch,
        "trainer.max_epochs": epochs,
        "trainer.limit_train_batches": steps,
        "trainer.limit_val_batches": None if validate else 1,
    }
    return [word for name, value in flags.items() if value is not None for word in (f"--{name}", str(value))]


def images_per_second(record: dict) -> float:
    """Images per second of a run, from the end of its first epoch to that of its last, validation passes excluded."""
    first, last = record["fit"]["curve"][0], record["fit"]["curve"][-1]
    return (last["images"] - first["images"]) / (last["train_seconds"] - first["train_seconds"])
