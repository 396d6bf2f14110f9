"""What 95 % intervals cover, and how often equal architectures are called different, in simulated worlds.

    python benchmarks/coverage.py [--replicates 5000] [--only seeds,normal,difference,accuracy]

Image i is right for network k of seed s where mu + difficulty * t4(i) + N(0, network)(k, i) + N(0, seed)(k, s) +
N(0, noise)(k, s, i) > 0; t4 is Student's t with 4 degrees of freedom, shared by both networks, whose parameters are
equal: the true difference is 0. One replicate draws 20 seeds and 10,000 images; the cells of fewer seeds or images are
its first ones, so that cells of a world are not independent of each other, but their replicates are. "Before" are the
formulas of version 0.1: over seeds Student's t, from ten on BCa; for differences Banerjee's bound without the least
width, in closed form (its bootstrap agrees within 2 %). The +- is one Monte Carlo error. An oracle's width is that of
an interval which knows the true standard deviation.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.integrate import quad
from scipy.stats import bootstrap, chi2, norm, t

from cnnbench.analysis.crossed import (
    MeanSquares,
    accuracy_interval,
    mean_squares,
    paired_difference,
    squared_half_width,
)
from cnnbench.analysis.statistics import quantile_of_normal, quantile_of_t
from cnnbench.cli.table import render
from cnnbench.tables.columns import Column

SEED = 20_260_701
SEEDS, IMAGES = (2, 3, 5, 10, 20), (500, 10_000)
LARGE = 1_000_000
"""Images whose mean square is known."""
BEYOND = 6.5
"""Standard deviations beyond which an image is never wrong; one draw in 10^10 is further out."""


@dataclass(frozen=True)
class World:
    """Parameters of the model above; all but `mu` are standard deviations, or the scale of t4."""

    name: str
    mu: float
    difficulty: float
    network: float
    seed: float
    noise: float

    def draw(
        self, random: np.random.Generator, networks: int = 2, seeds: int = max(SEEDS), images: int = max(IMAGES)
    ) -> np.ndarray:
        """`(networks, seeds, images)` bool: whether each network is right."""
        easy = self.mu + self.difficulty * random.standard_t(4, images)
        right = np.ones((networks, seeds, images), dtype=bool)
        for network in right:
            margin = easy + self.network * random.standard_normal(images)
            (open_,) = np.nonzero(margin < BEYOND * np.hypot(self.seed, self.noise))
            of_seed = self.seed * random.standard_normal((seeds, 1), dtype=np.float32)
            rest = self.noise * random.standard_normal((seeds, len(open_)), dtype=np.float32)
            network[:, open_] = margin[open_].astype(np.float32) + of_seed + rest > 0
        return right

    @property
    def accuracy(self) -> float:
        """Accuracy of the architecture: over all seeds and images."""
        return self.accuracy_of(0.0, np.hypot(self.seed, self.noise))

    def accuracy_of(self, effect: float, noise: float) -> float:
        """Over all images, of networks whose seeds add `effect` to every image."""
        spread = np.hypot(self.network, noise)
        found, _ = quad(lambda x: norm.cdf((self.mu + effect + self.difficulty * x) / spread) * t.pdf(x, 4), -60, 60)
        return float(found)


WORLDS = (
    World("mnist-like", 6.2, 1.35, 0.45, 0.06, 0.9),
    World("mnist5k-like", 4.6, 1.4, 0.5, 0.25, 0.9),
    World("cifar-like", 1.5, 1.0, 0.5, 0.04, 0.9),
)


@dataclass
class Tally:
    """Estimates and interval ends of one method in one cell, a value per replicate."""

    estimates: np.ndarray
    lows: np.ndarray
    highs: np.ndarray

    def covered(self, truth: float) -> float:
        """How often `truth` lies between the ends."""
        return float(np.mean((self.lows <= truth + 1e-12) & (truth - 1e-12 <= self.highs)))

    @property
    def claims(self) -> float:
        """How often 0 is excluded."""
        return float(np.mean((self.lows > 1e-12) | (self.highs < -1e-12)))

    @property
    def width(self) -> float:
        """Mean distance of the ends."""
        return float(np.mean(self.highs - self.lows))


def percent_with_error(share: float, replicates: int) -> str:
    """A share in percent with its Monte Carlo error."""
    return f"{100 * share:.1f} +- {100 * sqrt(share * (1 - share) / replicates):.1f}"


def points(fraction: float) -> str:
    """A width of accuracies in points."""
    return f"{100 * fraction:.3f}"


def before(squares: MeanSquares) -> float:
    """Half the interval of a difference in version 0.1."""
    seeds, images = quantile_of_t(squares.rows - 1), quantile_of_t(squares.columns - 1)
    return sqrt((seeds**2 * squares.seeds + images**2 * squares.images_alone) / (squares.rows * squares.columns))


def used(squares: MeanSquares) -> float:
    """Half the interval of a difference."""
    return sqrt(squared_half_width(squares))


def satterthwaite(squares: MeanSquares) -> float:
    """Half the interval with Satterthwaite's degrees of freedom alone."""
    variance = squares.seeds + squares.images_alone
    degrees = min((squares.rows - 1) * (variance / squares.seeds) ** 2, LARGE) if squares.seeds else LARGE
    return quantile_of_t(degrees) * sqrt(variance / (squares.rows * squares.columns))


