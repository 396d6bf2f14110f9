"""What a proof costs: `export`, less the conversion itself, against one bare ONNX Runtime pass over the same images.

    python benchmarks/verdict_seconds.py RUN [--folder FOLDER] [--root ROOT] [--rounds 3]

The bare pass is a process that opens the file and runs all test images in batches of 64, as the verdict does, and
nothing else. PyTorch's logits are those that `test` left, or computed again with --afresh. The conversion is timed in
the same process as the rest of the export, where it happens.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from cnnbench import records
from cnnbench.bundles import bundle, contract, graph
from cnnbench.datasets.choice import open_recorded
from cnnbench.records.schema import RunRecord
from cnnbench.training.checkpoints import load_classifier
from cnnbench.training.folder import find
from cnnbench.training.predictions import tested_logits

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


def main() -> None:
    """Measure, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--folder")
    parser.add_argument("--root")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--afresh", action="store_true", help="compute PyTorch's logits again")
    chosen = parser.parse_args()
    checkpoint = find(chosen.run)
    classifier, record = load_classifier(checkpoint), records.read(checkpoint.parent / "result.json", RunRecord)
    data = open_recorded(classifier.data, root=chosen.root, folder=chosen.folder)
    options = bundle.Options(["fp32"], ["cpu"], "uint8", False, 0.2)
    conversions = []
    convert = graph.to_onnx

    def timed(*arguments: Any, **more: Any) -> Any:
        start = time.perf_counter()
        made = convert(*arguments, **more)
        conversions.append(time.perf_counter() - start)
        return made

    graph.to_onnx = timed
    proofs, bare, passes = [], [], []
    for _ in range(chosen.rounds):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            tested = None if chosen.afresh else tested_logits(checkpoint, record)
            bundle.write(Path(folder), classifier, data, record, records.sha256(checkpoint), options, tested)
            proofs.append(time.perf_counter() - start - conversions[-1])
            with tempfile.TemporaryDirectory() as beside:
                np.save(Path(beside) / "images.npy", data.test.images)
                command = [sys.executable, "-c", BARE, f"{folder}/model.onnx", f"{beside}/images.npy"]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
            whole, loop = map(float, done.stdout.split())
            bare.append(whole)
            passes.append(loop)
    print(f"{record.task}: {len(data.test)} test images, opset {contract.OPSET}, medians of {chosen.rounds}")
    print(f"conversion to ONNX             {median(conversions):7.2f} s")
    print(f"all else that export does      {median(proofs):7.2f} s")
    print(f"bare pass, process and all     {median(bare):7.2f} s  ratio {median(proofs) / median(bare):.2f}")
    print(f"bare pass, the loop alone      {median(passes):7.2f} s  ratio {median(proofs) / median(passes):.2f}")


if __name__ == "__main__":
    main()
