"""Slower or not: two bundles in one interleaved measurement, or two records of one machine.

A difference counts only above what two processes of the same bundle differ by on this machine, and, within one
measurement, only if fresh processes show it again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cnnbench.bench import interleave, plan, record
from cnnbench.bench.interleave import Budget, CaseSamples, Progress, silent
from cnnbench.bench.percentiles import CONFIDENCE, Percentile, percentile
from cnnbench.bench.plan import DEFAULT_OPTIONS, Case, LatencyOptions, Setup
from cnnbench.bench.record import LatencyCase, LatencyRecord
from cnnbench.types import CnnbenchError, Exit

SIGNIFICANCE = 0.01
ROUNDS = 20
"""Slices of a case: a rank test needs some, and a median over them forgives bursts of a few."""
SMALLEST_EFFECT = 0.02
"""Below 2 % the layout of memory, which differs from process to process, decides (Mytkowicz et al. 2009)."""
LEAST_ROUNDS = 10
"""However long a call takes. Below 5 no difference can reach the significance: 2 of 252 orders are extreme."""
LARGEST_SAMPLES = 200_000
"""Of one process; enough to fill its seconds."""
PROCESSES = 2
"""Of each bundle; between them nothing differs but the process, so their difference is noise."""
NAMES = ("A", "A again", "B", "B again")


@dataclass(frozen=True)
class Effect:
    """One interleaved measurement of candidate A and baseline B. Ratios are of times, A over B."""

    ratio: float
    low: float
    high: float
    floor: float
    """What the processes of A, and those of B, may differ by at the same confidence, as a ratio above 1."""
    p_value: float
    """Mann-Whitney U over the medians of rounds; samples within a round are not independent."""
    rounds: int
    round_medians: dict[str, list[float]]
    """Seconds: of each round, in each process: A, A again, B, B again."""

    def slower(self, floor: float) -> bool:
        """Whether A is slower than B by more than the noise floor."""
        return self.low > floor and self.p_value < SIGNIFICANCE

    def faster(self, floor: float) -> bool:
        """Whether A is faster than B by more than the noise floor."""
        return self.high < 1 / floor and self.p_value < SIGNIFICANCE

    def __str__(self) -> str:
        return f"{self.ratio:.3f} x ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class BundleComparison:
    """The answer for one case: `regression` only if it was seen twice, with fresh processes the second time."""

    name: str
    answer: str
    regression: bool
    improvement: bool
    effects: tuple[Effect, ...]


@dataclass(frozen=True)
class CaseChange:
    """One case of two records: median times in ms, new over old as `ratio`."""

    task: str
    backend: str
    precision: str
    provider: str
    batch: int
    threads: int
    new_p50_ms: float
    old_p50_ms: float
    ratio: float
    noise: float | None
    """The largest share by which processes of one record differ; None where a record has a single process."""
    answer: str
    regression: bool


@dataclass(frozen=True)
class RecordComparison:
    """The cases that two records have in common, and the packages whose versions differ."""

    rows: tuple[CaseChange, ...]
    notes: tuple[str, ...]

    @property
    def regression(self) -> bool:
        return any(row.regression for row in self.rows)


def compare_bundles(
    candidate: str | Path,
    baseline: str | Path,
    *,
    options: LatencyOptions = DEFAULT_OPTIONS,
    progress: Progress = silent,
) -> list[BundleComparison]:
    """Whether a bundle is slower than another, per case.

    Raises:
        CnnbenchError: See `plan.setups`; a path holds several bundles (exit 2); a backend failed (exit 6).
    """
    candidates, baselines = plan.setups([candidate], options), plan.setups([baseline], options)
    for path, setups in ((candidate, candidates), (baseline, baselines)):
        if len({setup.bundle for setup in setups}) > 1:
            raise CnnbenchError(f"--against compares two bundles, but {path} holds several")
    return compare_setups(candidates, baselines, options=options, progress=progress)


def compare_setups(
    candidates: Sequence[Setup], baselines: Sequence[Setup], *, options: LatencyOptions, progress: Progress = silent
) -> list[BundleComparison]:
    """Measure each candidate beside its baseline, and what differs a second time.

    Args:
        candidates: What may have become slower.
        baselines: As many.
        options: Its batches, its seconds per process and batch size, and its seed.
        progress: Receives a line whenever something begins.

    Raises:
        CnnbenchError: A backend failed (exit 6).
    """
    order = random.Random(options.seed)
    pairs = list(zip(candidates, baselines, strict=True))
    first = _effects(pairs, options, order, progress)
    differing = {case for case, effect in first.items() if effect.slower(effect.floor) or effect.faster(effect.floor)}
    second: dict[Case, Effect] = {}
    if differing:
        names = ", ".join(case.name for case in first if case in differing)
        progress(f"measuring again what differs, with fresh processes: {names}")
        again = [pair for pair in pairs if any(case.setup == pair[0] for case in differing)]
        batches = {case.batch for case in differing}
        second = _effects(again, replace(options, batches=sorted(batches)), order, progress)
    return [
        conclude(case.name, [effect, second[case]] if case in differing else [effect]) for case, effect in first.items()
    ]


def conclude(name: str, effects: Sequence[Effect]) -> BundleComparison:
    """The answer from one measurement, or from two where the first saw a difference.

    The larger noise floor of the two counts for both: a quiet minute does not make the other one quieter.
    """
    floor = max(effect.floor for effect in effects)
    twice = len(effects) > 1
    regression = twice and all(effect.slower(floor) for effect in effects)
    improvement = twice and all(effect.faster(floor) for effect in effects)
    last = effects[-1]
    figures = f"{last}, noise floor {floor:.3f} x, Mann-Whitney p {last.p_value:.2g}"
    if regression:
        answer = f"{name}: regression, seen twice: the candidate takes {figures}"
    elif improvement:
        answer = f"{name}: faster, seen twice: the candidate takes {figures}"
    elif twice:
        answer = f"{name}: no regression: a difference was seen once, and not again: {figures}"
    else:
        answer = f"{name}: no regression: the candidate takes {figures}"
    return BundleComparison(name, answer, regression, improvement, tuple(effects))


def estimate_effect(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], *, seed: int = 0) -> Effect:
    """The effect from medians of rounds in seconds: two processes of the candidate, two of the baseline.

    Rounds are paired, since their slices lie side by side in time: within each, the log ratio of the two processes'
    mean is taken, and the median of these over the rounds, with a bootstrap interval over rounds (Kalibera and Jones
    2013, "Rigorous benchmarking in reasonable time").
    """
    from scipy.stats import mannwhitneyu

    rounds = min(len(process) for process in (*a, *b))
    log_a, log_b = (np.log([process[:rounds] for process in side]) for side in (a, b))
    middle, low, high = _median_interval(log_a.mean(0) - log_b.mean(0), seed)
    noise = [abs(bound) for side in (log_a, log_b) for bound in _median_interval(side[0] - side[1], seed)[1:]]
    return Effect(
        ratio=float(np.exp(middle)),
        low=float(np.exp(low)),
        high=float(np.exp(high)),
        floor=max(float(np.exp(max(noise))), 1 + SMALLEST_EFFECT),
        p_value=float(mannwhitneyu(log_a.mean(0), log_b.mean(0)).pvalue),
        rounds=rounds,
        round_medians=dict(zip(NAMES, (list(process)[:rounds] for process in (*a, *b)), strict=True)),
    )


def _median_interval(ratios: np.ndarray, seed: int) -> tuple[float, float, float]:
    """The median of log ratios `(rounds,)`, and its 95 % bootstrap interval."""
    from scipy.stats import bootstrap

    middle = float(np.median(ratios))
    if len(ratios) < 2 or np.ptp(ratios) == 0:
        return middle, middle, middle
    interval = bootstrap(
        (ratios,), np.median, confidence_level=CONFIDENCE, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return middle, float(interval.low), float(interval.high)


def _effects(
    pairs: Sequence[tuple[Setup, Setup]], options: LatencyOptions, order: random.Random, progress: Progress
) -> dict[Case, Effect]:
    """By the candidate's case: two processes of each side, in turns."""
    setups = [setup for pair in pairs for setup in pair for _ in range(PROCESSES)]
    budget = Budget(options.seconds, LARGEST_SAMPLES, ROUNDS, LEAST_ROUNDS)
    measured = interleave.measure_in_turns(setups, options.batches, budget=budget, order=order, progress=progress)
    effects = {}
    for first in range(0, len(measured), 2 * PROCESSES):
        for processes in zip(*measured[first : first + 2 * PROCESSES], strict=True):  # of one batch size
            medians = [_round_medians(samples) for samples in processes]
            effects[processes[0].case] = estimate_effect(medians[:PROCESSES], medians[PROCESSES:])
    return effects


