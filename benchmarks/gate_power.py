"""False alarms and power of the regression gate on simulated processes.

    python benchmarks/gate_power.py [--replicates 2000]

Median times of 20 rounds in four processes of each bundle, with drift that strikes all alike, and noise: quiet, 1 %
between processes and 2 % between rounds; offset, 3 % between processes; scattered, 10 % between rounds. At a slowdown
of 1 the bundles are equal. "Before" is version 0.1: two processes, a bootstrap over rounds, and what processes of one
bundle differ by as the noise floor (a tenth of the replicates). A regression has to be seen twice.
"""

import argparse
import sys
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.stats import bootstrap, mannwhitneyu

from cnnbench.bench.regression import PROCESSES, conclude, estimate_effect
from cnnbench.cli.table import render
from cnnbench.tables.columns import Column

ROUNDS = 20
SLOWDOWNS = (1.0, 1.1, 1.2, 1.3)
SEED = 20_260_701
Times = list[list[float]]


@dataclass(frozen=True)
class Machine:
    """Standard deviations of the logarithm of a time."""

    name: str
    between_processes: float
    between_rounds: float

    def times(self, random: np.random.Generator, slowdown: float, processes: int) -> tuple[Times, Times]:
        """Median seconds of each round, of the processes of A and of B."""
        drift = np.cumsum(random.normal(0, 0.02, ROUNDS))
        offsets = random.normal(0, self.between_processes, (2 * processes, 1))
        logs = drift + offsets + random.normal(0, self.between_rounds, (2 * processes, ROUNDS))
        logs[:processes] += np.log(slowdown)
        seconds: Times = (1e-3 * np.exp(logs)).tolist()
        return seconds[:processes], seconds[processes:]


MACHINES = (Machine("quiet", 0.01, 0.02), Machine("offset", 0.03, 0.02), Machine("scattered", 0.01, 0.10))


def _ends(ratios: np.ndarray) -> tuple[float, float]:
    interval = bootstrap((ratios,), np.median, method="percentile", n_resamples=1000, rng=SEED).confidence_interval
    return float(interval.low), float(interval.high)


def before(a: Times, b: Times) -> tuple[float, float, float, bool]:
    """The interval, the noise floor and the rank test of version 0.1, for two processes of each."""
    log_a, log_b = np.log(a), np.log(b)
    low, high = np.exp(_ends(log_a.mean(0) - log_b.mean(0))).tolist()
    noise = [abs(end) for side in (log_a, log_b) for end in _ends(side[0] - side[1])]
    ranked = bool(mannwhitneyu(log_a.mean(0), log_b.mean(0)).pvalue < 0.01)
    return low, high, max(float(np.exp(max(noise))), 1.02), ranked


def shown_before(machine: Machine, slowdown: float, replicates: int) -> tuple[float, float]:
    """How often the interval excluded 1, and how often there was a regression."""
    random = np.random.default_rng(SEED)
    excluded = regressions = 0
    for _ in range(replicates):
        pair = [before(*machine.times(random, slowdown, 2)) for _ in range(2)]
        excluded += not pair[0][0] <= 1 <= pair[0][1]
        floor = max(one[2] for one in pair)
        regressions += all(low > floor and ranked for low, _, _, ranked in pair)
    return excluded / replicates, regressions / replicates


def shown_after(machine: Machine, slowdown: float, replicates: int) -> list[float]:
    """How often the interval excludes 1, there is a regression, it cannot be told; the mean smallest slowdown seen."""
    random = np.random.default_rng(SEED)
    drawn = []
    for _ in range(replicates):
        first, second = (estimate_effect(*machine.times(random, slowdown, PROCESSES)) for _ in range(2))
        found = conclude("x", [first, second] if first.slower or first.faster else [first])
        drawn.append((not first.low <= 1 <= first.high, found.regression, found.cannot_tell, first.smallest_seen))
    shares: list[float] = np.mean(drawn, axis=0).tolist()
    return shares


def share(value: float, replicates: int) -> str:
    """A share with its Monte Carlo error."""
    return f"{value:.3f} +- {sqrt(value * (1 - value) / replicates):.3f}"


def main() -> int:
    """Run the simulation; prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=2000)
    chosen = parser.parse_args()
    fewer = max(1, chosen.replicates // 10)
    rows = []
    for machine in MACHINES:
        for slowdown in SLOWDOWNS:
            was = shown_before(machine, slowdown, fewer)
            excluded, regressions, cannot_tell, seen = shown_after(machine, slowdown, chosen.replicates)
            rows.append(
                {
                    "machine": machine.name,
                    "slowdown": f"{slowdown:g}",
                    "interval excludes 1, before": share(was[0], fewer),
                    "interval excludes 1": share(excluded, chosen.replicates),
                    "regression, before": share(was[1], fewer),
                    "regression": share(regressions, chosen.replicates),
                    "cannot tell": share(cannot_tell, chosen.replicates),
                    "smallest slowdown seen": f"{seen:.3f}",
                }
            )
    columns = [Column(key, key, right=key != "machine") for key in rows[0]]
    render(columns, rows, title="The regression gate", format="markdown")
    return 0


if __name__ == "__main__":
    sys.exit(main())
