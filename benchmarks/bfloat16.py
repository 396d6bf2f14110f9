"""bfloat16 with the channels last against float32 in PyTorch's default layout: speed, and what it does to accuracy.

    python benchmarks/bfloat16.py --folder DIR [--arch resnet20] [--batch 128] [--steps 30] [--seeds 3] [--images 20000]

Speed: the hand-written loop (loop.py) both ways, and each change alone. Accuracy, with --seeds: `fit` for five epochs
in either precision with each seed, and the test accuracies, on --images training images (default: all).
"""

import json
import tempfile
from statistics import mean, stdev

from rounds import compared, interleaved, options, process, table

WAYS = {
    "bfloat16, channels last": ("bf16-mixed", "channels_last"),
    "float32, default layout": ("32-true", "contiguous_format"),
    "float32, channels last": ("32-true", "channels_last"),
    "bfloat16, default layout": ("bf16-mixed", "contiguous_format"),
}


def main() -> None:
    """Measure, and print the tables."""
    parser = options(__doc__)
    parser.add_argument("--folder", required=True, help="CIFAR-10 in class folders")
    parser.add_argument("--arch", default="resnet20")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=0, help="also train with so many seeds in either precision")
    parser.add_argument("--images", type=int, help="training images for that")
    chosen = parser.parse_args()

    def rate(way: str) -> float:
        precision, layout = WAYS[way]
        loop = {
            "arch": chosen.arch,
            "data": {"dataset": "folder", "folder": chosen.folder},
            "batch": chosen.batch,
            "epochs": 2,
            "steps": chosen.steps,
            "precision": precision,
            "layout": layout,
        }
        return float(process(["benchmarks/loop.py", json.dumps(loop)]))

    found = interleaved({way: lambda way=way: rate(way) for way in WAYS}, chosen.rounds)
    compared(f"{chosen.arch}, batch {chosen.batch}", found, unit="images/s", ours=next(iter(WAYS)), least=2)
    if chosen.seeds:
        print()
        accuracies(chosen.arch, chosen.folder, chosen.batch, chosen.seeds, chosen.images)


def accuracies(arch: str, folder: str, batch: int, seeds: int, images: int | None) -> None:
    """Train with each seed in both precisions, and print the test accuracies side by side."""
    rows = [["seed", "float32, %", "bfloat16, %", "difference, points"]]
    found: dict[str, list[float]] = {"32-true": [], "bf16-mixed": []}
    for seed in range(1, seeds + 1):
        for precision, tested in found.items():
            with tempfile.TemporaryDirectory() as runs:
                arguments = [
                    "--model.arch",
                    arch,
                    "--data.dataset",
                    "folder",
                    "--data.folder",
                    folder,
                    "--data.batch_size",
                    str(batch),
                    "--trainer.max_epochs",
                    "5",
                    "--trainer.precision",
                    precision,
                    "--seed_everything",
                    str(seed),
                    "--runs-dir",
                    runs,
                    *(["--data.train_images", str(images)] if images else []),
                ]
                record = json.loads(process(["-m", "cnnbench", "fit", *arguments, "--test", "--format", "json"]))
            tested.append(100 * record["test"]["accuracy"])
        one, other = found["32-true"][-1], found["bf16-mixed"][-1]
        rows.append([str(seed), f"{one:.2f}", f"{other:.2f}", f"{other - one:+.2f}"])
    differences = [b - a for a, b in zip(*found.values(), strict=True)]
    spread = [f"{mean(tested):.2f} +- {stdev(tested):.2f}" for tested in found.values()]
    rows.append(["mean +- std", *spread, f"{mean(differences):+.2f} +- {stdev(differences):.2f}"])
    table(rows)


if __name__ == "__main__":
    main()
