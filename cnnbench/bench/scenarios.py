"""MLPerf's scenarios, by their names: SingleStream, Offline and Server (Reddi et al. 2020, arXiv:1911.02549).

They are measured as MLPerf defines them, on one setup and the golden images; they are no MLPerf submission, whose
rules require more queries, longer runs and the whole of its data set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cnnbench.bench.backends import BackendError, BackendProcess
from cnnbench.bench.interleave import CaseSamples, Progress
from cnnbench.bench.percentiles import needed, overlatency_allowed, percentile
from cnnbench.bench.plan import Setup

RATE_SECONDS = 2.0
"""Seconds of arrivals at a rate; longer where 662 queries, which p99 needs, take longer to come."""
LARGEST_QUERIES = 20_000
HALVINGS = 6
"""Halvings of the interval from 0 to what the setup can do: the rate is then known to 1.6 % of that."""


@dataclass(frozen=True)
class ScenarioResult:
    """What a setup reached in a scenario; `value` is None where `reason` says why."""

    task: str
    setup: str
    scenario: str
    value: float | None
    unit: str
    reason: str
    detail: str


def run_scenarios(
    chosen: Sequence[str],
    samples: Iterable[CaseSamples],
    *,
    bound_seconds: float | None,
    budget_seconds: float,
    seed: int,
    progress: Progress,
) -> list[ScenarioResult]:
    """The chosen scenarios of every setup: Server is measured here, the others are of the samples.

    Args:
        chosen: Scenarios.
        samples: What was measured; SingleStream needs batch 1.
        bound_seconds: Bound of the Server scenario, else None; see `server`.
        budget_seconds: Budget, in seconds, of the Server scenario.
        seed: Seed of the Server scenario.
        progress: Receives a line per Server scenario.
    """
    results = []
    for setup, calls in _calls(samples).items():
        if "SingleStream" in chosen:
            results.append(single_stream(setup, calls[1]))
        if "Offline" in chosen:
            results.append(offline(setup, calls))
        if bound_seconds is not None and "Server" in chosen:
            progress(f"Server: {setup.task} {setup.name}")
            results.append(server(setup, bound_seconds=bound_seconds, budget_seconds=budget_seconds, seed=seed))
    return results


def _calls(samples: Iterable[CaseSamples]) -> dict[Setup, dict[int, list[float]]]:
    """Seconds of each call of all processes together, by setup and batch size."""
    calls: dict[Setup, dict[int, list[float]]] = {}
    for process in samples:
        calls.setdefault(process.case.setup, {}).setdefault(process.case.batch, []).extend(process.seconds)
    return calls


def single_stream(setup: Setup, seconds: Sequence[float]) -> ScenarioResult:
    """The 90th percentile of calls of one image, each sent when the one before is done."""
    p90 = percentile(seconds, 90)
    value = None if p90.seconds is None else 1e3 * p90.seconds
    return ScenarioResult(setup.task, setup.name, "SingleStream", value, "ms p90", p90.reason, "batch 1")


def offline(setup: Setup, calls: Mapping[int, Sequence[float]]) -> ScenarioResult:
    """Images per second where all are there from the start: at the batch size that makes the most of them.

    Args:
        setup: What was measured.
        calls: Seconds of each call, by batch size.
    """
    rates = {batch: batch * len(seconds) / sum(seconds) for batch, seconds in calls.items() if seconds}
    if not rates:
        return ScenarioResult(setup.task, setup.name, "Offline", None, "images/s", "no batch size was measured", "")
    best = max(rates, key=lambda batch: rates[batch])
    return ScenarioResult(setup.task, setup.name, "Offline", rates[best], "images/s", "", f"batch {best}")


def server(setup: Setup, *, bound_seconds: float, budget_seconds: float, seed: int) -> ScenarioResult:
    """The largest rate of Poisson arrivals of single images whose 99th percentile stays within the bound.

    Args:
        setup: A fresh process of it is started.
        bound_seconds: Limit of the 99th percentile of the time from arrival to completion.
        budget_seconds: Budget, in seconds, of arrivals, at all rates together.
        seed: Seed of the arrivals.
    """
    try:
        with BackendProcess(setup) as process:
            service = float(np.median(process.measure(1, seconds=1.0, calls=1_000).seconds))
            generator = np.random.default_rng(seed)

            def within_bound(rate: float) -> bool:
                times = process.serve(poisson_arrivals(rate, queries=queries_of(rate), generator=generator))
                return overlatency_allowed(len(times), sum(seconds > bound_seconds for seconds in times))

            value, reason = largest_rate(
                within_bound, service_seconds=service, bound_seconds=bound_seconds, budget_seconds=budget_seconds
            )
    except BackendError as error:
        value, reason = None, str(error)
    detail = f"p99 within {1e3 * bound_seconds:g} ms, Poisson arrivals"
    return ScenarioResult(setup.task, setup.name, "Server", value, "queries/s", reason, detail)


def poisson_arrivals(rate: float, *, queries: int, generator: np.random.Generator) -> list[float]:
    """Seconds at which `queries` arrive at random, independently, `rate` per second on average."""
    times: list[float] = np.cumsum(generator.exponential(1 / rate, queries)).tolist()
    return times


def queries_of(rate: float) -> int:
    """How many queries are served at a rate."""
    return max(needed(99), min(LARGEST_QUERIES, round(rate * RATE_SECONDS)))


def largest_rate(
    within_bound: Callable[[float], bool],
    *,
    service_seconds: float,
    bound_seconds: float,
    budget_seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[float | None, str]:
    """The largest rate within the bound, by bisection below what the setup can do at all, or why there is none.

    Args:
        within_bound: Serves queries at a rate; whether their 99th percentile stays within the bound.
        service_seconds: Service time of one query alone.
        bound_seconds: Limit of the 99th percentile.
        budget_seconds: A rate that would take longer, with all before it, is not served.
        clock: Seconds, monotonic.
    """
    if service_seconds > bound_seconds:
        return None, f"one query alone takes {1e3 * service_seconds:.3g} ms: the bound is below that"
    good, bad, until = 0.0, 1 / service_seconds, clock() + budget_seconds
    for _ in range(HALVINGS):
        rate = (good + bad) / 2
        if clock() + queries_of(rate) / rate > until:
            break
        if within_bound(rate):
            good = rate
        else:
            bad = rate
    if good:
        return good, ""
    return None, f"no rate from {bad:.3g} queries/s on passed, and a lower one takes more than {budget_seconds:g} s"
