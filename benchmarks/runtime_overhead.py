"""What our runtime adds to ONNX Runtime: `Model.predict` and `Model.logits` against a bare `InferenceSession.run`.

    python benchmarks/runtime_overhead.py BUNDLE... [--threads 0] [--blocks 200] [--calls 50] [--rounds 5]

One image per call. A bundle is measured in a separate process, and every round opens two new sessions on the same
file: one for our model, one for the bare calls. Short blocks of calls alternate in random order, so that each ratio is
between blocks that ran within milliseconds of each other; the median of these is the round's.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from rounds import options, process, table

BARE = "a bare InferenceSession.run"
LEAST = 0.95
Blocks = dict[str, list[float]]


def measured(bundle: Path, threads: int, blocks: int, calls: int) -> Blocks:
    """A round: microseconds per call of each block, by side, in the order in which the sides alternated."""
    sides = opened(bundle, threads)
    for call in sides.values():
        microseconds(call, calls)  # the first calls allocate
    times: Blocks = {name: [] for name in sides}
    for _ in range(blocks):
        for name in random.sample(list(sides), len(sides)):
            times[name].append(microseconds(sides[name], calls))
    return times


def opened(bundle: Path, threads: int) -> dict[str, Callable[[], Any]]:
    """Three calls with one image, on two new sessions."""
    import numpy as np
    import onnxruntime

    from cnnbench.runtime.predict import Model

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads

    def session() -> Any:
        return onnxruntime.InferenceSession(str(bundle / "model.onnx"), settings, providers=["CPUExecutionProvider"])

    model, bare = Model(bundle, session()), session()
    if bare.get_inputs()[0].type != "tensor(uint8)":
        sys.exit(f"{bundle} takes {bare.get_inputs()[0].type}; expected a bundle that takes tensor(uint8)")
    image = np.random.default_rng(0).integers(0, 256, (1, *model.size), dtype=np.uint8)
    return {
        "predict": lambda: model.predict(image),
        "logits": lambda: model.logits(image),
        BARE: lambda: bare.run(["logits"], {"pixels": image}),
    }


def microseconds(call: Callable[[], Any], calls: int) -> float:
    """Microseconds of one call, the mean of a block."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls * 1e6


def row(bundle: str, ours: str, rounds: list[Blocks]) -> list[str]:
    """A row of the table: `ours` against the bare call."""
    ratios = [median(b / a for a, b in zip(blocks[ours], blocks[BARE], strict=True)) for blocks in rounds]
    middle = median(ratios)
    return [
        f"{ours}, {bundle}, batch 1",
        BARE,
        *(f"{median(median(blocks[side]) for blocks in rounds):,.4g}" for side in (ours, BARE)),
        f"{middle:.3f} ({min(ratios):.3f} to {max(ratios):.3f}) of {len(ratios)} rounds",
        f"{LEAST:g}",
        "yes" if middle >= LEAST else "no",
    ]


def main() -> None:
    """Measure, and print two rows for each bundle."""
    parser = options(__doc__)
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--threads", type=int, default=0, help="within an operator; by default ONNX Runtime's choice")
    parser.add_argument("--blocks", type=int, default=200, help="blocks of calls of each side in a round (default 200)")
    parser.add_argument("--calls", type=int, default=50, help="calls in a block (default 50)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    numbers = (chosen.threads, chosen.blocks, chosen.calls)
    if chosen.here:
        print(json.dumps([measured(chosen.bundles[0], *numbers) for _ in range(chosen.rounds)]))
        return
    rows = [["what", "against", "ours, us", "theirs, us", "ratio: median (range)", "asked", "reached"]]
    for bundle in chosen.bundles:
        named = zip(("--threads", "--blocks", "--calls", "--rounds"), (*numbers, chosen.rounds), strict=True)
        flags = [str(word) for flag in named for word in flag]
        rounds = json.loads(process([__file__, str(bundle), "--here", *flags]))
        rows += [row(bundle.name, ours, rounds) for ours in ("predict", "logits")]
    table(rows)


if __name__ == "__main__":
    main()
