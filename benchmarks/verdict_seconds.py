"""What verification costs: `export`, less the conversion, against one bare ONNX Runtime pass over the same images.

    python benchmarks/verdict_seconds.py RUN [--folder FOLDER] [--root ROOT] [--rounds 3]

The bare pass is a process that opens the file and runs all test images in batches of 64, as the verification does, and
nothing else. PyTorch's logits are those that `test` left, or computed again with --afresh. The conversion is timed in
the same process as the rest of the export, where it happens.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from cnnbench.bundles import bundle, contract, graph

BARE = """
import sys, time
start = time.perf_counter()
import numpy as np, onnxruntime
images = np.load(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
begin = time.perf_counter()
for first in range(0, len(images), 64):
    session.run(None, {"pixels": images[first : first + 64]})
print(time.perf_counter() - start, time.perf_counter() - begin)
"""


def bare_pass(model: Path, images: np.ndarray) -> tuple[float, float]:
    """Seconds of a process that runs all images, and of the loop in it alone."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "images.npy", images)
        command = [sys.executable, "-c", BARE, str(model), f"{folder}/images.npy"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    process, loop = map(float, done.stdout.split())
    return process, loop


def main() -> None:
    """Measure, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--folder")
    parser.add_argument("--root")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--afresh", action="store_true", help="compute PyTorch's logits again")
    chosen = parser.parse_args()
    run = bundle.open_run(chosen.run, root=chosen.root, folder=chosen.folder)
    if chosen.afresh:
        run = replace(run, tested_logits=None)
    conversions = []
    convert = graph.to_onnx

    def timed(*arguments: Any, **more: Any) -> Any:
        start = time.perf_counter()
        model = convert(*arguments, **more)
        conversions.append(time.perf_counter() - start)
        return model

    graph.to_onnx = timed
    exports, bare, passes = [], [], []
    for _ in range(chosen.rounds):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            bundle.write(Path(folder), run, options=bundle.ExportOptions())
            exports.append(time.perf_counter() - start - conversions[-1])
            process, loop = bare_pass(Path(folder) / "model.onnx", run.data.test.images)
            bare.append(process)
            passes.append(loop)
    images = len(run.data.test)
    print(f"{run.record.task}: {images} test images, opset {contract.OPSET}, medians of {chosen.rounds}")
    print(f"conversion to ONNX             {median(conversions):7.2f} s")
    print(f"all else that export does      {median(exports):7.2f} s")
    print(f"bare pass, process and all     {median(bare):7.2f} s  ratio {median(exports) / median(bare):.2f}")
    print(f"bare pass, the loop alone      {median(passes):7.2f} s  ratio {median(exports) / median(passes):.2f}")


if __name__ == "__main__":
    main()
