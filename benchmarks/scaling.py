"""How `fit` scales: images a second and memory against batch size, data set size, processes and model size.

    python benchmarks/scaling.py [--out docs] [--rounds 3] [--only batch,data,processes,model]

Real runs on MNIST, in random order within a round; for each axis a table of medians, a sentence and a plot. Images/s
leave out the first epoch and validation. Training memory is the record's: the peak above what was held before the first
step, validation of 250 images at once included. Process memory is the peak of the whole process, as Linux counts it.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from rounds import fit, fit_flags, images_per_second, interleaved, machine, options, table

from cnnbench import pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THREADS = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))  # of all processes of a run together
FLAT = 0.05  # exponents of less are called flat: less than 4 % a doubling
SIGNIFICANCE = 0.01  # of the F-test that a bend must pass
NOISE = 0.01  # relative: no median is taken to be surer than that
IMAGES = (1000, 2000, 4000, 8000, 16_000, 32_000, 54_000)
STEPS = {  # architectures, smallest first, and batches an epoch: a second or so
    "linear": 40,
    "mlp_lenet": 40,
    "lenet5": 40,
    "mlp": 40,
    "inception_small": 10,
    "netresdeep": 10,
    "resnet20": 10,
    "fastnet": 5,
    "resnet18": 3,
}
QUANTITIES = ("images/s", "training memory", "process memory")  # the first has the left plot, the others the right one
Point = dict[str, tuple[float, float]]
"""What one run took, by quantity: its place across (a size) and up (a rate, or bytes; NaN where nobody told)."""


@dataclass(frozen=True)
class Setting:
    """One way to train. `size` is its place on the axis; None is the cost of its architecture."""

    name: str
    size: int | None
    arguments: tuple[str, ...]
    series: str = ""
    processes: int = 1


@dataclass(frozen=True)
class Axis:
    """What is varied: its names beside images/s and beside memory; `whose` says of which process memory is."""

    title: str
    speed_size: str
    memory_size: str
    settings: list[Setting]
    whose: str = ""


@dataclass(frozen=True)
class Law:
    """A power law, or two that meet: `corners` are (size, value) at the ends and, between them, where it bends."""

    exponents: tuple[float, ...]
    corners: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Curve:
    """A quantity against a size: `y` has a list of rounds for each `x`; the law is that of their medians."""

    quantity: str
    size: str
    x: list[float]
    y: list[list[float]]
    law: Law | None


def arguments(arch: str, batch: int, *more: str, epochs: int = 2, steps: float = 1.0) -> tuple[str, ...]:
    """Arguments of `fit`; an epoch has `steps` batches, 1.0 is all."""
    flags = fit_flags(arch, lr=0.01, dataset="mnist", batch=batch, epochs=epochs, steps=steps, validate=False)
    return (*flags, *more)


def axes() -> dict[str, Axis]:
    """What is varied: 10,000 images or 6 batches for a batch size, 20,000 after the first epoch for a data set."""
    processes = []
    for arch, steps, n in (("lenet5", 40, 1), ("lenet5", 40, 2), ("resnet20", 8, 1), ("resnet20", 8, 2)):
        ddp = ("--trainer.devices", str(n), "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp")
        processes.append(Setting(f"{arch}, {n}", n, arguments(arch, 256, *ddp, steps=steps), arch, n))
    batch = {n: arguments("lenet5", n, steps=max(3, round(5000 / n))) for n in (2**power for power in range(4, 12))}
    data = {n: arguments("lenet5", 512, "--data.train_images", str(n), epochs=1 + -(-20_000 // n)) for n in IMAGES}
    batches, sets = ([Setting(f"{n:,}", n, of) for n, of in chosen.items()] for chosen in (batch, data))
    model = [Setting(arch, None, arguments(arch, 128, steps=steps)) for arch, steps in STEPS.items()]
    return {
        "batch": Axis("lenet5 on MNIST", "batch size", "batch size", batches),
        "data": Axis("lenet5 on MNIST, batch 512", "training images", "training images", sets),
        "processes": Axis("MNIST, batch 256 over all", "processes", "processes", processes, " of one process"),
        "model": Axis("architectures on MNIST, batch 128", "MACs", "activations", model),
    }


def measured(axis: Axis, rounds: int) -> dict[str, list[Point]]:
    """The points of every setting, by its name, one a round."""
    points: dict[str, list[Point]] = {setting.name: [] for setting in axis.settings}

    def side(setting: Setting) -> float:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as below:
            points[setting.name].append(below.submit(trained, setting).result())
        return points[setting.name][-1]["images/s"][1]

    interleaved({of.name: lambda of=of: side(of) for of in axis.settings}, rounds)
    return points


def trained(setting: Setting) -> Point:
    """Train. Call it in a separate process, which then has waited for this run and no other."""
    os.environ["OMP_NUM_THREADS"] = str(max(1, THREADS // setting.processes))
    record = fit(setting.arguments)
    process_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    memory_bytes = record["fit"]["resources"]["memory_bytes"]
    across, wide = (setting.size or record["cost"][key] for key in ("macs", "activations"))
    up = (images_per_second(record), float("nan") if memory_bytes is None else memory_bytes, process_bytes)
    return dict(zip(QUANTITIES, zip((across, wide, wide), up, strict=True), strict=True))


def power_law(sizes: list[float], values: list[float]) -> Law | None:
    """Least squares on logarithms: one straight line, or the best two that meet at an inner size, by an F-test.

    Values that have no logarithm are left out; None where fewer than two sizes are left.
    """
    pairs = sorted(pair for pair in zip(sizes, values, strict=True) if pair[1] > 0)
    ends = sorted({size for size, _ in pairs})
    if len(ends) < 2:
        return None
    x, y = np.log(np.array(pairs)).T
    rest, law = _pieces(x, y, ends[0], ends[-1])
    free = len(pairs) - 4  # a height, two slopes and a place
    if free < 1 or len(ends) < 3:
        return law
    from scipy import stats

    bent_rest, bent = min((_pieces(x, y, ends[0], bend, ends[-1]) for bend in ends[1:-1]), key=lambda pair: pair[0])
    ratio = (rest - bent_rest) / 2 / ((bent_rest + len(pairs) * NOISE**2) / free)
    return bent if stats.f.sf(ratio, 2, free) < SIGNIFICANCE else law


def _pieces(x: np.ndarray, y: np.ndarray, *sizes: float) -> tuple[float, Law]:
    """Straight pieces through the logarithms `x` and `y`, with corners at `sizes`; the sum of squares they leave."""
    corners = np.log(sizes)
    hats = np.stack([np.interp(x, corners, hat) for hat in np.eye(len(sizes))], axis=1)  # 1 at a corner, 0 at others
    heights = np.linalg.lstsq(hats, y, rcond=None)[0]
    exponents = np.diff(heights) / np.diff(corners)
    law = Law(tuple(exponents.tolist()), tuple(zip(sizes, np.exp(heights).tolist(), strict=True)))
    return float(np.sum((y - hats @ heights) ** 2)), law


def curves(axis: Axis, points: dict[str, list[Point]]) -> list[Curve]:
    """Every quantity of every series, with its law."""
    found = []
    for series in dict.fromkeys(setting.series for setting in axis.settings):
        of = [points[setting.name] for setting in axis.settings if setting.series == series]
        for quantity in QUANTITIES:
            size = axis.speed_size if quantity == "images/s" else axis.memory_size
            x = [rounds[0][quantity][0] for rounds in of]
            y = [[point[quantity][1] for point in rounds] for rounds in of]
            found.append(Curve(f"{series} {quantity}".strip(), size, x, y, power_law(x, list(map(median, y)))))
    return found


def words(curve: Curve) -> str:
    """What the law of a curve says."""
    if curve.law is None:
        return f"{curve.quantity} was not measured at two sizes"
    first, *second = curve.law.exponents
    bent = f" up to {curve.law.corners[1][0]:,.0f} and {_slope(second[0])} above" if second else ""
    return f"{curve.quantity} {_slope(first, curve.size)}{bent}"


def _slope(exponent: float, size: str = "") -> str:
    if abs(exponent) < FLAT:
        return f"is flat{size and f' in {size}'} ({exponent:z.2f})"
    return f"{'grows' if exponent > 0 else 'falls'}{size and f' with {size}'} to the power {exponent:.2f}"


def draw(axis: Axis, found: list[Curve], caption: str) -> Figure:
    """Images/s on the left, memory on the right: every run, the medians, and their laws."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    figure, (left, right) = pictures.new(panels=2)
    figure.suptitle(axis.title, fontsize=12)
    figure.supxlabel(caption, fontsize=8, color="#666666")
    for curve, colour in zip(found, pictures.COLOURS, strict=False):
        panel = left if curve.quantity.endswith("images/s") else right
        for x, y in zip(curve.x, curve.y, strict=True):
            panel.scatter([x] * len(y), y, s=14, color=colour, alpha=0.4, linewidths=0)
        panel.scatter(curve.x, list(map(median, curve.y)), s=40, color=colour, label=curve.quantity)
        if curve.law:
            label = "to the power " + ", then ".join(f"{exponent:z.2f}" for exponent in curve.law.exponents)
            panel.plot(*zip(*curve.law.corners, strict=True), color=colour, linewidth=1, label=label)
    memory = f"peak memory{axis.whose}, bytes"
    for panel, size, label, unit in ((left, axis.speed_size, "images/s", ""), (right, axis.memory_size, memory, "B")):
        panel.set(xlabel=size, ylabel=label, xscale="log", yscale="log")
        for one, limits, of in ((panel.xaxis, panel.set_xlim, ""), (panel.yaxis, panel.set_ylim, unit)):
            lowest, highest = one.get_minpos(), one.get_data_interval()[1]
            limits(lowest / 1.6, highest * 1.6)  # room for one of 1, 2, 5 at least
            one.set_major_locator(LogLocator(subs=(1, 2, 5) if highest < 500 * lowest else (1,)))
            one.set(minor_locator=NullLocator(), major_formatter=EngFormatter(sep=" ", unit=of))
        panel.legend(fontsize=8)
    return figure


