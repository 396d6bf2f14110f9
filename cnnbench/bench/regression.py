"""Slower or not: two bundles in one interleaved measurement, or two records across time.

A difference counts only above what the machine shows between two processes of the same thing, and, within one
measurement, only if fresh processes show it again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cnnbench import records
from cnnbench.bench import interleave
from cnnbench.bench.interleave import Budget, Cell, Say, Taken
from cnnbench.bench.percentiles import CONFIDENCE, percentile
from cnnbench.bench.processes import Setup
from cnnbench.types import CnnbenchError, Exit

SIGNIFICANCE = 0.01
ROUNDS = 20
"""Slices of a cell: a rank test needs some, and a median over them forgives bursts of a few."""
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
    """One interleaved measurement of candidate A against baseline B. Ratios are of times, A over B."""

    ratio: float
    low: float
    high: float
    floor: float
    """What A against A and B against B may show at the same confidence, as a ratio above 1."""
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


@dataclass(frozen=True)
class Verdict:
    """The answer for one cell: `regression` only if it was seen twice, with fresh processes the second time."""

    name: str
    answer: str
    regression: bool
    improvement: bool
    effects: tuple[Effect, ...]


@dataclass(frozen=True)
class Judged:
    """Two records held against each other: rows for a table, whether one is a regression, and what else differs."""

    rows: list[dict[str, Any]]
    regression: bool
    notes: list[str] = field(default_factory=list)


def gate(
    candidates: Sequence[Setup],
    baselines: Sequence[Setup],
    batches: Sequence[int],
    seconds: float,
    seed: int,
    say: Say,
) -> list[Verdict]:
    """Measure each candidate against its baseline, and what differs a second time.

    Args:
        candidates: What may have become slower.
        baselines: What each of them is held against.
        batches: Images in a call.
        seconds: Time in calls, for each process and batch size.
        seed: Of the order of turns.
        say: Told how it goes.

    Raises:
        CnnbenchError: An engine failed: nothing can be said (exit 6).
    """
    order, budget = random.Random(seed), Budget(seconds, LARGEST_SAMPLES, ROUNDS, LEAST_ROUNDS)
    pairs = list(zip(candidates, baselines, strict=True))
    first = _effects(pairs, batches, budget, order, say)
    seen = {cell: effect for cell, effect in first.items() if _differs([effect])}
    if not seen:
        return [verdict(cell.name, [effect]) for cell, effect in first.items()]
    say(f"measuring again what differs, with fresh processes: {', '.join(cell.name for cell in seen)}")
    again = _effects(
        [pair for pair in pairs if any(cell.setup == pair[0] for cell in seen)],
        sorted({cell.batch for cell in seen}),
        budget,
        order,
        say,
    )
    return [verdict(cell.name, [effect, again[cell]] if cell in seen else [effect]) for cell, effect in first.items()]


def verdict(name: str, effects: Sequence[Effect]) -> Verdict:
    """The answer from one measurement, or from two where the first saw a difference.

    Both are held against the larger noise floor of the two: a quiet minute does not make the other one quieter.
    """
    floor = max(effect.floor for effect in effects)
    twice = len(effects) > 1
    regression = twice and all(effect.slower(floor) for effect in effects)
    improvement = twice and all(effect.faster(floor) for effect in effects)
    last = effects[-1]
    figures = (
        f"{last.ratio:.3f} x ({last.low:.3f} to {last.high:.3f}), noise floor {floor:.3f} x, "
        f"Mann-Whitney p {last.p_value:.2g}"
    )
    if regression:
        answer = f"{name}: regression, seen twice: the candidate takes {figures}"
    elif improvement:
        answer = f"{name}: faster, seen twice: the candidate takes {figures}"
    elif twice:
        answer = f"{name}: no regression: a difference was seen once, and not again: {figures}"
    else:
        answer = f"{name}: no regression: the candidate takes {figures}"
    return Verdict(name, answer, regression, improvement, tuple(effects))


def effect(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], seed: int = 0) -> Effect:
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


def _differs(effects: Sequence[Effect]) -> bool:
    return all(one.slower(one.floor) or one.faster(one.floor) for one in effects)


def _effects(
    pairs: Sequence[tuple[Setup, Setup]], batches: Sequence[int], budget: Budget, order: random.Random, say: Say
) -> dict[Cell, Effect]:
    """By the candidate's cell."""
    setups = [setup for pair in pairs for setup in pair for _ in range(PROCESSES)]
    taken = interleave.measured(setups, batches, budget, order, say)
    for setup, by_batch in zip(setups, taken, strict=True):
        for batch, one in by_batch.items():
            if one.failed:
                raise CnnbenchError(f"{Cell(setup, batch).name} of {setup.bundle}: {one.failed}", Exit.ENVIRONMENT)
    found = {}
    for index, (candidate, _) in enumerate(pairs):
        ours = taken[2 * PROCESSES * index : 2 * PROCESSES * (index + 1)]
        for batch in batches:
            medians = [_medians(by_batch[batch]) for by_batch in ours]
            found[Cell(candidate, batch)] = effect(medians[:PROCESSES], medians[PROCESSES:])
    return found


