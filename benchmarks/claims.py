"""What is claimed of one seed, of the best of several networks, of a limit of accuracy, and of calibration, where the
truth is simulated.

    python benchmarks/claims.py [--replicates 5000] [--only one-seed,best,limit,ece]

The worlds are those of `coverage.py`. The best of several and calibration take a fifth of the
replicates.
"""

import argparse
import sys
from dataclasses import replace
from itertools import combinations, product
from math import sqrt

import numpy as np
from coverage import IMAGES, SEED, WORLDS, Rows, World, percent_with_error, show

from cnnbench.analysis.calibration import calibration_error
from cnnbench.analysis.confidence import expected_calibration_error
from cnnbench.analysis.crossed import mean_squares, paired_difference, squared_half_width
from cnnbench.analysis.statistics import holm, mcnemar
from cnnbench.tables.candidates import Candidate, Score
from cnnbench.tables.choose import choose_file
from cnnbench.tables.limits import Limits
from cnnbench.tables.rows import Row


def one_seed_rows(world: World, replicates: int) -> Rows:
    """Two networks of one seed each: what is said of these two networks, and what was said of their architectures."""
    random = np.random.default_rng([SEED, 1, *world.name.encode()])
    effects = np.linspace(-6, 6, 241) * world.seed
    curve = [world.accuracy_of(effect, world.noise) for effect in effects]
    rows: Rows = []
    for images in IMAGES:
        drawn = [_one_seed(world, images, random, effects, curve) for _ in range(replicates)]
        was, covers, says, against = np.mean(drawn, axis=0).tolist()
        rows.append(
            {
                "world": world.name,
                "images": f"{images:,}",
                "'is better' of equal architectures, before": percent_with_error(was, replicates),
                "covers the difference of these two networks": percent_with_error(covers, replicates),
                "'of these two ... is better'": percent_with_error(says, replicates),
                "against McNemar": percent_with_error(against, replicates),
            }
        )
    return rows


def _one_seed(
    world: World, images: int, random: np.random.Generator, effects: np.ndarray, curve: list[float]
) -> tuple[bool, bool, bool, bool]:
    of_seed = world.seed * random.standard_normal((2, 1))
    shape = (2, images)
    scale = np.hypot(world.network, world.noise)
    margin = (
        world.mu + world.difficulty * random.standard_t(4, images) + scale * random.standard_normal(shape) + of_seed
    )
    a, b = margin > 0
    truth = float(np.subtract(*np.interp(of_seed[:, 0], effects, curve)))
    now = paired_difference(a[None], b[None])
    was = abs(now.mean) > sqrt(squared_half_width(mean_squares(a[None].astype(np.int8) - b)))
    return was, now.low <= truth <= now.high, now.shown, now.shown != (mcnemar(a, b).p < 0.05)


def best_rows(world: World, replicates: int) -> Rows:
    """The best of equal architectures by five seeds: how often it is said to be better than any other."""
    random = np.random.default_rng([SEED, 2, *world.name.encode()])
    rows: Rows = []
    for images, networks in ((500, 5), (500, 10)):
        claims = np.zeros(3)
        for _ in range(replicates):
            right = world.draw(random, networks, seeds=5, images=images)
            order = np.argsort(-right.mean(axis=(1, 2)), kind="stable")
            pairs = list(combinations(order, 2))  # those of the best first
            p_values = [paired_difference(right[a], right[b]).p for a, b in pairs]
            of_best = p_values[: networks - 1]
            claims += [min(of_best) < 0.05, min(holm(of_best)) < 0.05, min(holm(p_values)[: networks - 1]) < 0.05]
        names = ("each pair by itself", "Holm over the best's pairs", "Holm over all pairs")
        shown = [percent_with_error(claim / replicates, replicates) for claim in claims]
        of_world: dict[str, str | int] = {"world": world.name, "images": f"{images:,}", "networks": networks}
        rows.append({**of_world, **dict(zip(names, shown, strict=True))})
    return rows


