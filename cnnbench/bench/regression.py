"""Slower or not: two bundles in one interleaved measurement, or two records of one machine.

Processes of the same bundle differ by more than their samples tell, so intervals are between processes: Student's t
over one value per process. Within one measurement a difference counts only if fresh processes show it again.
docs/statistics.md has false alarms and power.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cnnbench.bench import interleave, plan, record
from cnnbench.bench.interleave import Budget, CaseSamples, Progress, silent
from cnnbench.bench.percentiles import CONFIDENCE, percentile
from cnnbench.bench.plan import DEFAULT_OPTIONS, Case, LatencyOptions, Setup
from cnnbench.bench.record import LatencyCase, LatencyRecord
from cnnbench.types import CnnbenchError, Exit

ROUNDS = 20
"""Slices of a case: a median over them forgives bursts of a few."""
SMALLEST_EFFECT = 0.02
"""Below 2 % the layout of memory, which differs from process to process, decides (Mytkowicz et al. 2009)."""
LARGEST_UNSEEN = 0.10
"""Where a slowdown of more than this is not excluded, the answer is that it cannot be told."""
POWER = 0.9
"""Power of one measurement at the smallest slowdown that it claims to see; seen twice, that is 0.81."""
LEAST_ROUNDS = 10
"""However long a call takes."""
LARGEST_SAMPLES = 200_000
"""Most samples of one case, all its processes together; enough to fill its seconds."""
PROCESSES = 4
"""Processes of each bundle; between them nothing differs but the process, so their difference is noise."""


@dataclass(frozen=True)
class Effect:
    """The times of A over those of B, from one value per process."""

    ratio: float
    low: float
    """End of the 95 % interval between processes."""
    high: float
    smallest_seen: float
    """The slowdown, as a ratio, that would have been seen in 9 of 10 such measurements."""
    p_value: float
    """Student's t between processes, two-sided."""
    processes: int
    """Processes of both together."""
    rounds: int = 0
    round_medians: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Seconds: of each round, in each process: A1, A2, ..., B1, B2, ..."""

    @property
    def slower(self) -> bool:
        """Whether A is shown to be slower than B by more than the smallest effect."""
        return self.low > 1 + SMALLEST_EFFECT

    @property
    def faster(self) -> bool:
        """Whether A is shown to be faster than B by more than the smallest effect."""
        return self.high < 1 / (1 + SMALLEST_EFFECT)

    @property
    def cannot_tell(self) -> bool:
        """Whether a slowdown beyond the largest that may go unseen is neither shown nor excluded."""
        return not self.slower and self.high > 1 + LARGEST_UNSEEN

    def __str__(self) -> str:
        return f"{self.ratio:.3f} x (95 % interval {self.low:.3f} to {self.high:.3f}, {self.processes} processes)"


@dataclass(frozen=True)
class BundleComparison:
    """The answer for one case: `regression` only if it was seen twice, with fresh processes the second time."""

    name: str
    answer: str
    regression: bool
    improvement: bool
    effects: tuple[Effect, ...]
    cannot_tell: bool = False
    """Whether no regression was shown, but one of more than `LARGEST_UNSEEN` is not excluded either."""


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
    low: float | None
    """End of the 95 % interval between processes; None where `answer` says why."""
    high: float | None
    smallest_seen: float | None
    """The slowdown that would have been seen in 9 of 10 such comparisons."""
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
        options: Its batches, its seconds per case (all processes of a bundle together), and its seed.
        progress: Receives a line whenever something begins.

    Raises:
        CnnbenchError: A backend failed (exit 6).
    """
    order = random.Random(options.seed)
    pairs = list(zip(candidates, baselines, strict=True))
    first = _effects(pairs, options, order, progress)
    differing = {case for case, effect in first.items() if effect.slower or effect.faster}
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
    """The answer from one measurement, or from two where the first saw a difference."""
    twice = len(effects) > 1
    regression = twice and all(effect.slower for effect in effects)
    improvement = twice and all(effect.faster for effect in effects)
    last = effects[-1]
    cannot_tell = not regression and last.cannot_tell
    seen = f"a slowdown from {max(effect.smallest_seen for effect in effects):.2f} x on would have been seen"
    if regression:
        answer = f"regression, seen twice: the candidate takes {last}"
    elif improvement:
        answer = f"faster, seen twice: the candidate takes {last}"
    elif cannot_tell:
        answer = f"cannot tell: the candidate takes {last}; only {seen}"
    else:
        once = "a difference was seen once, and not again: " if twice else ""
        answer = f"no regression: {once}the candidate takes {last}; {seen}"
    return BundleComparison(name, f"{name}: {answer}", regression, improvement, tuple(effects), cannot_tell)


