"""Statistics over seeds: intervals, whether one of two architectures is better, and time to a target accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cnnbench.types import SEED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnbench.records.schema import Epoch

LEVEL = 0.95
"""Confidence level of every interval."""
BOOTSTRAP_FROM = 10
"""Number of values from which an interval is a bootstrap's. Below, Student's t: a 95 % percentile bootstrap of five
values covers 84 % (Hesterberg 2015, arXiv:1411.5279, on the narrowness of small samples)."""
REPLICATES = 20_000
"""Of a bootstrap. All begin with types.SEED: the same numbers give the same interval."""

Bounds = tuple[float | None, float | None]
"""The smallest and largest possible value, such as (0, 1) for an accuracy."""


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval of a mean."""

    low: float
    high: float
    method: str


def interval(values: Sequence[float], bounds: Bounds = (None, None)) -> Interval | None:
    """The interval of the mean of `values`, cut at `bounds`; None for fewer than two, which show no spread.

    Student's t below ten values, from ten on the bias-corrected and accelerated bootstrap (BCa, Efron 1987).
    """
    if len(values) < 2:
        return None
    if np.ptp(values) == 0:  # without spread neither method is defined
        low = high = float(values[0])
    elif len(values) < BOOTSTRAP_FROM:
        low, high = _students_t(np.asarray(values))
    else:
        low, high = _bca(np.asarray(values))
    method = "Student's t" if len(values) < BOOTSTRAP_FROM else "BCa bootstrap"
    low, high = np.clip([low, high], *bounds).tolist()
    return Interval(low, high, method)


def _students_t(values: np.ndarray) -> tuple[float, float]:
    half = _quantile_of_t(len(values) - 1) * float(values.std(ddof=1)) / len(values) ** 0.5
    return float(values.mean()) - half, float(values.mean()) + half


def _bca(values: np.ndarray) -> tuple[float, float]:
    from scipy.stats import bootstrap

    result = bootstrap(
        (values,),
        np.mean,
        confidence_level=LEVEL,
        n_resamples=REPLICATES,
        method="BCa",
        rng=np.random.default_rng(SEED),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _quantile_of_t(degrees: int) -> float:
    """Half the width of an interval of the mean, in standard errors."""
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, degrees))


@dataclass(frozen=True)
class Summary:
    """One quantity over seeds: every value, mean, spread and interval."""

    values: tuple[float, ...]
    mean: float
    std: float | None
    """Sample standard deviation, with n - 1; None for a single value."""
    interval: Interval | None


def summary(values: Sequence[float], bounds: Bounds = (None, None)) -> Summary:
    """Mean, standard deviation and interval of at least one value; see `interval`."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Summary(tuple(values), float(np.mean(values)), std, interval(values, bounds))


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two networks on the same images."""

    only_a: int
    """Images that only a classifies correctly."""
    only_b: int
    p: float
    """Probability of a split at least as uneven if both were equally good (exact, two-sided)."""


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> McNemar:
    """The exact test of McNemar (1947), for one seed of each network.

    Args:
        correct_a: `(images,)` bool, whether network a is right.
        correct_b: The same for b, on the same images in the same order.

    Raises:
        ValueError: The shapes are not `(images,)` for both.
    """
    if correct_a.shape != correct_b.shape or correct_a.ndim != 1:
        raise ValueError(f"expected two arrays (images,); got {correct_a.shape} and {correct_b.shape}")
    from scipy.stats import binomtest

    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p)