def _round_medians(samples: CaseSamples) -> list[float]:
    if samples.failure:
        case = samples.case
        raise CnnbenchError(f"{case.name} of {case.setup.bundle}: {samples.failure}", Exit.ENVIRONMENT)
    return [float(np.median(slice.seconds)) for slice in samples.slices]


def compare_records(new: str | Path, old: str | Path) -> RecordComparison:
    """Compare the cases of a record with the same cases of an older one.

    A case is a regression only if its median is above the old one by more than processes of one record differ among
    themselves, and the intervals of the medians do not overlap.

    Raises:
        CnnbenchError: The machines differ (exit 6), a file cannot be read, or they have no case in common (exit 3).
    """
    now, before = record.read_record(Path(new)), record.read_record(Path(old))
    for path, machine in ((new, now.machine), (old, before.machine)):
        if machine is None:
            raise CnnbenchError(
                f"{path} does not describe its machine: expected a record that `cnnbench bench` wrote", Exit.DATA
            )
    if now.machine != before.machine:
        raise CnnbenchError(
            f"{new} is of {now.machine}, {old} of {before.machine}: latencies of two machines are not compared",
            Exit.ENVIRONMENT,
        )
    old_cases = {_key(case): case for case in before.cases}
    new_cases = {_key(case): case for case in now.cases}
    rows = tuple(_change(case, old_cases[key]) for key, case in new_cases.items() if key in old_cases)
    if not rows:
        raise CnnbenchError(
            f"{new} and {old} have no case in common: the same task, backend, precision, provider, batch and threads",
            Exit.DATA,
        )
    return RecordComparison(rows, _notes(now, before))


