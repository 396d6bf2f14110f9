"""Memory of `fit` on CIFAR-10, above that of a process which has only imported the libraries.

    python benchmarks/fit_memory.py --folder DIR [--arch lenet5 resnet20] [--batch 128] [--rounds 5]

Peak resident memory of whole processes, as the system counts it when they end (mapped files included); the images
as uint8 are what it is held against. The first run decodes the folder to the cache, and is not counted.
"""

import os
import subprocess
import sys
import tempfile
from statistics import median

from rounds import fit, fit_flags, interleaved, options, table

IMPORTS = ["-c", "import cnnbench.training.run"]
IMAGES_BYTES = 60_000 * 32 * 32 * 3


def peak_bytes(arguments: list[str]) -> float:
    """Peak resident memory of a Python process. The one that asks is small: a child starts with its parent's peak."""
    child = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{' '.join(arguments)} exited with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss * 1024


def main() -> None:
    """Measure, and print a row for each architecture."""
    parser = options(__doc__)
    parser.add_argument("--folder", required=True, help="CIFAR-10 in class folders")
    parser.add_argument("--arch", nargs="+", default=["lenet5", "resnet20"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=30)
    chosen = parser.parse_args()

    def arguments(arch: str) -> list[str]:
        return fit_flags(arch, dataset="folder", folder=chosen.folder, batch=chosen.batch, epochs=2, steps=chosen.steps)

    def fitted(arch: str) -> float:
        with tempfile.TemporaryDirectory() as runs:
            return peak_bytes(["-m", "cnnbench", "fit", *arguments(arch), "--runs-dir", runs])

    fit(arguments(chosen.arch[0]))
    sides = {"imports": lambda: peak_bytes(IMPORTS)} | {arch: lambda arch=arch: fitted(arch) for arch in chosen.arch}
    found = interleaved(sides, chosen.rounds)
    rows = [["what", "libraries imported, MB", "fit, MB", "beyond, MB", "images, MB", "ratio: median (range)", "asked"]]
    for arch in chosen.arch:
        beyond = [a - b for a, b in zip(found[arch], found["imports"], strict=True)]
        ratios = [one / IMAGES_BYTES for one in beyond]
        rows.append(
            [
                f"fit, {arch}, batch {chosen.batch}",
                *(f"{median(sizes) / 1e6:.0f}" for sizes in (found["imports"], found[arch], beyond)),
                f"{IMAGES_BYTES / 1e6:.0f}",
                f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                "at most 3",
            ]
        )
    table(rows)


if __name__ == "__main__":
    main()
