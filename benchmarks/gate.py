"""The regression gate shown: quiet where nothing changed, and not where a slowdown was planted.

    python benchmarks/gate.py BUNDLE [--runs 10] [--seconds 5] [--slowdown 1.3]

Ten times the bundle is compared with itself; none may be called a regression. Then a copy is compared with it whose
model.onnx has real work added behind its logits, multiplied by zero: same answers, about 1.3 x the time.
"""

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cnnbench import records
from cnnbench.bench import networks, plan
from cnnbench.bench.plan import LatencyOptions
from cnnbench.bench.regression import BundleComparison, compare_bundles
from cnnbench.cli.table import render
from cnnbench.records.bundle import FileHash, Manifest
from cnnbench.tables.columns import Column

WIDTH = 128
"""Width of a planted product; small beside a layer of most networks, so that its number sets the slowdown finely."""
FIRST_GUESS, CORRECTIONS = 50, 3
COLUMNS = [
    Column("run", "run"),
    Column("ratio", "time of A / time of B", "{:.3f}".format, right=True),
    Column("interval", "95 % interval", right=True),
    Column("smallest_seen", "slowdown that would be seen", "{:.3f}".format, right=True),
    Column("times", "measured", right=True),
    Column("answer", "answer"),
]


def planted(model: onnx.ModelProto, products: int) -> onnx.ModelProto:
    """A copy of the model that does so many more matrix products, which depend on its input, and answers the same."""
    slow = onnx.ModelProto()
    slow.CopyFrom(model)
    graph = slow.graph
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = ["logits_before" if name == "logits" else name for name in names]
    classes = next(value for value in graph.output if value.name == "logits").type.tensor_type.shape.dim[1].dim_value
    draw = np.random.default_rng(0)
    sizes = [classes, *[WIDTH] * products, classes]
    name = "logits_before"
    for index, (rows, columns) in enumerate(pairwise(sizes)):
        weights = (draw.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(weights, f"planted_weights{index}"))
        graph.node.append(helper.make_node("MatMul", [name, f"planted_weights{index}"], [f"planted{index}"]))
        name = f"planted{index}"
    graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), "planted_zero"))
    graph.node.append(helper.make_node("Mul", [name, "planted_zero"], ["planted_nothing"]))
    graph.node.append(helper.make_node("Add", ["logits_before", "planted_nothing"], ["logits"]))
    return slow


def slow_copy(bundle: Path, copy: Path, products: int) -> None:
    """A bundle like `bundle` with the work planted; its manifest is sealed again."""
    shutil.copytree(bundle, copy, dirs_exist_ok=True)
    onnx.save(planted(onnx.load(bundle / "model.onnx"), products), copy / "model.onnx")
    manifest = records.read(bundle / "manifest.json", Manifest)
    entry = FileHash(records.sha256(copy / "model.onnx"), (copy / "model.onnx").stat().st_size)
    records.write(copy / "manifest.json", records.replace(manifest, files={**manifest.files, "model.onnx": entry}))


def milliseconds(bundles: list[Path], batch: int) -> list[float]:
    """Median time of a call of each, in turns."""
    options = LatencyOptions(backends=["onnxruntime"])
    calls = [networks.open_backend(plan.setups([bundle], options)[0]) for bundle in bundles]
    images = networks.golden_images(bundles[0], batch)
    rounds = []
    for _ in range(300):
        times = []
        for call in calls:
            call(images)
            start = time.perf_counter()
            call(images)
            times.append(1e3 * (time.perf_counter() - start))
        rounds.append(times)
    return [float(median) for median in np.median(rounds, axis=0)]


def plant(bundle: Path, slow: Path, *, slowdown: float, batch: int) -> int:
    """Write the slow copy, and return how many products make it about `slowdown` times as slow."""
    products = FIRST_GUESS
    for _ in range(CORRECTIONS):
        slow_copy(bundle, slow, products)
        fast_ms, slow_ms = milliseconds([bundle, slow], batch)
        products = max(1, round(products * (slowdown - 1) * fast_ms / (slow_ms - fast_ms)))
    slow_copy(bundle, slow, products)
    return products


@dataclass(frozen=True)
class GateRow:
    """One comparison, by its last measurement."""

    run: str
    ratio: float
    interval: str
    smallest_seen: float
    times: str
    answer: str


def row(run: str, comparison: BundleComparison) -> GateRow:
    """A row of the table."""
    last = comparison.effects[-1]
    return GateRow(
        run=run,
        ratio=last.ratio,
        interval=f"{last.low:.3f} to {last.high:.3f}",
        smallest_seen=max(effect.smallest_seen for effect in comparison.effects),
        times="twice" if len(comparison.effects) > 1 else "once",
        answer=(
            "regression" if comparison.regression else "cannot tell" if comparison.cannot_tell else "no regression"
        ),
    )


def measure(chosen: argparse.Namespace, slow: Path) -> list[GateRow]:
    """The bundle against itself as often as chosen, then the slow copy against it."""
    rows = []
    for run in range(chosen.runs + 1):
        candidate, name = (slow, "planted") if run == chosen.runs else (chosen.bundle, f"A/A {run + 1}")
        options = LatencyOptions(backends=["onnxruntime"], batches=[chosen.batch], seconds=chosen.seconds, seed=run)
        (comparison,) = compare_bundles(candidate, chosen.bundle, options=options)
        print(comparison.answer, file=sys.stderr)
        rows.append(row(name, comparison))
    return rows


def main() -> int:
    """Run the gate; prints one table. Exits 1 if the gate failed either way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--slowdown", type=float, default=1.3)
    parser.add_argument("--batch", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        slow = Path(folder) / chosen.bundle.name
        products = plant(chosen.bundle, slow, slowdown=chosen.slowdown, batch=chosen.batch)
        print(f"planted: {products} matrix products", file=sys.stderr)
        rows = measure(chosen, slow)
    render(COLUMNS, rows, title="The regression gate", format="markdown")
    answers = [row.answer for row in rows]
    quiet, caught = "regression" not in answers[:-1], answers[-1] == "regression"
    return 0 if quiet and caught else 1


if __name__ == "__main__":
    sys.exit(main())
