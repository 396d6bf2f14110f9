"""Where the seconds of a `fit` go, from the shell to the checkpoint, and how far its arithmetic is from the floor.

    python benchmarks/profile_fit.py [--arch lenet5] [--dataset mnist] [--batch 512] [--epochs 2] [-- more flags of fit]

One `fit` under cProfile, its calls sorted into what they are for (the profile itself adds some percent, most to what is
made of many small calls). The floor is what the arithmetic would take at the rate of a large matrix product, measured
beside it: three times the forward MACs an image, two operations each. Then the operators of a step, by torch.profiler.
"""

import cProfile
import os
import pstats
import tempfile
import time
from pathlib import Path

from rounds import fit_flags, options, table

from cnnbench.types import ImageSpec

STEPS = 5

PARTS = {
    # what for: (part of the file's name, function); cumulative time, so no part may hold another
    "imports": ("importlib._bootstrap>", "_find_and_load"),
    "reading and checking the images": ("datasets/choice.py", "open_choice"),
    "batches: gather, crop, flip, scale": ("training/data.py", "__iter__"),
    "forward and loss": ("training/classifier.py", "training_step"),
    "backward": ("torch/autograd/graph.py", "_engine_run_backward"),
    "optimizer": ("torch/optim/sgd.py", "sgd"),
    "validation": ("lightning/pytorch/loops/evaluation_loop.py", "run"),
    "checkpoints": ("callbacks/model_checkpoint.py", "_save_checkpoint"),
}


def main() -> None:
    """Profile, and print three tables."""
    parser = options(__doc__)
    parser.add_argument("--arch", default="lenet5")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--layout", default="channels_last", help="of the step whose operators are listed")
    parser.add_argument("flags", nargs="*", help="more flags of fit, after --")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        flags = fit_flags(chosen.arch, dataset=chosen.dataset, batch=chosen.batch, epochs=chosen.epochs)
        stats, whole = profiled(["fit", *flags, "--runs-dir", folder, *chosen.flags])
        from cnnbench import records
        from cnnbench.records.schema import RunRecord

        (path,) = Path(folder).glob("*/*/result.json")
        record = records.read(path, RunRecord)
    seconds = {part: cumulative(stats, *place) for part, place in PARTS.items()}
    seconds["Lightning, command line and the rest"] = whole - sum(seconds.values())
    rows = [["part", "seconds", "share"]]
    rows += [[part, f"{spent:.2f}", f"{spent / whole:.0%}"] for part, spent in seconds.items()]
    table([*rows, ["whole", f"{whole:.2f}", "100%"]])
    arithmetic = seconds["forward and loss"] + seconds["backward"] + seconds["optimizer"]
    images = record.fit.curve[-1].images
    floor(record.cost.macs, images, arithmetic, record.environment["precision"])
    mixed = record.environment["precision"] == "bf16-mixed"
    operators(chosen.arch, record.spec, chosen.batch, mixed, chosen.layout)


def profiled(arguments: list[str]) -> tuple[pstats.Stats, float]:
    """Run a command of ours under cProfile, from its first import on."""
    from cnnbench.__main__ import main as command

    profile = cProfile.Profile()
    start = time.perf_counter()
    code = profile.runcall(command, arguments)
    whole = time.perf_counter() - start
    assert code == 0
    return pstats.Stats(profile), whole


def cumulative(stats: pstats.Stats, file: str, function: str) -> float:
    """Seconds in a function and all that it calls."""
    found = stats.stats.items()  # type: ignore[attr-defined]
    return sum(row[3] for (path, _, name), row in found if name == function and file in path.replace(os.sep, "/"))


def floor(macs: int, images: int, arithmetic: float, precision: str) -> None:
    """Print what the arithmetic would take at the rate of a large matrix product."""
    import torch

    kind = torch.bfloat16 if precision.startswith("bf16") else torch.float32
    matrix = torch.randn(2048, 2048).to(kind)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - start)
    rate = 2 * 2048**3 / sorted(times)[5]
    least = 6 * macs * images / rate
    print()
    table(
        [
            ["floor", "value"],
            [f"matrix product, {kind}", f"{rate / 1e9:.0f} GFLOP/s"],
            [f"6 x {macs:,} MACs x {images:,} images at that rate", f"{least:.2f} s"],
            ["forward, backward and optimizer took", f"{arithmetic:.2f} s, {arithmetic / least:.1f} times the floor"],
        ]
    )


def operators(arch: str, spec: ImageSpec, batch: int, mixed: bool, layout: str) -> None:
    """Print the operators that take most of a training step, over five steps on random images."""
    import torch
    from torch.nn import functional as F

    from cnnbench.architectures import build

    network = build(arch, spec).train().to(memory_format=getattr(torch, layout))
    pixels = torch.rand(batch, spec.channels, spec.height, spec.width).to(memory_format=getattr(torch, layout))
    labels = torch.zeros(batch, dtype=torch.long)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = F.cross_entropy(network(pixels), labels)
        loss.backward()

    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(STEPS):
            step()
    found = sorted(profiler.key_averages(), key=lambda row: -row.self_cpu_time_total)
    whole = sum(row.self_cpu_time_total for row in found)
    rows = [["operator", "ms a step", "share"]]
    for row in found[:8]:
        spent = row.self_cpu_time_total
        rows.append([row.key, f"{spent / 1e3 / STEPS:.2f}", f"{spent / whole:.0%}"])
    print()
    table([*rows, ["all", f"{whole / 1e3 / STEPS:.2f}", "100%"]])


if __name__ == "__main__":
    main()
