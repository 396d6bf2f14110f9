"""torch.compile measured: images a second with and without, and how long it takes to earn back its start.

    python benchmarks/compile.py [--arch lenet5 resnet20] [--dataset mnist] [--batch 512] [--rounds 5]

`fit` with --model.compile true and without, in the same precision; whole processes for the start, epochs but the first
for the rate.
"""

import time
from statistics import median

from rounds import fit, fit_flags, images_per_second, interleaved, options, table


def main() -> None:
    """Measure, and print a row for each architecture."""
    parser = options(__doc__)
    parser.add_argument("--arch", nargs="+", default=["lenet5", "resnet20"])
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=4)
    chosen = parser.parse_args()
    rows = [["what", "compiled, images/s", "eager, images/s", "ratio: median (range)", "start, s more", "earned back"]]
    for arch in chosen.arch:
        starts: dict[bool, list[float]] = {True: [], False: []}

        def rate(compiled: bool, arch: str = arch, starts: dict[bool, list[float]] = starts) -> float:
            begin = time.perf_counter()
            flags = fit_flags(
                arch,
                dataset=chosen.dataset,
                batch=chosen.batch,
                epochs=chosen.epochs,
                steps=chosen.steps,
                validate=False,
            )
            record = fit([*flags, "--model.compile", str(compiled).lower()])
            whole = time.perf_counter() - begin
            curve = record["fit"]["curve"]
            starts[compiled].append(whole - (curve[-1]["train_seconds"] - curve[0]["train_seconds"]))
            return images_per_second(record)

        found = interleaved({"compiled": lambda: rate(True), "eager": lambda: rate(False)}, chosen.rounds)
        ratios = [a / b for a, b in zip(found["compiled"], found["eager"], strict=True)]
        fast, slow = median(found["compiled"]), median(found["eager"])
        more = median(starts[True]) - median(starts[False])
        images = more / (1 / slow - 1 / fast) if fast > slow else None
        rows.append(
            [
                f"fit, {arch}, {chosen.dataset}, batch {chosen.batch}",
                f"{fast:,.4g}",
                f"{slow:,.4g}",
                f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                f"{more:.0f}",
                f"{images:,.0f} images" if images else "never",
            ]
        )
    table(rows)


if __name__ == "__main__":
    main()
