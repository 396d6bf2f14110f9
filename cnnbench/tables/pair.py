"""Two tasks on the same test images: which is better, by how much, and how sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cnnbench.tables.columns import Column
from cnnbench.tables.gather import Records, Run, groups, groups_on_full_data, require_same_labels, scored_predictions
from cnnbench.tables.text import percent_digits, plural
from cnnbench.types import CnnbenchError, Exit

if TYPE_CHECKING:
    from cnnbench.analysis.crossed import Difference


@dataclass(frozen=True)
class PairedSeed:
    """One seed of both: accuracies, images that only one of them classifies correctly, and McNemar's p-value."""

    seed: int
    accuracy_a: float
    accuracy_b: float
    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True)
class PairedComparison:
    """Two tasks, seed by seed, and the difference over all seeds and images."""

    a: str
    b: str
    seeds: tuple[PairedSeed, ...]
    difference: Difference
    alone: tuple[int, ...] = ()
    """Tested seeds of one of the two, which are left out."""

    @property
    def answer(self) -> str:
        """One sentence: which is better, by how much, and what that rests on."""
        left_out = f"; left out, of one of the two alone: {plural(len(self.alone), 'seed')}" if self.alone else ""
        return f"{self.difference.sentence(self.a, self.b)}{left_out}"

    @property
    def columns(self) -> list[Column]:
        """Columns of the seeds."""
        return [
            Column("seed", "seed", right=True),
            Column("accuracy_a", self.a, percent_digits, unit="%", right=True),
            Column("accuracy_b", self.b, percent_digits, unit="%", right=True),
            Column("only_a", f"only {self.a} right", right=True),
            Column("only_b", f"only {self.b} right", right=True),
            Column("p", "McNemar p", "{:.3g}".format, right=True),
        ]


def compare_pair(gathered: Records, *, a: str, b: str) -> PairedComparison:
    """Compare two tasks or architectures image by image, over the tested seeds that both have.

    Raises:
        CnnbenchError: A name fits no task or several (exit 2); the test images differ, no seed is common to both, or
            predictions are missing (exit 3).
    """
    return compare_runs(_runs_named(gathered, a), _runs_named(gathered, b))


def compare_runs(a: Sequence[Run], b: Sequence[Run]) -> PairedComparison:
    """Compare two groups of runs; raises as `compare_pair`."""
    from cnnbench.analysis.crossed import paired_difference
    from cnnbench.analysis.statistics import mcnemar

    by_seed_a, by_seed_b = ({run.record.seed: run for run in runs if run.record.test} for runs in (a, b))
    seeds = sorted(by_seed_a.keys() & by_seed_b.keys())
    names = a[0].record.task, b[0].record.task
    both = " and ".join(names)
    if a[0].record.data.sha256 != b[0].record.data.sha256:
        raise CnnbenchError(f"{both} were tested on other images: a paired comparison needs the same", Exit.DATA)
    if not seeds:
        tested = f"{sorted(by_seed_a)} and {sorted(by_seed_b)}"
        raise CnnbenchError(f"{both} have no tested seed in common: {tested}", Exit.DATA)
    answers_a, answers_b = ([scored_predictions(by_seed[seed]) for seed in seeds] for by_seed in (by_seed_a, by_seed_b))
    require_same_labels(both, dict(zip(seeds, zip(answers_a, answers_b, strict=True), strict=True)))
    correct_a, correct_b = (np.stack([part.correct for part in answers]) for answers in (answers_a, answers_b))
    tests = [mcnemar(*correct) for correct in zip(correct_a, correct_b, strict=True)]
    per_seed = tuple(
        PairedSeed(seed, float(in_a.mean()), float(in_b.mean()), test.only_a, test.only_b, test.p)
        for seed, in_a, in_b, test in zip(seeds, correct_a, correct_b, tests, strict=True)
    )
    alone = tuple(sorted(by_seed_a.keys() ^ by_seed_b.keys()))
    return PairedComparison(*names, per_seed, paired_difference(correct_a, correct_b), alone)


def _runs_named(gathered: Records, name: str) -> list[Run]:
    """The group of runs that the name of a task or of an architecture means."""
    known = groups(gathered)
    if not known:
        raise CnnbenchError(f"--pair {name}: no runs to compare, only failures", Exit.DATA)
    of_task = [runs for runs in known if runs[0].record.task == name]
    fitting = of_task or groups_on_full_data([runs for runs in known if runs[0].record.arch == name])
    if len(fitting) == 1:
        return fitting[0]
    tasks = sorted({runs[0].record.task for runs in fitting or known})
    if not fitting:
        from cnnbench.registry import hint

        raise CnnbenchError(f"--pair {name}: {hint(name, sorted({*tasks, *(runs[0].record.arch for runs in known)}))}")
    if len(tasks) == 1:
        raise CnnbenchError(f"--pair {name} fits {len(fitting)} rows of different recipes; give the folders of one")
    raise CnnbenchError(f"--pair {name} fits several: {', '.join(tasks)}; name a task, or give --dataset")
