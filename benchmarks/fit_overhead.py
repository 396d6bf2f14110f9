"""What Lightning costs: `fit` against the tightest hand-written loop, in images a second.

    python benchmarks/fit_overhead.py [--arch lenet5] [--dataset mnist] [--folder DIR] [--batch 512] [--steps 105]

Both sides train the same network on the same tensors with the same arithmetic (loop.py); `fit` also reports, logs
and saves checkpoints. The first epoch of each is not counted, and neither are `fit`'s validation passes.
"""

import json

from rounds import compared, fit, fit_flags, images_per_second, interleaved, options, process


def main() -> None:
    """Measure, and print one row."""
    parser = options(__doc__)
    parser.add_argument("--arch", default="lenet5")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--folder", help="images in class folders, for --dataset folder")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=105, help="steps an epoch, at most what the images make")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--least", type=float, default=0.95)
    chosen = parser.parse_args()
    data = {"dataset": chosen.dataset, "folder": chosen.folder}
    loop = {
        "arch": chosen.arch,
        "data": data,
        "batch": chosen.batch,
        "epochs": chosen.epochs,
        "steps": chosen.steps,
        "precision": chosen.precision,
    }
    flags = fit_flags(
        chosen.arch,
        dataset=chosen.dataset,
        folder=chosen.folder,
        batch=chosen.batch,
        epochs=chosen.epochs,
        steps=chosen.steps,
        validate=False,
    )
    arguments = [*flags, "--trainer.precision", chosen.precision]
    sides = {
        "fit": lambda: images_per_second(fit(arguments)),
        "hand-written loop": lambda: float(process(["benchmarks/loop.py", json.dumps(loop)])),
    }
    what = f"fit, {chosen.arch}, {chosen.dataset}, batch {chosen.batch}, {chosen.precision}"
    compared(what, interleaved(sides, chosen.rounds), unit="images/s", ours="fit", least=chosen.least)


if __name__ == "__main__":
    main()