def report(name: str, axis: Axis, points: dict[str, list[Point]], out: Path) -> None:
    """Print the table and the sentence of an axis; draw its plot."""
    rows = [[name, "images/s", f"training memory{axis.whose}, MB", f"process memory{axis.whose}, MB"]]
    for setting, runs in points.items():
        medians = [median(point[quantity][1] for point in runs) for quantity in QUANTITIES]
        rows.append([setting, f"{medians[0]:,.0f}", *(f"{size / 1e6:,.1f}" for size in medians[1:])])
    table(rows)
    found = curves(axis, points)
    print(f"\n{'; '.join(map(words, found))}.\n", flush=True)
    _, png = pictures.write(draw(axis, found, f"{machine()}; {THREADS} threads in all"), out / f"scaling_{name}")
    png.unlink()  # documents show the SVG


def main() -> None:
    """Measure the axes that were asked for, and report each as soon as it is there."""
    known = axes()
    parser = options(__doc__, rounds=3)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the plots (default docs)")
    parser.add_argument("--only", default=",".join(known), help="axes, with commas between them (default all)")
    chosen = parser.parse_args()
    if unknown := set(names := chosen.only.split(",")) - known.keys():
        sys.exit(f"--only {', '.join(sorted(unknown))}: expected some of {', '.join(known)}")
    for name in names:
        report(name, known[name], measured(known[name], chosen.rounds), chosen.out)


if __name__ == "__main__":
    main()
