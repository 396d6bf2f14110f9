"""How soon the command line answers: `python -m cnnbench --help` against a process that imports torch and lightning.

    python benchmarks/startup.py [--rounds 5]

Whole processes, from the start to the end; one of each, not counted, has read the files before.
"""

import time
from statistics import median

from rounds import compared, interleaved, options, process

OURS, IMPORTS = ["-m", "cnnbench", "--help"], ["-c", "import torch, lightning"]
MOST_SECONDS = 0.3


def seconds(arguments: list[str]) -> float:
    """Seconds of a Python process with these arguments."""
    start = time.perf_counter()
    process(arguments)
    return time.perf_counter() - start


def main() -> None:
    """Measure, and print one row and a line."""
    chosen = options(__doc__).parse_args()
    sides = {"--help": lambda: seconds(OURS), "import torch, lightning": lambda: seconds(IMPORTS)}
    for side in sides.values():
        side()
    found = interleaved(sides, chosen.rounds)
    compared("python -m cnnbench --help", found, unit="s", ours="--help", least=20, fewer_is_better=True)
    taken = median(found["--help"])
    print(f"--help takes {taken:.3f} s, asked under {MOST_SECONDS:g}: {'yes' if taken < MOST_SECONDS else 'no'}")


if __name__ == "__main__":
    main()
