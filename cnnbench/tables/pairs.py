"""All pairs of networks on the same test images: which can be told apart, with the number of pairs allowed for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from cnnbench.tables.columns import Column
from cnnbench.tables.gather import Run, require_same_labels, scored_predictions
from cnnbench.tables.text import percent_digits, plural

if TYPE_CHECKING:
    from cnnbench.analysis.confidence import Predictions
    from cnnbench.analysis.crossed import Difference

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Pair:
    """Two networks, their difference, and its p-value among all pairs."""

    a: str
    """The more accurate one."""
    b: str
    difference: Difference
    p_holm: float
    """Adjusted by Holm's method over every pair of the same test images."""

    @property
    def told_apart(self) -> bool:
        return self.p_holm < SIGNIFICANCE


def compare_all(networks: Mapping[str, Sequence[Run]]) -> tuple[list[Pair], list[str]]:
    """Every pair of networks, over the tested seeds that both have.

    All pairs are adjusted together, so that the pairs of the best are allowed for, whichever that turns out to be: the
    best of several is chosen by the same test images.

    Args:
        networks: Runs by name, tested on the same images; the most accurate first.

    Returns:
        The pairs, those of the first network first, and the names that have no tested run with predictions.

    Raises:
        CnnbenchError: Predictions are damaged, or not the ones that were scored (exit 3).
    """
    from cnnbench.analysis.crossed import paired_difference
    from cnnbench.analysis.statistics import holm

    answers = {name: _predictions_by_seed(runs) for name, runs in networks.items()}
    differences: list[tuple[str, str, Difference]] = []
    for a, b in combinations([name for name, seeds in answers.items() if seeds], 2):
        common = sorted(answers[a].keys() & answers[b].keys())
        if common:
            require_same_labels(f"{a} and {b}", {seed: (answers[a][seed], answers[b][seed]) for seed in common})
            stacked = (np.stack([answers[name][seed].correct for seed in common]) for name in (a, b))
            differences.append((a, b, paired_difference(*stacked)))
    adjusted = holm([difference.p for _, _, difference in differences])
    pairs = [Pair(*compared, p) for compared, p in zip(differences, adjusted, strict=True)]
    return pairs, [name for name, seeds in answers.items() if not seeds]


def _predictions_by_seed(runs: Sequence[Run]) -> dict[int, Predictions]:
    return {run.record.seed: scored_predictions(run) for run in runs if run.record.test and run.predictions.exists()}


def best_sentence(pairs: Sequence[Pair]) -> str:
    """Which networks the most accurate one is better than, and from which it cannot be told apart."""
    best = pairs[0].a
    of_best = [pair for pair in pairs if pair.a == best]
    better = [pair.b for pair in of_best if pair.told_apart and pair.difference.mean > 0]
    same = [pair.b for pair in of_best if pair.b not in better]
    single = any(pair.difference.seeds == 1 for pair in of_best)
    parts = [f"is better than {', '.join(better)}"] if better else []
    parts += [f"cannot be told apart from {', '.join(same)}"] if same else []
    note = "; with one seed this is about these trained networks" if single else ""
    return f"{best} {' and '.join(parts)} (Holm, {plural(len(pairs), 'pair')}{note})"


PAIR_COLUMNS = [
    Column("a", "network"),
    Column("b", "compared with"),
    Column("mean", "difference", percent_digits, unit="points", right=True, read=lambda pair: pair.difference.mean),
    Column("low", "95 % interval from", percent_digits, unit="points", right=True, read=lambda p: p.difference.low),
    Column("high", "to", percent_digits, unit="points", right=True, read=lambda pair: pair.difference.high),
    Column("seeds", "seeds", right=True, read=lambda pair: pair.difference.seeds),
    Column("images", "images", right=True, read=lambda pair: pair.difference.images),
    Column("p", "p", "{:.2g}".format, right=True, read=lambda pair: pair.difference.p),
    Column("p_holm", "p among all pairs", "{:.2g}".format, right=True),
    Column("told_apart", "told apart", lambda value: "yes" if value else "no"),
]
"""The interval is of the pair alone; `told_apart` allows for all pairs."""
