"""ONNX Runtime in float32 and int8 against PyTorch eager and torch.compile: one process an engine, ratios.

    python benchmarks/engines.py BUNDLE [--threads 1] [--rounds 5]

Each engine lives in a process of its own and waits while another works; in every round the engines take turns in a
random order, so that whatever else the machine does strikes all alike. PyTorch's network has fresh weights, which
dense arithmetic does not feel.
"""

import argparse
import random
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from cnnbench import records
from cnnbench.bench import latency
from cnnbench.report.table import Column, render
from cnnbench.types import Manifest

ENGINES: dict[str, tuple[latency.Runtime, str]] = {
    "torch eager": ("torch", "fp32"),
    "torch.compile": ("torch-compile", "fp32"),
    "onnxruntime fp32": ("onnxruntime", "fp32"),
    "onnxruntime int8": ("onnxruntime", "int8"),
}
CALLS = {1: 200, 64: 15}
WARM_UP = 10


def serve(connection: Connection, bundle: Path, runtime: latency.Runtime, precision: str, threads: int) -> None:
    """One engine: warm up on the first request of a batch size, then send back the seconds of each call."""
    call = latency.prepare(bundle, runtime, threads, precision)
    warm = set()
    while batch := connection.recv():
        images = latency.images_of(bundle, batch)
        for _ in range(0 if batch in warm else WARM_UP):
            call(images)
        warm.add(batch)
        times = []
        for _ in range(CALLS[batch]):
            start = time.perf_counter()
            call(images)
            times.append(time.perf_counter() - start)
        connection.send(times)


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    manifest = records.read(chosen.bundle / "manifest.json", Manifest)
    kept = {variant.precision for variant in manifest.kept}
    context, engines = get_context("spawn"), {}
    for name, (runtime, precision) in ENGINES.items():
        if precision not in kept:
            print(f"{name}: {chosen.bundle} holds no {precision} model")
            continue
        engines[name], theirs = context.Pipe()
        arguments = (theirs, chosen.bundle, runtime, precision, chosen.threads)
        context.Process(target=serve, args=arguments, daemon=True).start()
    samples: dict[tuple[str, int], list[list[float]]] = {(name, batch): [] for batch in CALLS for name in engines}
    order = list(samples)
    for _ in range(chosen.rounds):
        random.shuffle(order)
        for name, batch in order:
            engines[name].send(batch)
            samples[name, batch].append(engines[name].recv())
    for connection in engines.values():
        connection.send(0)
    rows = []
    for (name, batch), rounds in samples.items():
        eager = samples["torch eager", batch]
        ratios = [np.median(theirs) / np.median(mine) for theirs, mine in zip(eager, rounds, strict=True)]
        p50, p90 = np.percentile(np.concatenate(rounds) * 1e3, (50, 90))
        spread = f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append({"engine": name, "batch": batch, "p50": p50, "p90": p90, "ratio": spread})
    columns = [
        Column("engine", "engine"),
        Column("batch", "batch", right=True),
        Column("p50", "ms p50", "{:.3f}".format, right=True),
        Column("p90", "ms p90", "{:.3f}".format, right=True),
        Column("ratio", "times as fast as torch eager: median (range of rounds)", right=True),
    ]
    title = f"{manifest.task}, {chosen.threads} thread(s), {chosen.rounds} rounds, {manifest.environment['cpu']}"
    render(title, columns, rows, "markdown")


if __name__ == "__main__":
    main()