def bca(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the BCa intervals of the means of `(replicates, n)` values; no width where they are equal."""
    with warnings.catch_warnings(action="ignore"):  # of equal values, which are dealt with below
        result = bootstrap((values,), np.mean, axis=1, n_resamples=1000, batch=50, method="BCa", rng=SEED)
    equal = np.ptp(values, axis=1) == 0
    low, high = result.confidence_interval
    return np.where(equal, values[:, 0], low), np.where(equal, values[:, 0], high)


def students_t(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of Student's t intervals of the means of `(replicates, n)` values."""
    count = values.shape[1]
    half = quantile_of_t(count - 1) * values.std(axis=1, ddof=1) / sqrt(count)
    return values.mean(axis=1) - half, values.mean(axis=1) + half


Rows = list[dict[str, str | int]]


def of_seeds(replicates: int) -> Rows:
    """The mean over seeds alone, for distributions of the accuracy of a seed on the same images."""
    random = np.random.default_rng(SEED)

    def normal(mean: float, std: float, images: int) -> Callable[[tuple[int, int]], np.ndarray]:
        return lambda shape: np.round(random.normal(mean, std, shape) * images) / images

    def skewed(shape: tuple[int, int]) -> np.ndarray:
        return random.normal(0.98, 0.003, shape) - 0.03 * (random.random(shape) < 0.05)

    worlds = {
        "N(99.24, 0.04) %, 10,000 images": (normal(0.9924, 0.0004, 10_000), 0.9924),
        "N(98.0, 0.6) %, 500 images": (normal(0.98, 0.006, 500), 0.98),
        "N(99.4, 0.2) %, 500 images": (normal(0.994, 0.002, 500), 0.994),
        "N(85.0, 0.3) %, 10,000 images": (normal(0.85, 0.003, 10_000), 0.85),
        "N(98.0, 0.3) %, one in 20 loses 3 points": (skewed, 0.98 - 0.03 / 20),
    }
    rows: Rows = []
    for name, (draw, truth) in worlds.items():
        for count in (*SEEDS[1:4], 12, 15, 20, 30):
            values = draw((replicates, count))
            was = bca(values) if count >= 10 else students_t(values)
            both = (Tally(values.mean(axis=1), *ends).covered(truth) for ends in (was, students_t(values)))
            shown = [percent_with_error(share, replicates) for share in both]
            rows.append({"accuracy of a seed": name, "seeds": count, "before": shown[0], "Student's t": shown[1]})
    return rows


def of_normal() -> Rows:
    """The crossed model with normal effects and many images: coverage by integration over the seeds' mean square.

    The images' mean square is 1 and known, `rest` its part of the interaction, `seeds` what seeds add to theirs.
    """
    quantiles = (np.arange(400) + 0.5) / 400
    grid = [(rest, seeds) for rest in (0, 0.2, 0.5, 0.8, 1) for seeds in (0, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)]
    rows: Rows = []
    for count in SEEDS:
        spread = chi2.ppf(quantiles, count - 1) / (count - 1)
        found: dict[str, list[float]] = {"Banerjee": [], "Satterthwaite": [], "used": []}
        for rest, seeds in grid:
            true = (1 + seeds) / (count * LARGE)
            drawn = [MeanSquares((rest + seeds) * square, 1.0, rest, count, LARGE) for square in spread]
            for name, half in (("Banerjee", before), ("Satterthwaite", satterthwaite), ("used", used)):
                shares = [2 * norm.cdf(half(squares) / sqrt(true)) - 1 for squares in drawn]
                found[name].append(float(np.mean(shares)))
        ends = {name: f"{100 * min(shares):.1f} to {100 * max(shares):.1f}" for name, shares in found.items()}
        rows.append({"seeds": count, **ends})
    return rows


@dataclass
class Replicates:
    """Everything that the replicates of one world gave, by cell (images, seeds) and method."""

    differences: dict[tuple[int, int, str], list[tuple[float, float, float]]]
    accuracies: dict[tuple[int, int, str], list[tuple[float, float, float]]]
    per_seed: dict[int, list[np.ndarray]]
    errors: dict[int, float]


def simulate(world: World, replicates: int) -> Replicates:
    """Draw a world `replicates` times and take every interval."""
    random = np.random.default_rng([SEED, *world.name.encode()])
    cells = [(images, seeds, method) for images in IMAGES for seeds in SEEDS for method in ("before", "after")]
    found = Replicates({cell: [] for cell in cells}, {cell: [] for cell in cells}, {i: [] for i in IMAGES}, {})
    for _ in range(replicates):
        right = world.draw(random)
        for images in IMAGES:
            a, b = right[:, :, :images]
            found.per_seed[images].append(a.mean(axis=1))
            for seeds in SEEDS:
                _add(found, (images, seeds), a[:seeds], b[:seeds])
    found.errors = {images: (1 - float(np.mean(found.per_seed[images]))) * images for images in IMAGES}
    return found


def _add(found: Replicates, cell: tuple[int, int], a: np.ndarray, b: np.ndarray) -> None:
    squares = mean_squares(a.astype(np.int8) - b)
    mean = float(a.mean() - b.mean())
    after = paired_difference(a, b)
    half = before(squares)
    found.differences[*cell, "before"].append((mean, mean - half, mean + half))
    found.differences[*cell, "after"].append((mean, after.low, after.high))
    interval = accuracy_interval(a)
    if interval is not None:
        found.accuracies[*cell, "after"].append((float(a.mean()), interval.low, interval.high))


def _tally(values: list[tuple[float, float, float]]) -> Tally:
    return Tally(*np.array(values).T)


def _cells(found: Replicates) -> Iterator[tuple[int, int]]:
    return ((images, seeds) for images in IMAGES for seeds in SEEDS)


def difference_rows(world: World, found: Replicates, replicates: int) -> Rows:
    """Paired differences of two architectures that are equal."""
    rows: Rows = []
    for images, seeds in _cells(found):
        was, now = (_tally(found.differences[images, seeds, method]) for method in ("before", "after"))
        oracle = 2 * quantile_of_normal() * float(now.estimates.std())
        rows.append(
            {
                "world": world.name,
                "images": f"{images:,}",
                "seeds": seeds,
                "errors of a network": f"{found.errors[images]:.0f}",
                "covers, before": percent_with_error(was.covered(0), replicates),
                "covers": percent_with_error(now.covered(0), replicates),
                "false claims, before": percent_with_error(was.claims, replicates),
                "false claims": percent_with_error(now.claims, replicates),
                "width, before": points(was.width),
                "width": points(now.width),
                "oracle's": points(oracle),
            }
        )
    return rows


def accuracy_rows(world: World, found: Replicates, replicates: int) -> Rows:
    """The accuracy of one architecture over all seeds and images."""
    rows: Rows = []
    for images, seeds in _cells(found):
        if seeds < 3:
            continue
        per_seed = np.array(found.per_seed[images])[:, :seeds]
        was = Tally(per_seed.mean(axis=1), *(bca(per_seed) if seeds >= 10 else students_t(per_seed)))
        now = _tally(found.accuracies[images, seeds, "after"])
        oracle = 2 * quantile_of_normal() * float(now.estimates.std())
        rows.append(
            {
                "world": world.name,
                "images": f"{images:,}",
                "seeds": seeds,
                "errors of a network": f"{found.errors[images]:.0f}",
                "covers, seeds alone": percent_with_error(was.covered(world.accuracy), replicates),
                "covers": percent_with_error(now.covered(world.accuracy), replicates),
                "width, seeds alone": points(was.width),
                "width": points(now.width),
                "oracle's": points(oracle),
            }
        )
    return rows


def show(title: str, rows: Rows) -> None:
    """Print a table in Markdown."""
    print(f"\n{title}\n")
    render(
        [Column(key, key, right=key not in ("world", "accuracy of a seed")) for key in rows[0]],
        rows,
        title=title,
        format="markdown",
    )


def main() -> int:
    """Run the simulation; prints one table a question."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=5000)
    parser.add_argument("--only", default="seeds,normal,difference,accuracy")
    chosen = parser.parse_args()
    only = chosen.only.split(",")
    if "seeds" in only:
        show("Mean over seeds: how often the interval holds the true mean, %", of_seeds(chosen.replicates))
    if "normal" in only:
        show("Normal effects: smallest and largest coverage over all shares of seeds, images and rest, %", of_normal())
    if {"difference", "accuracy"} & {*only}:
        found = {world: simulate(world, chosen.replicates) for world in WORLDS}
        if "difference" in only:
            rows = [row for world in WORLDS for row in difference_rows(world, found[world], chosen.replicates)]
            show("Paired difference of equal architectures, %; widths in points", rows)
        if "accuracy" in only:
            rows = [row for world in WORLDS for row in accuracy_rows(world, found[world], chosen.replicates)]
            show("Accuracy of an architecture for new seeds and new images, %; widths in points", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