@dataclass(frozen=True)
class Difference:
    """Accuracy of a minus that of b, with its 95 % interval, in fractions of 1."""

    mean: float
    low: float
    high: float
    seeds: int
    """With one, the interval covers other images only, not another training."""
    images: int
    replicates: int

    @property
    def shown(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def sentence(self, name_a: str, name_b: str) -> str:
        """One sentence: which is better and by how much, or that no difference is shown; with seeds and images."""
        low, high = 100 * self.low, 100 * self.high
        if not self.shown:
            result = f"no difference shown between {name_a} and {name_b} (95 % interval {low:.2f} to {high:.2f} points)"
        elif self.mean > 0:
            result = f"{name_a} is better than {name_b} by {_points(self.mean, low, high)}"
        else:
            result = f"{name_b} is better than {name_a} by {_points(-self.mean, -high, -low)}"
        seeds = f"{self.seeds} seeds" if self.seeds > 1 else "over images alone: one seed"
        return f"{result}; {seeds}, {self.images:,} images"


def _points(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:.2f} points (95 % interval {low:.2f} to {high:.2f})"


def paired_difference(correct_a: np.ndarray, correct_b: np.ndarray) -> Difference:
    """How much better a is than b, for other seeds and other images than these: a crossed, paired bootstrap.

    A replicate resamples seeds and images independently, the same ones for both networks, and all images under every
    drawn seed: images under several seeds are not independent (Owen 2007, The pigeonhole bootstrap,
    doi:10.1214/07-AOAS122). The spread of the replicates is the standard error, separated into the parts of seeds and
    of images.

    The interval is not the replicates' percentiles. The spread of n seeds is too small by (n - 1) / n, and their
    quantiles end at the best and the worst of them, so that three cover at most 75 % however far the percentiles are
    pushed out (as in Hesterberg 2015, arXiv:1411.5279); and such replicates count the interaction of seed and image
    three times. So the parts are scaled to be unbiased, and each gets the quantile of Student's t for its own degrees
    of freedom: half the interval is sqrt(t_seeds^2 se_seeds^2 + t_images^2 se_images^2) (Banerjee 1960, Sankhya 22,
    pages 357 and 358), which covers 95 % or more and is never narrower than a paired t-test over the seeds.

    Args:
        correct_a: `(seeds, images)` bool, whether a is right. Row s of both is of the same seed.
        correct_b: The same for b; the images are the same in the same order, in all rows.

    Raises:
        ValueError: The shapes are not `(seeds, images)` for both, with at least two images.
    """
    if correct_a.shape != correct_b.shape or correct_a.ndim != 2 or min(correct_a.shape) < 1 or correct_a.shape[1] < 2:
        raise ValueError(f"expected two arrays (seeds, images >= 2); got {correct_a.shape} and {correct_b.shape}")
    differences = correct_a.astype(np.int8) - correct_b.astype(np.int8)
    seeds, images = differences.shape
    of_seeds, of_images = _variances(differences)
    squares = _quantile_of_t(images - 1) ** 2 * of_images
    if seeds > 1:
        squares += _quantile_of_t(seeds - 1) ** 2 * of_seeds
    mean, half = float(differences.mean()), squares**0.5
    return Difference(mean, mean - half, mean + half, seeds, images, REPLICATES)


def _variances(differences: np.ndarray) -> tuple[float, float]:
    """Squared standard errors of the mean due to seeds and due to images, from replicates; `differences` (S, I).

    The interaction (a seed that is good at an image) is in both; it stays in the first and is subtracted from the
    second. With one seed there is only the second.
    """
    seeds, images = differences.shape
    both, seeds_alone, images_alone = _replicates(differences)
    of_images = images_alone.var() * images / (images - 1)
    if seeds == 1:
        return 0.0, float(of_images)
    interaction = (both - seeds_alone - images_alone).var() * seeds * images / ((seeds - 1) * (images - 1))
    return float(seeds_alone.var() * seeds / (seeds - 1)), float(max(of_images - interaction, 0.0))


def _replicates(differences: np.ndarray) -> np.ndarray:
    """`(3, REPLICATES)` means minus the mean: of resampled seeds and images, of seeds alone, of images alone.

    Images with the same differences under all seeds are one pattern. How often a replicate holds each pattern is one
    multinomial draw: the same distribution as drawing every image, at a small fraction of the cost. Of `-differences`
    the means are the negative ones.
    """
    seeds, images = differences.shape
    patterns, counts = _patterns(differences)
    random = np.random.RandomState(SEED)  # its stream is frozen (NEP 19)
    chunks = []
    for start in range(0, REPLICATES, 1000):  # a hundred seeds have as many patterns as images
        size = min(1000, REPLICATES - start)
        drawn_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), size) / seeds  # (size, S)
        drawn_images = random.multinomial(images, counts / images, size) / images  # (size, P)
        per_pattern = drawn_seeds @ patterns  # (size, P)
        chunks.append(
            [
                (per_pattern * drawn_images).sum(axis=1),
                per_pattern @ counts / images,
                drawn_images @ patterns.mean(axis=0),
            ]
        )
    means: np.ndarray = np.concatenate(chunks, axis=1) - differences.mean()
    return means


def _patterns(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct columns `(S, P)` of `differences` `(S, I)` and how often each occurs `(P,)`.

    Their order depends neither on that of the images nor on the sign: what is drawn for a pattern is drawn for its
    negative in `-differences`.
    """
    patterns, counts = np.unique(differences, axis=1, return_counts=True)
    # sorted, those of -differences come the other way round: one way is for a positive sum, or else for the first
    # place in which the two ways differ
    ways = np.concatenate([[differences.sum()], (patterns + patterns[:, ::-1]).T.ravel(), counts - counts[::-1]])
    if ways[np.argmax(ways != 0)] < 0:
        patterns, counts = patterns[:, ::-1], counts[::-1]
    return patterns.astype(np.float64), counts


@dataclass(frozen=True)
class TimeToAccuracy:
    """What training cost until a target was first reached, evaluation excluded."""

    seconds: float
    epochs: int
    macs: int | None


def time_to_accuracy(curve: Sequence[Epoch], target: float, *, macs: int | None) -> TimeToAccuracy | None:
    """The cost of training up to the first validated epoch with at least `target` accuracy; None if there is none.

    Args:
        curve: The validated epochs of a run, in order.
        target: Validation accuracy, a fraction.
        macs: MACs of a forward and a backward pass per image; None where they were not counted.
    """
    reached = next((epoch for epoch in curve if epoch.val_accuracy >= target), None)
    if reached is None:
        return None
    return TimeToAccuracy(reached.train_seconds, reached.epoch, None if macs is None else macs * reached.images)
