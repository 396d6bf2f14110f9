"""The crossed model of seeds and images: intervals that hold for new seeds and new images. See docs/statistics.md.

Every seed classifies the same images. A value y(s, i) of seed s and image i is mean + seed(s) + image(i) + rest(s, i),
with independent, centred effects; the mean over S seeds and I images has the variance

    var(seed) / S + var(image) / I + var(rest) / (S I)

which `mean_squares` estimates and `squared_half_width` turns into an interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from cnnbench.analysis.statistics import (
    LEVEL,
    Interval,
    mcnemar,
    proportion_interval,
    quantile_of_normal,
    quantile_of_t,
)

LEAST_SEEDS = 3
"""Fewest seeds for an interval of an accuracy. Two have one degree of freedom: 12.7 standard errors."""
FEW_SEEDS = 3
"""Up to here the bound of Banerjee alone: the degrees of freedom of Satterthwaite cannot be estimated."""
ADDED_IMAGES = 4
"""On which all seeds agree, in the spread over images of an accuracy: as many as Agresti and Coull (1998) add."""

LEAST_P = 1e-12
"""Smaller p-values are given as this."""


@dataclass(frozen=True)
class MeanSquares:
    """The analysis of variance of `(S, I)` values, a row per seed and a column per image."""

    seeds: float
    """I times the variance of the row means; its expectation is I var(seed) + var(rest)."""
    images: float
    """S times the variance of the column means; its expectation is S var(image) + var(rest)."""
    rest: float
    """What rows and columns leave; 0 with one seed, where it is part of `images`."""
    rows: int
    columns: int

    @property
    def images_alone(self) -> float:
        """`images` without the part of `rest` that it holds; not below 0."""
        return max(self.images - self.rest, 0.0)


def mean_squares(values: np.ndarray) -> MeanSquares:
    """The mean squares of `(S, I)` values; S at least 1, I at least 2."""
    rows, columns = values.shape
    of_rows, of_columns = (values.mean(axis=axis, dtype=np.float64) for axis in (1, 0))
    seeds = columns * float(of_rows.var(ddof=1)) if rows > 1 else 0.0
    images = rows * float(of_columns.var(ddof=1))
    whole = rows * columns * float(values.var(dtype=np.float64))
    degrees = (rows - 1) * (columns - 1)
    rest = max(whole - (rows - 1) * seeds - (columns - 1) * images, 0.0) / degrees if degrees else 0.0
    return MeanSquares(seeds, images, rest, rows, columns)


def squared_half_width(squares: MeanSquares, level: float = LEVEL) -> float:
    """The square of half the interval of the mean, for new seeds and new images.

    The variance of the mean is v = v_S + v_I with v_S = MS_seeds / (S I) on S - 1 degrees of freedom and
    v_I = (MS_images - MS_rest) / (S I), cut at 0, on I - 1. Banerjee's bound, t(S-1)^2 v_S + t(I-1)^2 v_I, covers at
    least 95 % whatever the variances (1960, Sankhya 22). Satterthwaite's t(d)^2 v, with d = (S - 1) (v / v_S)^2 as
    Hillis has it for readers and cases (2007, doi:10.1002/sim.2532), is narrower and covers less. Up to three seeds
    the first is taken, from four the mean of both. It is never less than t(I-1)^2 MS_images / (S I): the seeds of a
    lucky draw agree by chance, which says nothing of the images.
    """
    count = squares.rows * squares.columns
    of_images = quantile_of_t(squares.columns - 1, level) ** 2
    least = of_images * squares.images / count
    if squares.rows == 1:
        return least
    seeds, images = squares.seeds / count, squares.images_alone / count
    result = quantile_of_t(squares.rows - 1, level) ** 2 * seeds + of_images * images
    if squares.rows > FEW_SEEDS and seeds > 0:
        degrees = min((squares.rows - 1) * ((seeds + images) / seeds) ** 2, squares.columns - 1)
        result = (result + quantile_of_t(degrees, level) ** 2 * (seeds + images)) / 2
    return max(result, least)


def accuracy_interval(correct: np.ndarray) -> Interval | None:
    """The 95 % interval of an architecture's accuracy, for new seeds and new images; None for fewer than three seeds.

    Wilson's interval, of as many images as would have the variance of the crossed model: it stays within 0 and 1 and
    follows the skew of few errors (Franco et al. 2019, doi:10.1093/jssam/smy019). Few errors show little of how much
    seeds agree on an image, so four images on which all agree are added to those that not every seed gets right.

    Args:
        correct: `(seeds, images)` bool; the images are the same in all rows.
    """
    seeds, images = correct.shape
    if seeds < LEAST_SEEDS:
        return None
    accuracy = float(correct.mean())
    variance = accuracy * (1 - accuracy)
    if variance == 0:
        return proportion_interval(accuracy, images)
    squares = mean_squares(correct)
    informative = int((~correct.all(axis=0)).sum())
    agreement = squares.images / seeds / variance  # 1 where all seeds agree on every image
    shrunk = (agreement * informative + ADDED_IMAGES) / (informative + ADDED_IMAGES)
    z2 = quantile_of_normal() ** 2
    square = max(squared_half_width(squares), z2 * shrunk * variance / images)
    return proportion_interval(accuracy, z2 * variance / square)


@dataclass(frozen=True)
class Difference:
    """Accuracy of a minus that of b, with its 95 % interval, in fractions of 1."""

    mean: float
    low: float
    high: float
    seeds: int
    """With one, the interval covers other images only, not another training."""
    images: int
    p: float
    """Below 0.05 exactly where the interval excludes 0: that of McNemar's exact test with one seed, else the larger of
    the crossed model's, the smallest level at which its interval excludes 0, and `sign_flip_p`."""

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
        if self.seeds > 1:
            return f"{result}; {self.seeds} seeds, {self.images:,} images"
        return (
            f"of these two trained networks: {result}; McNemar p {self.p:.2g}, {self.images:,} images, one seed: "
            "another training may differ"
        )