def limit_rows(world: World, replicates: int) -> Rows:
    """Networks of one true accuracy, the limit just above it: how often one of them is said to keep it."""
    random = np.random.default_rng([SEED, 4, *world.name.encode()])
    alike = replace(world, seed=0.0)  # each trained network has the accuracy of the architecture
    limits = Limits(min_accuracy=alike.accuracy + 1e-9)
    rows: Rows = []
    for images, networks in product(IMAGES, (1, 5, 12)):
        claims = np.zeros(3)
        for _ in range(replicates):
            right = alike.draw(random, networks, seeds=1, images=images).sum(axis=(1, 2))
            known = [_network(place, Score(int(count), images)) for place, count in enumerate(right)]
            alone = max(one.val.low() for one in known if one.val) >= limits.min_accuracy
            strict = choose_file(known, limits, by="lower").chosen is not None
            said = ", above the limit" in choose_file(known, limits).answer
            claims += [alone, strict, said]
        shown = [percent_with_error(claim / replicates, replicates) for claim in claims]
        of_world: dict[str, str | int] = {"world": world.name, "images": f"{images:,}", "networks": networks}
        claimed = ("each by itself", "`--by lower`", "'above the limit'")
        rows.append({**of_world, **dict(zip(claimed, shown, strict=True))})
    return rows


def _network(place: int, val: Score) -> Candidate:
    row = Row(task=f"network{place}", arch="a", dataset="d", accuracy=val.accuracy, macs=place + 1)
    return Candidate(row=row, val=val, test=val)


def of_calibration(replicates: int) -> Rows:
    """Networks of two classes that are right as often as their logits times `temperature` say: calibrated at 1."""
    random = np.random.default_rng([SEED, 3])
    rows: Rows = []
    for mean, temperature, images in product((6.0, 2.5), (1.0, 1.5, 0.7), IMAGES):

        def draw(count: int, mean: float = mean, temperature: float = temperature) -> list[np.ndarray]:
            logits = np.abs(random.normal(mean, 2, count))
            confidence = 1 / (1 + np.exp(-logits))
            wrong = random.random(count) >= 1 / (1 + np.exp(-temperature * logits))
            return [np.stack([confidence, 1 - confidence], axis=1), wrong.astype(int)]

        population = draw(2_000_000)
        truth = 0.0 if temperature == 1 else expected_calibration_error(*population)
        found = [calibration_error(*draw(images)) for _ in range(replicates)]
        rows.append(
            {
                "accuracy": f"{100 * (1 - float(population[1].mean())):.0f} %",
                "temperature": f"{temperature:g}",
                "images": f"{images:,}",
                "true ECE": f"{100 * truth:.2f}",
                "ECE": f"{100 * float(np.mean([one.error for one in found])):.2f}",
                "calibrated: mean": f"{100 * float(np.mean([one.null_mean for one in found])):.2f}",
                "interval covers": percent_with_error(
                    float(np.mean([one.low <= truth <= one.high for one in found])), replicates
                ),
                "called miscalibrated": percent_with_error(float(np.mean([one.p < 0.05 for one in found])), replicates),
            }
        )
    return rows


def main() -> int:
    """Run the simulation; prints one table a question."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=5000)
    parser.add_argument("--only", default="one-seed,best,limit,ece")
    chosen = parser.parse_args()
    only, fewer = chosen.only.split(","), chosen.replicates // 5
    if "one-seed" in only:
        rows = [row for world in WORLDS for row in one_seed_rows(world, chosen.replicates)]
        show("One seed, %", rows)
    if "best" in only:
        rows = [row for world in WORLDS for row in best_rows(world, fewer)]
        show("The best of equal architectures is said to be better than another, %", rows)
    if "limit" in only:
        rows = [row for world in WORLDS for row in limit_rows(world, chosen.replicates)]
        show("A limit of accuracy that no network keeps is said to be shown, %", rows)
    if "ece" in only:
        show("Calibration error, %", of_calibration(fewer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
