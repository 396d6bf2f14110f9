"""CIFAR-10 to 85 % test accuracy with fastnet, one seed, against an estimate for resnet18 under the same recipe.

    python benchmarks/cifar_to_85.py --folder DIR [--name cifar10-jpeg] [--epochs 8] [--rounds 5]

fastnet is trained and tested for real, whole process. resnet18 is not: its images a second are measured in turns with
fastnet's in short runs, and its time is that rate times a number of epochs, by default as many as fastnet takes. The
row also says with how few epochs resnet18 would have to reach 85 % for the ratio to fall below 5.
"""

import json
import tempfile
import time
from pathlib import Path
from statistics import median

from rounds import fit, images_per_second, interleaved, options, process, table

STEPS, BATCH = 10, 128


def main() -> None:
    """Train, measure, estimate, and print one row."""
    parser = options(__doc__)
    parser.add_argument("--folder", required=True, help="CIFAR-10 in class folders")
    parser.add_argument("--name", default="cifar10-jpeg")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--resnet18-epochs", type=int, help="that resnet18 is taken to need (default: fastnet's)")
    parser.add_argument("--runs-dir", help="where the run of fastnet is kept")
    chosen = parser.parse_args()
    data = ["--data.dataset", "folder", "--data.folder", chosen.folder, "--data.name", chosen.name]
    data += ["--data.batch_size", str(BATCH)]

    def rate(arch: str) -> float:
        short = ["--trainer.max_epochs", "2", "--trainer.limit_train_batches", str(STEPS)]
        record = fit([*data, "--model.arch", arch, "--model.lr", "0.05", *short, "--trainer.limit_val_batches", "1"])
        return images_per_second(record)

    with tempfile.TemporaryDirectory() as scratch:
        record, seconds = trained(data, chosen.epochs, Path(chosen.runs_dir or scratch))
    found = interleaved({arch: lambda arch=arch: rate(arch) for arch in ("fastnet", "resnet18")}, chosen.rounds)
    steps = record["fit"]["steps"] // record["fit"]["epochs"]
    epoch_seconds = steps * BATCH / median(found["resnet18"])
    epochs = chosen.resnet18_epochs or record["fit"]["epochs"]
    ratios = [a / b for a, b in zip(found["fastnet"], found["resnet18"], strict=True)]
    rows = [
        [
            "what",
            "test accuracy",
            "epochs",
            "whole process, s",
            "resnet18, s an epoch",
            "resnet18, epochs taken",
            "ratio, estimated",
            "ratio of step times: median (range)",
            "5 x as long as resnet18 needs at least",
        ],
        [
            f"{chosen.name} to 85 %, fastnet",
            f"{record['test']['accuracy']:.2%}",
            str(record["fit"]["epochs"]),
            f"{seconds:.0f}",
            f"{epoch_seconds:.0f}",
            str(epochs),
            f"{epochs * epoch_seconds / seconds:.1f}",
            f"{median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})",
            f"{5 * seconds / epoch_seconds:.1f} epochs",
        ],
    ]
    table(rows)


def trained(data: list[str], epochs: int, folder: Path) -> tuple[dict, float]:
    """The record of a tested run, and the seconds that `fit` took, process and all."""
    arguments = [*data, "--model.arch", "fastnet", "--trainer.max_epochs", str(epochs), "--runs-dir", str(folder)]
    start = time.perf_counter()
    process(["-m", "cnnbench", "fit", *arguments])
    seconds = time.perf_counter() - start
    return json.loads(process(["-m", "cnnbench", "test", *arguments, "--format", "json"])), seconds


if __name__ == "__main__":
    main()