def _key(case: LatencyCase) -> tuple[str | int, ...]:
    return case.task, case.backend, case.precision, case.provider, case.batch, case.threads


def _change(new: LatencyCase, old: LatencyCase) -> CaseChange:
    medians = [float(np.median(case.seconds)) for case in (new, old)]
    noise = _noise(new, old)
    answer, is_regression = _answer(medians, [percentile(case.seconds, 50) for case in (new, old)], noise)
    return CaseChange(
        task=new.task,
        backend=new.backend,
        precision=new.precision,
        provider=new.provider,
        batch=new.batch,
        threads=new.threads,
        new_p50_ms=1e3 * medians[0],
        old_p50_ms=1e3 * medians[1],
        ratio=medians[0] / medians[1],
        noise=noise,
        answer=answer,
        regression=is_regression,
    )


def _noise(new: LatencyCase, old: LatencyCase) -> float | None:
    if min(len(new.process_medians), len(old.process_medians)) < 2:
        return None
    return max(max(case.process_medians) / min(case.process_medians) - 1 for case in (new, old))


def _answer(medians: Sequence[float], intervals: Sequence[Percentile], noise: float | None) -> tuple[str, bool]:
    """The answer in words, and whether it is a regression."""
    if noise is None:
        return "no answer: noise needs at least two processes in each record", False
    new, old = intervals
    if new.low_seconds is None or old.low_seconds is None or new.high_seconds is None or old.high_seconds is None:
        return f"no answer: {new.reason or old.reason}", False
    if medians[0] > medians[1] * (1 + noise) and new.low_seconds > old.high_seconds:
        return "regression", True
    if medians[1] > medians[0] * (1 + noise) and old.low_seconds > new.high_seconds:
        return "faster", False
    return "no difference above the noise", False


def _notes(new: LatencyRecord, old: LatencyRecord) -> tuple[str, ...]:
    """Packages whose versions differ."""
    return tuple(
        f"{name}: {new.packages.get(name, 'none')}, baseline {old.packages.get(name, 'none')}"
        for name in sorted({*new.packages, *old.packages})
        if new.packages.get(name) != old.packages.get(name)
    )
