"""The cost of every registered architecture: `list`, declared and counted, against running each network once.

    python benchmarks/cost_of_all.py [--rounds 5]

Whole processes, all for 32 x 32 x 3 and 10 classes. The other side builds every network and runs one image through it
while torch.utils.flop_counter counts. `list` alone reads the costs declared beside each architecture, which tests
compare with counts; `list --size` counts on the meta device. All three must give the same parameters and MACs.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, field

from rounds import compared, interleaved, options, process

DECLARED = ["-m", "cnnbench", "list", "--format", "json"]
COUNTED = [*DECLARED, "--size", "32x32x3"]
RUN = [__file__, "--run"]
Costs = dict[str, list[int]]


def run_each() -> Costs:
    """Parameters and MACs of every architecture, one image through each."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from cnnbench.architectures import architecture, build
    from cnnbench.types import ImageSpec

    spec = ImageSpec(32, 32, 3, 10)
    costs = {}
    for name in architecture:
        network = build(name, spec).eval()
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, 32, 32))
        # the counter counts a multiply-add as two operations
        costs[name] = [sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2]
    return costs


@dataclass
class Processes:
    """Runs processes, all of which must print the same costs."""

    costs: Costs = field(default_factory=dict)

    def seconds(self, arguments: list[str]) -> float:
        """Seconds of a whole process. Exits with a message if its costs differ from those of the processes before."""
        start = time.perf_counter()
        printed = process(arguments)
        seconds = time.perf_counter() - start
        costs = json.loads(printed)
        if arguments is not RUN:
            costs = {row["arch"]: [row["params"], row["macs"]] for row in costs}
        self.costs = self.costs or costs
        for name in costs.keys() | self.costs.keys():
            if costs.get(name) != self.costs.get(name):
                sys.exit(
                    f"params and MACs of {name} disagree: {costs.get(name)} in {' '.join(arguments)}, "
                    f"{self.costs.get(name)} before"
                )
        return seconds


def main() -> None:
    """Measure, and print a row for the declared and one for the counted costs."""
    parser = options(__doc__)
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.run:
        print(json.dumps(run_each()))
        return
    processes = Processes()
    other = "running each once"
    sides = {
        "list": lambda: processes.seconds(DECLARED),
        "list --size 32x32x3": lambda: processes.seconds(COUNTED),
        other: lambda: processes.seconds(RUN),
    }
    for side in sides.values():  # not measured: it reads the files before, and compares the costs
        side()
    figures = interleaved(sides, chosen.rounds)
    for ours, least in (("list", 5), ("list --size 32x32x3", 1)):
        what = f"{ours}, {len(processes.costs)} architectures"
        compared(
            what,
            {name: figures[name] for name in (ours, other)},
            unit="s",
            ours=ours,
            least=least,
            fewer_is_better=True,
        )
        print()


if __name__ == "__main__":
    main()
