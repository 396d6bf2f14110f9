"""The cost of every registered architecture: `list`, declared and counted, against running each network once.

    python benchmarks/cost_of_all.py [--rounds 5]

Whole processes, all for 32 x 32 x 3 and 10 classes. The other side builds each network and runs one image through it
while torch.utils.flop_counter counts. `list` alone reads what is declared beside each architecture, which tests hold
against counts; `list --size` counts on the meta device. All three must name the same parameters and MACs.
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
    found = {}
    for name in architecture:
        network = build(name, spec).eval()
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, 32, 32))
        # the counter takes a multiply-add for two
        found[name] = [sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2]
    return found


@dataclass
class Processes:
    """One process after another, all of which must find the same costs."""

    costs: Costs = field(default_factory=dict)

    def seconds(self, arguments: list[str]) -> float:
        """Of a whole process. Exits with a line where it finds other costs than those before it."""
        start = time.perf_counter()
        printed = process(arguments)
        taken = time.perf_counter() - start
        found = json.loads(printed)
        if arguments is not RUN:
            found = {row["arch"]: [row["params"], row["macs"]] for row in found}
        self.costs = self.costs or found
        for name in found.keys() | self.costs.keys():
            if found.get(name) != self.costs.get(name):
                sys.exit(
                    f"params and MACs of {name} disagree: {found.get(name)} in {' '.join(arguments)}, "
                    f"{self.costs.get(name)} before"
                )
        return taken


def main() -> None:
    """Measure, and print a row for the declared and one for the counted costs."""
    parser = options(__doc__)
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.run:
        print(json.dumps(run_each()))
        return
    one = Processes()
    against = "running each once"
    sides = {
        "list": lambda: one.seconds(DECLARED),
        "list --size 32x32x3": lambda: one.seconds(COUNTED),
        against: lambda: one.seconds(RUN),
    }
    for side in sides.values():  # not counted: it reads the files before, and compares the costs
        side()
    found = interleaved(sides, chosen.rounds)
    for ours, least in (("list", 5), ("list --size 32x32x3", 1)):
        what = f"{ours}, {len(one.costs)} architectures"
        compared(what, "s", {ours: found[ours], against: found[against]}, ours, least, fewer_is_better=True)
        print()


if __name__ == "__main__":
    main()
