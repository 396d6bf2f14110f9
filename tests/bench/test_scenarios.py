"""Scenarios against queueing theory and by their definitions."""

from pathlib import Path

import numpy as np
import pytest
from bench_helpers import setup_of
from scipy.stats import kstest

from cnnbench.bench import scenarios
from cnnbench.bench.backends import serve_arrivals
from cnnbench.bench.percentiles import overlatency_allowed
from cnnbench.bench.scenarios import largest_rate, offline, poisson_arrivals, queries_of, single_stream

SETUP = setup_of(Path("nowhere"))


class Worker:
    """A worker on a clock of its own: each query takes the seconds it is given."""

    def __init__(self, services: np.ndarray, start: float = 0.0) -> None:
        self.services, self.now = iter(services.tolist()), start

    def work(self) -> None:
        self.now += next(self.services)

    def clock(self) -> float:
        return self.now

    def wait_until(self, moment: float) -> None:
        self.now = max(self.now, moment)

    def latencies(self, times: list[float]) -> np.ndarray:
        return np.array(serve_arrivals(self.work, times, clock=self.clock, wait_until=self.wait_until))


def lindley(times: np.ndarray, services: np.ndarray) -> np.ndarray:
    """W[n+1] = max(0, W[n] + S[n] - (T[n+1] - T[n])) (Lindley 1952), in closed form: the walk less its minimum so far.

    Returns the time from arrival to completion, W + S.
    """
    steps = np.concatenate([[0], services[:-1] - np.diff(times)])
    walk = np.cumsum(steps)
    return walk - np.minimum.accumulate(walk) + services


@pytest.mark.parametrize("load", [0.3, 0.9, 1.5])
def test_the_queue_is_lindleys(load: float) -> None:
    draw = np.random.default_rng(1)
    times, services = np.array(poisson_arrivals(load, queries=3_000, generator=draw)), draw.gamma(4, 0.25, 3_000)
    found = Worker(services, start=1e3).latencies(times.tolist())
    np.testing.assert_allclose(found, lindley(times, services), atol=1e-9)


def test_mean_waiting_time_is_pollaczek_khinchines() -> None:
    service, load, queries = 0.01, 0.6, 200_000
    times = poisson_arrivals(load / service, queries=queries, generator=np.random.default_rng(0))
    waiting = Worker(np.full(queries, service)).latencies(times).mean() - service
    assert waiting == pytest.approx(load * service / (2 * (1 - load)), rel=0.03)  # M/D/1


def test_arrivals_are_poisson() -> None:
    times = np.array(poisson_arrivals(250.0, queries=5_000, generator=np.random.default_rng(2)))
    gaps = np.diff(times, prepend=0)
    assert (gaps > 0).all()
    assert kstest(gaps, "expon", args=(0, 1 / 250)).pvalue > 0.01


@pytest.mark.parametrize("limit", [37.0, 512.3, 960.0])
def test_the_rate_is_found_to_a_64th_of_the_capacity(limit: float) -> None:
    def within_bound(rate: float) -> bool:
        return rate <= limit

    value, reason = largest_rate(
        within_bound, service_seconds=1e-3, bound_seconds=1.0, budget_seconds=1e9, clock=lambda: 0.0
    )
    assert reason == ""
    assert value is not None
    assert limit - 1_000 / 64 <= value <= limit


def test_the_rate_keeps_the_99th_percentile_of_a_real_queue_within_the_bound() -> None:
    service, bound = 1e-3, 5e-3
    draw = np.random.default_rng(3)

    def late(rate: float, queries: int) -> float:
        times = Worker(np.full(queries, service)).latencies(poisson_arrivals(rate, queries=queries, generator=draw))
        return float((times > bound).mean())

    def within_bound(rate: float) -> bool:
        queries = queries_of(rate)
        return overlatency_allowed(queries, round(late(rate, queries) * queries))

    value, _ = largest_rate(
        within_bound, service_seconds=service, bound_seconds=bound, budget_seconds=1e9, clock=lambda: 0.0
    )
    assert value is not None
    assert late(value * 0.95, 100_000) <= 0.01 < late(value * 1.15, 100_000)


def test_a_bound_below_one_query_alone_is_reported_without_serving() -> None:
    value, reason = largest_rate(
        lambda rate: pytest.fail("served"), service_seconds=2e-3, bound_seconds=1e-3, budget_seconds=100.0
    )
    assert value is None
    assert reason == "one query alone takes 2 ms: the bound is below that"


def test_no_rate_is_served_that_would_outlast_the_budget() -> None:
    now, begun = [0.0], []

    def within_bound(rate: float) -> bool:
        begun.append(rate)
        now[0] += queries_of(rate) / rate
        return False

    value, reason = largest_rate(
        within_bound, service_seconds=1e-3, bound_seconds=1.0, budget_seconds=5.0, clock=lambda: now[0]
    )
    assert value is None
    assert begun == [500.0, 250.0]  # 2 s, then 662 queries at 250 a second, 2.65 s; the next would take 5.3 s
    assert reason == "no rate from 250 queries/s on passed, and a lower one takes more than 5 s"


def test_a_rate_has_the_queries_that_its_percentile_needs() -> None:
    assert queries_of(10.0) == 662
    assert queries_of(1_000.0) == 2_000
    assert queries_of(1e6) == scenarios.LARGEST_QUERIES


def test_single_stream_is_the_90th_percentile_of_single_images() -> None:
    seconds = np.linspace(0.001, 0.1, 100)
    found = single_stream(SETUP, seconds.tolist())
    assert (found.scenario, found.unit) == ("SingleStream", "ms p90")
    assert found.value == pytest.approx(1e3 * np.percentile(seconds, 90))
    few = single_stream(SETUP, [1e-3] * 63)
    assert (few.value, few.reason) == (None, "p90 needs 64 samples, 63 were taken in 0.063 s")


def test_offline_is_the_batch_size_that_makes_the_most_of_its_images() -> None:
    found = offline(SETUP, {1: [0.001] * 5, 8: [0.004, 0.006], 64: [0.064], 256: []})
    assert (found.value, found.detail) == (pytest.approx(8 / 0.005), "batch 8")
    assert offline(SETUP, {8: []}).value is None
