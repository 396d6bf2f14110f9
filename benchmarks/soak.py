"""Memory, descriptors and files of a sweep's process over many short runs.

    python benchmarks/soak.py [--runs 200] [--out docs/soak.png]

One real `cnnbench sweep` of one task under as many seeds, each run trained for one epoch of 64 images and tested; the
process of the sweep, and the one that it forks, are looked at as each run ends. Prints what they hold after a tenth of
the runs and after all, the slope of a line through it, and the files in the folders of runs and of temporary files.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from cnnbench import pictures

TASK = "mnist5k_linear"
OVERRIDES = ("trainer.max_epochs=1", "data.train_images=64")


@dataclass(frozen=True)
class Sample:
    """What was there when a run had ended."""

    runs: int
    parent_mb: float
    """Resident memory of the sweep's process."""
    forked_mb: float
    """The same of the process that is forked for each run."""
    parent_descriptors: int
    forked_descriptors: int
    temporary_files: int
    stray_files: int
    """Hidden ones beside the runs."""


def main() -> None:
    """Run the sweep, print the table, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("docs/soak.png"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples = soak(options.runs, Path(folder))
    print(report(samples))
    draw(samples, options.out)


def soak(count: int, folder: Path) -> list[Sample]:
    """A sweep of `count` runs in `folder`, looked at as each ends."""
    runs, temporary = folder / "runs", folder / "temporary"
    temporary.mkdir()
    overrides = [word for override in OVERRIDES for word in ("--override", override)]
    command = [sys.executable, "-m", "cnnbench", "sweep", TASK, "--seeds", str(count), "--runs-dir", str(runs)]
    environ = {**os.environ, "TMPDIR": str(temporary)}
    samples: list[Sample] = []
    with subprocess.Popen([*command, *overrides], stdout=subprocess.DEVNULL, env=environ) as sweep:
        while sweep.poll() is None:
            ended = len([*runs.glob("*/seed*/predictions.parquet")])
            if ended > len(samples):
                samples.append(look(ended, sweep.pid, runs, temporary))
            time.sleep(0.05)
    if sweep.returncode:
        raise SystemExit(f"the sweep ended with exit code {sweep.returncode}")
    return samples


def look(ended: int, pid: int, runs: Path, temporary: Path) -> Sample:
    """What is there after so many runs; 0 of a process that is gone."""
    forked = next(iter(children(pid)), 0)
    return Sample(
        ended,
        resident_mb(pid),
        resident_mb(forked),
        descriptors(pid),
        descriptors(forked),
        len([*temporary.iterdir()]),
        len([*runs.glob("*/.*")]),
    )


def children(pid: int) -> list[int]:
    """The processes that a process has started (Linux)."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(number) for path in found for number in path.read_text().split()]


def resident_mb(pid: int) -> float:
    """Resident memory in 10^6 bytes; NaN of a process that is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def descriptors(pid: int) -> int:
    """Open ones."""
    try:
        return len([*Path(f"/proc/{pid}/fd").iterdir()])
    except OSError:
        return 0


def report(samples: list[Sample]) -> str:
    """A Markdown table: each quantity after a tenth of the runs, after all, and its slope between."""
    early, last = samples[len(samples) // 10], samples[-2]  # after the last run the forked process may be gone
    between = samples[len(samples) // 10 : -1]
    places = np.array([sample.runs for sample in between])
    lines = [
        f"{last.runs + 1} runs; {len(samples)} looks",
        "",
        f"| quantity | after {early.runs} runs | after {last.runs} runs | per 100 runs |",
        "| --- | ---: | ---: | ---: |",
    ]
    names = [name.replace("_mb", ", MB").replace("_", " ") for name in Sample.__dataclass_fields__]
    for number, name in enumerate(names[1:], start=1):
        values = np.array([astuple(sample)[number] for sample in between], dtype=float)
        slope = 100 * np.polyfit(places, values, 1)[0]
        lines.append(f"| {name} | {astuple(early)[number]:.6g} | {astuple(last)[number]:.6g} | {slope:+.2f} |")
    return "\n".join(lines)


def draw(samples: list[Sample], path: Path) -> None:
    """Memory and descriptors against runs."""
    figure, (memory, counts) = pictures.new(9, 3, panels=2)
    runs = [sample.runs for sample in samples[:-1]]
    for name, label in (("parent_mb", "sweep"), ("forked_mb", "process that is forked")):
        memory.plot(runs, [getattr(sample, name) for sample in samples[:-1]], label=label)
    for name, label in (
        ("parent_descriptors", "descriptors, sweep"),
        ("forked_descriptors", "descriptors, forked"),
        ("temporary_files", "temporary files"),
    ):
        counts.plot(runs, [getattr(sample, name) for sample in samples[:-1]], label=label)
    memory.set_ylabel("resident memory, MB")
    counts.set_ylabel("open descriptors, files")
    for axes in (memory, counts):
        axes.set_xlabel("runs")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