def _points(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:.2f} points (95 % interval {low:.2f} to {high:.2f})"


def paired_difference(correct_a: np.ndarray, correct_b: np.ndarray) -> Difference:
    """How much better a is than b, for other seeds and other images than these.

    With several seeds the interval is `squared_half_width` of the differences; it reaches 0 where `sign_flip_p` shows
    no difference. With one it is about these two trained networks on other images, and the hull of two: Student's t
    over the images, and what McNemar's exact test allows. Seeds that agree on every image have that of one.

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
    if seeds > 1 and (differences == differences[0]).all():  # no seed tells more than one of them
        return replace(paired_difference(correct_a[:1], correct_b[:1]), seeds=seeds)
    squares = mean_squares(differences)
    mean, half = float(differences.mean()), squared_half_width(squares) ** 0.5
    if not differences.any():  # of one seed
        half = 1 - ((1 - LEVEL) / 2) ** (1 / images)  # Clopper and Pearson: none of the images tells them apart
    if seeds > 1:
        p = max(_p_value(mean, squares), sign_flip_p(differences.sum(axis=0)))
        nearest = 0.0 if p >= 1 - LEVEL else mean
        return Difference(mean, min(mean - half, nearest), max(mean + half, nearest), seeds, images, p)
    test = mcnemar(correct_a[0], correct_b[0])
    low, high = ((test.only_a + test.only_b) / images * (2 * share - 1) for share in test.share)
    return Difference(mean, min(mean - half, low), max(mean + half, high), seeds, images, test.p)


def sign_flip_p(sums: np.ndarray) -> float:
    """The exact two-sided p-value of the sum of `(images,)` whole numbers, if each were as likely with the other sign.

    The randomisation test of Fisher (1935, The Design of Experiments, 21) over images. An image's number is by how
    many more seeds of a than of b it is classified correctly. For one seed, and for seeds that agree, it is McNemar's
    exact test: few images that tell two networks apart show little, however often both were trained.
    """
    sizes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    total = int(sizes @ counts)
    angles = np.pi * np.arange(total + 1) / (total + 1)
    transform = np.exp(-1j * total * angles)  # of the distribution of the sum of the positive ones, 0 to `total`
    for size, count in zip(sizes, counts, strict=True):
        transform *= np.cos(size * angles) ** count
    positive = int(sums[sums > 0].sum())
    tail = np.fft.ifft(transform).real[max(positive, total - positive) :]
    return min(1.0, 2 * max(float(tail.sum()), 0.0))


def _p_value(mean: float, squares: MeanSquares) -> float:
    """The share below which no level shows the mean; `LEAST_P` where it is smaller than that."""
    from scipy.optimize import brentq

    def excess(exponent: float) -> float:
        return mean**2 - squared_half_width(squares, 1 - math.exp(exponent))

    if mean == 0:
        return 1.0
    least = math.log(LEAST_P)
    return LEAST_P if excess(least) >= 0 else math.exp(brentq(excess, least, -1e-12))
