"""MLPerf's scenarios, by their names: SingleStream, Offline and Server (Reddi et al. 2020, arXiv:1911.02549).

They are measured as MLPerf defines them, on one engine and the golden images; they are no MLPerf submission, whose
rules ask for more queries, longer runs and the whole of its data set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cnnbench.bench.percentiles import needed, overlatency_allowed, percentile
from cnnbench.bench.processes import Engine, EngineError, Setup

Scenario = Literal["SingleStream", "Offline", "Server"]
SCENARIOS: tuple[Scenario, ...] = ("SingleStream", "Offline", "Server")
TRIAL_SECONDS = 2.0
"""Of arrivals in a trial of a rate; longer where 662 queries, which p99 needs, take longer to come."""
LARGEST_TRIAL_QUERIES = 20_000
HALVINGS = 6
"""Of the interval from nothing to what the engine can do: the rate is then known to 1.6 % of that."""


@dataclass(frozen=True)
class Outcome:
    """What an engine reached in a scenario; `value` is None where `reason` says why."""

    task: str
    engine: str
    scenario: Scenario
    value: float | None
    unit: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Trial:
    """One arrival rate, tried: how many of its queries took longer than the bound."""

    rate: float
    queries: int
    late: int

    @property
    def passed(self) -> bool:
        return overlatency_allowed(self.queries, self.late)


def single_stream(setup: Setup, seconds: Sequence[float], taken_in: float) -> Outcome:
    """The 90th percentile of single images, each sent when the one before is done.

    Args:
        setup: The engine.
        seconds: Of each call of one image.
        taken_in: Seconds of measuring.
    """
    found = percentile(seconds, 90, taken_in)
    value = None if found.seconds is None else 1e3 * found.seconds
    return Outcome(setup.task, setup.name, "SingleStream", value, "ms p90", found.reason, "batch 1")


def offline(setup: Setup, calls: dict[int, Sequence[float]]) -> Outcome:
    """Images a second where all are there from the start: at the batch size that makes the most of them.

    Args:
        setup: The engine.
        calls: Seconds of each call, by batch size.
    """
    rates = {batch: batch * len(seconds) / sum(seconds) for batch, seconds in calls.items() if seconds}
    if not rates:
        return Outcome(setup.task, setup.name, "Offline", None, "images/s", "no batch size was measured", "")
    best = max(rates, key=lambda batch: rates[batch])
    return Outcome(setup.task, setup.name, "Offline", rates[best], "images/s", "", f"batch {best}")


def server(setup: Setup, bound_seconds: float, budget_seconds: float, seed: int) -> Outcome:
    """The largest rate of Poisson arrivals of single images whose 99th percentile stays within the bound.

    Args:
        setup: The engine, of which a fresh process is started.
        bound_seconds: What the 99th percentile of the time from arrival to completion may be.
        budget_seconds: Of arrivals, all trials together.
        seed: Of the arrivals.
    """
    try:
        with Engine(setup) as engine:
            service = float(np.median(engine.measure(1, 1.0, 1_000).seconds))
            draw = np.random.default_rng(seed)

            def tried(rate: float) -> Trial:
                times = engine.queue(arrivals(rate, queries_of(rate), draw))
                return Trial(rate, len(times), sum(seconds > bound_seconds for seconds in times))

            value, reason = largest_rate(tried, service, bound_seconds, budget_seconds)
    except EngineError as error:
        value, reason = None, str(error)
    detail = f"p99 within {1e3 * bound_seconds:g} ms, Poisson arrivals"
    return Outcome(setup.task, setup.name, "Server", value, "queries/s", reason, detail)


def arrivals(rate: float, queries: int, draw: np.random.Generator) -> list[float]:
    """Seconds at which `queries` arrive at random, independently, `rate` a second on average."""
    times: list[float] = np.cumsum(draw.exponential(1 / rate, queries)).tolist()
    return times


def queries_of(rate: float) -> int:
    """How many queries a trial of a rate takes."""
    return max(needed(99), min(LARGEST_TRIAL_QUERIES, round(rate * TRIAL_SECONDS)))


def largest_rate(
    tried: Callable[[float], Trial],
    service_seconds: float,
    bound_seconds: float,
    budget_seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[float | None, str]:
    """The largest rate that passes, by bisection below what the engine can do at all, or why there is none.

    Args:
        tried: Tries a rate.
        service_seconds: Of one query alone.
        bound_seconds: What the 99th percentile may be.
        budget_seconds: A trial that would go on for longer, all together, is not begun.
        clock: Seconds, monotonic.
    """
    if service_seconds > bound_seconds:
        return None, f"one query alone takes {1e3 * service_seconds:.3g} ms: the bound is below that"
    passed, failed, until = 0.0, 1 / service_seconds, clock() + budget_seconds
    for _ in range(HALVINGS):
        rate = (passed + failed) / 2
        if clock() + queries_of(rate) / rate > until:
            break
        if tried(rate).passed:
            passed = rate
        else:
            failed = rate
    if passed:
        return passed, ""
    return None, f"no rate from {failed:.3g} queries/s on passed, and a lower one takes more than {budget_seconds:g} s"