def _medians(taken: Taken) -> list[float]:
    return [float(np.median(slice)) for slice in taken.slices]


def baseline(new: Path, old: Path) -> Judged:
    """Hold the cells of one record against the same cells of an older one.

    A cell is a regression only if its median is above the old one by more than processes of one record differ among
    themselves, and the intervals of the medians do not overlap.

    Raises:
        CnnbenchError: The machines differ (exit 6), a file cannot be read, or they have no cell in common (exit 3).
    """
    contents = [records.read_json(path) for path in (new, old)]
    machines = [machine(content, path) for content, path in zip(contents, (new, old), strict=True)]
    if machines[0] != machines[1]:
        told = f"{new} is of {_told(machines[0])}, {old} of {_told(machines[1])}"
        raise CnnbenchError(f"{told}: latencies of two machines are not compared", Exit.ENVIRONMENT)
    cells = [_cells(content, path) for content, path in zip(contents, (new, old), strict=True)]
    common = [key for key in cells[0] if key in cells[1]]
    if not common:
        raise CnnbenchError(f"{new} and {old} have no cell in common: the same task, engine and batch", Exit.DATA)
    rows = [_row(key, cells[0][key], cells[1][key]) for key in common]
    return Judged(rows, any(row["verdict"] == "regression" for row in rows), _notes(contents[0], contents[1]))


KEY = ("task", "runtime", "precision", "provider", "batch", "threads")


def machine(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """What makes a machine another: processor, number of cores, system, GPUs.

    Raises:
        CnnbenchError: The record does not tell (exit 3).
    """
    info = content.get("machine_info")
    cpu = info.get("cpu") if isinstance(info, dict) else None
    if not isinstance(info, dict) or not isinstance(cpu, dict):
        raise CnnbenchError(
            f"{path} does not tell its machine: expected a record that `cnnbench bench` wrote", Exit.DATA
        )
    return {
        "cpu": cpu.get("brand_raw") or info.get("machine"),
        "cores": cpu.get("count"),
        "system": info.get("system"),
        "gpus": info.get("gpus"),
    }


def _told(machine: dict[str, Any]) -> str:
    return ", ".join(f"{value} cores" if key == "cores" else str(value) for key, value in machine.items() if value)


def _cells(content: dict[str, Any], path: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    try:
        found = {
            tuple({"precision": "fp32", **case["extra_info"]}[key] for key in KEY): {
                "seconds": [float(call) for call in case["stats"]["data"]],
                "medians": [process["median_seconds"] for process in case["extra_info"].get("processes", [])],
            }
            for case in content["benchmarks"]
            if "model_sha256" in case["extra_info"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise CnnbenchError(f"{path} is not a record of latencies: {type(error).__name__} {error}", Exit.DATA) from None
    if not found or not all(cell["seconds"] for cell in found.values()):
        raise CnnbenchError(f"{path} holds no latencies; `cnnbench bench` writes them", Exit.DATA)
    return found


def _row(key: tuple[Any, ...], new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    intervals = [percentile(cell["seconds"], 50, sum(cell["seconds"])) for cell in (new, old)]
    medians = [float(np.median(cell["seconds"])) for cell in (new, old)]
    noise = _noise(new, old)
    return {
        **dict(zip(KEY, key, strict=True)),
        "new_p50_ms": 1e3 * medians[0],
        "old_p50_ms": 1e3 * medians[1],
        "ratio": medians[0] / medians[1],
        "noise": noise,
        "verdict": _answer(medians, intervals, noise),
    }


def _noise(new: dict[str, Any], old: dict[str, Any]) -> float | None:
    """The largest share by which processes of one record differ; None where one of them has a single process."""
    if min(len(new["medians"]), len(old["medians"])) < 2:
        return None
    return float(max(max(cell["medians"]) / min(cell["medians"]) - 1 for cell in (new, old)))


def _answer(medians: list[float], intervals: list[Any], noise: float | None) -> str:
    if noise is None:
        return "not judged: noise needs at least two processes in each record"
    too_few = next((interval.reason for interval in intervals if interval.reason), "")
    if too_few:
        return f"not judged: {too_few}"
    new, old = intervals
    if medians[0] > medians[1] * (1 + noise) and new.low_seconds > old.high_seconds:
        return "regression"
    if medians[1] > medians[0] * (1 + noise) and old.low_seconds > new.high_seconds:
        return "faster"
    return "no difference above the noise"


def _notes(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    """Packages whose versions differ."""
    ours, theirs = (content["machine_info"].get("packages", {}) for content in (new, old))
    return [
        f"{name}: {ours.get(name, 'none')}, baseline {theirs.get(name, 'none')}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]
