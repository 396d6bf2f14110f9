"""Batch norm folded into convolutions or left in the graph: bytes, milliseconds, and error of the ONNX file.

    python benchmarks/batch_norm.py [--arch resnet20 ...] [--rounds 15]

Both files are of the same untrained network; one image at a time, one thread, calls of the two in turn. ONNX Runtime
folds what is left when it loads a file with its optimisations on; other runtimes and quantisers do not all do so.
"""

import argparse
import time
from unittest import mock

import numpy as np
import onnx
import torch
from proof import randomised

from cnnbench.bundles import contract, folding, graph
from cnnbench.runtime.providers import LEVELS, Level, open_session
from cnnbench.types import ImageSpec

SPEC = ImageSpec(32, 32, 3, 10, (0.5,) * 3, (0.25,) * 3)


def files(arch: str) -> dict[str, onnx.ModelProto]:
    """The file as it is exported, and one in which every batch norm is an operator."""
    network = randomised(arch, SPEC)
    folded = graph.to_onnx(network, SPEC, metadata={}).model
    export = torch.onnx.export

    def unoptimised(*args: object, **options: object) -> object:
        return export(*args, **{**options, "optimize": False})  # type: ignore[arg-type]

    with (
        mock.patch.object(folding, "_folded_weights", return_value=None),
        mock.patch.object(folding, "_merge_branches", return_value=0),
        mock.patch.object(torch.onnx, "export", unoptimised),
    ):
        left = graph.to_onnx(network, SPEC, metadata={}).model
    return {"folded": folded, "left": left}


def main() -> None:
    """Print a row per network, file and level of optimisation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", default=["resnet20", "resnet18", "googlenet"])
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    print("| network | batch norm | nodes | bytes | ms, optimised | ms, not optimised |\n" + "| --- " * 6 + "|")
    pixels = np.random.RandomState(0).randint(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    for arch in chosen.arch:
        models = files(arch)
        sessions = {
            (kind, level): open_session(model.SerializeToString(), "cpu", threads=1, level=level)
            for kind, model in models.items()
            for level in LEVELS[:2]
        }
        times: dict[tuple[str, Level], list[float]] = {key: [] for key in sessions}
        for _ in range(chosen.rounds * 10):
            for key, session in sessions.items():
                began = time.perf_counter()
                session.run([contract.LOGITS], {contract.INPUT: pixels})
                times[key].append(1e3 * (time.perf_counter() - began))
        for kind, model in models.items():
            on, off = (float(np.median(times[kind, level])) for level in LEVELS[:2])
            size = len(model.SerializeToString())
            print(f"| {arch} | {kind} | {len(model.graph.node)} | {size:,} | {on:.3f} | {off:.3f} |", flush=True)


if __name__ == "__main__":
    main()
