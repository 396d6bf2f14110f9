"""What `fit` asks of the system (cnnbench/training/process.py): with and without, alone and beside a busy process.

    python benchmarks/process_settings.py [--arch lenet5] [--batch 512] [--rounds 5]

The hand-written loop (loop.py), with as many threads as cores. The busy process wants one core, and belongs to another
session, as another user's would: Linux shares the cores among sessions first.
"""

import json
import subprocess
import sys

from rounds import compared, interleaved, options, process

BUSY = "while True: pass"


def main() -> None:
    """Measure, and print a row alone and one beside a busy process."""
    parser = options(__doc__)
    parser.add_argument("--arch", default="lenet5")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=40)
    chosen = parser.parse_args()

    def rate(prepared: bool) -> float:
        loop = {
            "arch": chosen.arch,
            "data": {"dataset": "mnist"},
            "batch": chosen.batch,
            "epochs": 2,
            "steps": chosen.steps,
            "precision": "bf16-mixed",
            "prepared": prepared,
        }
        return float(process(["benchmarks/loop.py", json.dumps(loop)]))

    sides = {"as fit sets it": lambda: rate(True), "as the system has it": lambda: rate(False)}
    alone = interleaved(sides, chosen.rounds)
    busy = subprocess.Popen([sys.executable, "-c", BUSY], start_new_session=True)
    try:
        beside = interleaved(sides, chosen.rounds)
    finally:
        busy.kill()
        busy.wait()
    for where, found in (("alone", alone), ("beside a busy process", beside)):
        what = f"{chosen.arch}, batch {chosen.batch}, {where}"
        compared(what, found, unit="images/s", ours="as fit sets it", least=1)
        print()


if __name__ == "__main__":
    main()