def estimate_effect(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> Effect:
    """The effect from medians of rounds in seconds, of at least two processes of the candidate and of the baseline.

    The slices of a round lie side by side in time: the round's mean over all processes is taken off the logarithms, and
    a process is the median of what is left over its rounds (Kalibera and Jones 2013, "Rigorous benchmarking in
    reasonable time", on processes as the level that has to be repeated).
    """
    rounds = min(len(process) for process in (*a, *b))
    logs = np.log([process[:rounds] for process in (*a, *b)])
    values = np.median(logs - logs.mean(axis=0), axis=1)
    names = [f"{side}{number + 1}" for side, processes in (("A", a), ("B", b)) for number in range(len(processes))]
    medians = dict(zip(names, (list(process)[:rounds] for process in (*a, *b)), strict=True))
    return replace(_between_processes(values[: len(a)], values[len(a) :]), rounds=rounds, round_medians=medians)


def _between_processes(a: np.ndarray, b: np.ndarray) -> Effect:
    """Student's t for logarithms of times, one per process."""
    from scipy.stats import t

    degrees = len(a) + len(b) - 2
    variance = (len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)
    error = float(variance / degrees * (1 / len(a) + 1 / len(b))) ** 0.5
    middle, quantile = float(a.mean() - b.mean()), float(t.ppf((1 + CONFIDENCE) / 2, degrees))
    seen = np.log1p(SMALLEST_EFFECT) + (quantile + float(t.ppf(POWER, degrees))) * error
    p_value = 2 * float(t.sf(abs(middle) / error, degrees)) if error > 0 else float(middle == 0)
    ratio, low, high = np.exp([middle, middle - quantile * error, middle + quantile * error]).tolist()
    return Effect(ratio, low, high, float(np.exp(seen)), p_value, degrees + 2)


def _effects(
    pairs: Sequence[tuple[Setup, Setup]], options: LatencyOptions, order: random.Random, progress: Progress
) -> dict[Case, Effect]:
    """By the candidate's case: the processes of both sides, in turns."""
    setups = [setup for pair in pairs for setup in pair for _ in range(PROCESSES)]
    budget = Budget(options.seconds / PROCESSES, LARGEST_SAMPLES // PROCESSES, ROUNDS, LEAST_ROUNDS)
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

    A case is a regression only if the interval between the processes of the two records lies above the smallest effect.
    What changed on the machine between the two runs is not in it.

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
    effect, reason = _effect(new, old)
    return CaseChange(
        task=new.task,
        backend=new.backend,
        precision=new.precision,
        provider=new.provider,
        batch=new.batch,
        threads=new.threads,
        new_p50_ms=1e3 * medians[0],
        old_p50_ms=1e3 * medians[1],
        ratio=effect.ratio if effect else medians[0] / medians[1],
        low=effect.low if effect else None,
        high=effect.high if effect else None,
        smallest_seen=effect.smallest_seen if effect else None,
        answer=_answer(effect) if effect else f"no answer: {reason}",
        regression=effect is not None and effect.slower,
    )


def _effect(new: LatencyCase, old: LatencyCase) -> tuple[Effect | None, str]:
    """The effect between the processes of two records, or why there is none."""
    if min(len(new.process_medians), len(old.process_medians)) < 2:
        return None, "noise needs at least two processes in each record"
    reason = next((figure.reason for case in (new, old) if (figure := percentile(case.seconds, 50)).reason), "")
    if reason:
        return None, reason
    return _between_processes(np.log(new.process_medians), np.log(old.process_medians)), ""


def _answer(effect: Effect) -> str:
    if effect.slower:
        return "regression"
    if effect.faster:
        return "faster"
    return "cannot tell" if effect.cannot_tell else "no regression"


def _notes(new: LatencyRecord, old: LatencyRecord) -> tuple[str, ...]:
    """Packages whose versions differ."""
    return tuple(
        f"{name}: {new.packages.get(name, 'none')}, baseline {old.packages.get(name, 'none')}"
        for name in sorted({*new.packages, *old.packages})
        if new.packages.get(name) != old.packages.get(name)
    )
