"""What the exact proof sees: changes of single weights, of constants and of arithmetic, and the time of each step.

    python benchmarks/proof.py [--changes 200] [--only NAME ...] [--seconds 20]

Five networks, untrained, with random batch-norm statistics and a random last layer. Each change is made in the exported
file. "export" asks whether a constant still has the bits of the network or the float64 outputs differ; "outputs" asks
the float64 outputs alone, on all golden images; "verify" asks them as `verify` does on a bundle whose hashes a forger
has made fit, in --seconds. The tables are in Markdown, as docs/proof.md has them. Exits 1 where export misses a change.
"""

import argparse
import sys
import time
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cnnbench.architectures import build
from cnnbench.bundles import contract, graph
from cnnbench.bundles.float64 import in_float64
from cnnbench.bundles.parity import comparison, exact, weights
from cnnbench.bundles.parity.golden import golden_images
from cnnbench.bundles.parity.proof import prove
from cnnbench.bundles.parity.reference import torch_logits
from cnnbench.records.bundle import Proof
from cnnbench.runtime.providers import LEVELS, open_session
from cnnbench.types import CnnbenchError, ImageSpec

NETWORKS = {
    "lenet5": ImageSpec(28, 28, 1, 10, (0.1307,), (0.3081,)),
    **dict.fromkeys(("resnet20", "resnet18", "googlenet"), ImageSpec(32, 32, 3, 10, (0.5,) * 3, (0.25,) * 3)),
    "torchvision/vit_b_32": ImageSpec(64, 64, 3, 10, (0.5,) * 3, (0.25,) * 3),
}
CHANGES: dict[str, Callable[[np.float32], np.float32]] = {
    "1 %": lambda w: np.float32(w * np.float32(1.01)),
    "0.1 %": lambda w: np.float32(w * np.float32(1.001)),
    "1e-5": lambda w: np.float32(w * np.float32(1.00001)),
    "one ulp": lambda w: np.nextafter(w, np.float32(np.inf), dtype=np.float32),
}


WITHOUT_TORCH = "4 images in float64, without torch"


@dataclass
class Case:
    """A network, its file and its proof."""

    name: str
    spec: ImageSpec
    exported: graph.Exported
    proof: Proof
    pixels: np.ndarray
    expected: np.ndarray
    seconds: dict[str, float]
    numbers: weights.Numbers = field(init=False)
    file: exact.InFloat64 = field(init=False)

    def __post_init__(self) -> None:
        floats, integers = self.exported.reference.numbers()
        self.numbers = weights.Numbers(self.exported.reference.tensors(), floats=floats, integers=integers)
        self.file = self.opened(self.exported.model)

    def opened(self, model: onnx.ModelProto) -> exact.InFloat64:
        literals = weights.by_rounding(self.proof.literals)
        return exact.InFloat64(model, literals=literals, parameters=weights.of_parameters(self.proof.constants))

    def seen(self, logits: Callable[[int], np.ndarray], seconds: float) -> tuple[bool, bool]:
        """Whether logits in float64 differ on any golden image, and on those that `verify` reaches in `seconds`.

        Args:
            logits: Number of a golden image -> logits `(1, num_classes)`.
            seconds: Seconds of `verify`.
        """
        largest, per_image = float(np.abs(self.expected).max()), self.seconds[WITHOUT_TORCH] / 4
        for index in range(len(self.pixels)):
            expected = self.expected[index : index + 1]
            if not comparison.relative(expected, logits(index), largest=largest) <= comparison.EXACT:
                return True, index < 4 or index * per_image <= seconds
        return False, False

    def whole(self, file: exact.InFloat64) -> Callable[[int], np.ndarray]:
        """Logits of another file."""
        return lambda index: file.logits(self.pixels[index : index + 1])


class Changes:
    """The file of a case with one constant changed: what does not follow from it is not evaluated again."""

    def __init__(self, case: Case) -> None:
        evaluator = case.file._evaluator
        self.nodes, self.constants = evaluator.rt_nodes_, evaluator.rt_inits_
        self.results = []
        for index in range(len(case.pixels)):
            results = {"": None, **self.constants, contract.INPUT: case.pixels[index : index + 1]}
            for node in self.nodes:  # which may return more than the graph names
                results.update(zip(node.output, self._run(node, results), strict=False))
            self.results.append(results)

    @staticmethod
    def _run(node: Any, results: Mapping[str, Any]) -> Any:
        inputs = [results[name] for name in node.input]
        return node.run(*inputs, context=results) if node.need_context() else node.run(*inputs)

    def logits(self, name: str, values: np.ndarray) -> Callable[[int], np.ndarray]:
        """Number of a golden image -> logits `(1, num_classes)` with `values` instead of the constant `name`."""

        def of(index: int) -> np.ndarray:
            before = self.results[index]
            new: dict[str, Any] = {name: values}
            results = ChainMap(new, before)
            for node in self.nodes:
                if not new.keys().isdisjoint(node.input):
                    for output, value in zip(node.output, self._run(node, results), strict=False):
                        if not np.array_equal(value, before[output]):
                            new[output] = value
            logits: np.ndarray = results[contract.LOGITS]
            return logits

        return of


def randomised(name: str, spec: ImageSpec) -> nn.Module:
    """An untrained network whose every weight matters: no statistics of 0 and 1, no last layer of zeros."""
    torch.manual_seed(1)
    network = build(name, spec).eval()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.02)
    return network


def made(name: str, spec: ImageSpec) -> Case:
    """Export a network, prove it, and time the steps."""
    network = randomised(name, spec)
    random = np.random.RandomState(0)
    pixels = golden_images(random.randint(0, 256, (50, spec.height, spec.width, spec.channels)).astype(np.uint8)).pixels
    began = time.perf_counter()
    exported = graph.to_onnx(network, spec, metadata={})
    converted = time.perf_counter()
    proven = prove(exported, images=pixels, dtype="uint8")
    seconds = {"trace, fold and convert": converted - began, "prove": time.perf_counter() - converted}
    case = Case(name, spec, exported, proven.proof, pixels, proven.logits, seconds)
    began = time.perf_counter()
    case.file.logits(pixels[:4])
    seconds[WITHOUT_TORCH] = time.perf_counter() - began
    began = time.perf_counter()
    in_float64(exported.deployable.double(), torch.tensor(pixels[:4]))
    seconds["4 images in float64, in torch"] = time.perf_counter() - began
    exported.deployable.float()
    return case


def drawn(case: Case, count: int) -> Iterator[tuple[str, int]]:
    """Places of weights that are not zero, drawn from all of the file's constants alike."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in case.exported.model.graph.initializer}
    arrays = {name: array for name, array in arrays.items() if array.dtype == np.float32}
    sizes = np.array([array.size for array in arrays.values()])
    random = np.random.RandomState(2)
    names = list(arrays)
    for _ in range(count):
        while True:
            name = names[random.choice(len(names), p=sizes / sizes.sum())]
            index = int(random.randint(arrays[name].size))
            if arrays[name].flat[index]:
                yield name, index
                break


def single_weights(case: Case, count: int, seconds: float) -> Iterator[str]:
    """A row per size of change: the share that is caught by each."""
    changes = Changes(case)
    for label, change in CHANGES.items():
        by_export, by_outputs, by_verify, unseen = 0, 0, 0, {"idle": 0, "small": 0}
        for name, index in drawn(case, count):
            changed = numpy_helper.to_array(
                next(t for t in case.exported.model.graph.initializer if t.name == name)
            ).copy()
            changed.flat[index] = change(changed.flat[index])
            wide = changes.constants[name].copy()
            wide.flat[index] = float(changed.flat[index])
            outputs, verified = case.seen(changes.logits(name, wide), seconds)
            if not outputs:
                wide.flat[index] += 1
                unseen["small" if case.seen(changes.logits(name, wide), seconds)[0] else "idle"] += 1
            by_export += outputs or not case.numbers.rule(name, changed)[0]
            by_outputs += outputs
            by_verify += verified
        texts = {"idle": "behind a ReLU that is 0 on all golden images", "small": "of less than 1e-12"}
        reason = ", ".join(f"{number} {texts[kind]}" for kind, number in unseen.items() if number)
        yield (
            f"| {case.name} | a weight, {label} | {count} | {by_export / count:.1%} | {by_outputs / count:.1%} | "
            f"{by_verify / count:.1%} | {reason} |"
        )


def whole_changes(case: Case, seconds: float) -> Iterator[str]:
    """A row per change of the network that the file was made from, and per fault of an exporter."""
    for label, model in others(case):
        try:
            floats, integers = case.exported.reference.numbers()
            accounts = weights.account(model, case.exported.reference.tensors(), floats=floats, integers=integers)
            held = all(
                entry.sha256 == known.sha256 and entry.name == known.name
                for entry, known in zip(accounts.constants, case.proof.constants, strict=True)
            )
            said = "" if held else "other constants"
        except (CnnbenchError, ValueError) as error:
            said = str(error).partition("its constant ")[2].partition(" (")[0] or str(error)
        outputs, verified = case.seen(case.whole(case.opened(model)), seconds)
        yield (
            f"| {case.name} | {label} | 1 | {'100.0%' if outputs or said else '0.0%'} | {100 * outputs:.1f}% | "
            f"{100 * verified:.1f}% | {f'constant {said}' if said and not outputs else ''} |"
        )


def others(case: Case) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Files of networks that are almost this one."""
    name, spec = case.name, case.spec
    for label, kind in (
        ("batch-norm epsilon 1e-5 to 1.1e-5", nn.modules.batchnorm._BatchNorm),
        ("layer-norm epsilon 1e-6 to 1.1e-6", nn.LayerNorm),
    ):
        network = randomised(name, spec)
        layers = [module for module in network.modules() if isinstance(module, kind)]
        for layer in layers:
            layer.eps *= 1.1
        if layers:
            yield label, graph.to_onnx(network, spec, metadata={}).model
    mean = {0.1307: 0.13}.get(spec.mean[0], spec.mean[0] * 1.005)
    other = ImageSpec(spec.height, spec.width, spec.channels, spec.num_classes, (mean, *spec.mean[1:]), spec.std)
    yield f"mean {spec.mean[0]:g} to {mean:g}", graph.to_onnx(randomised(name, other), spec, metadata={}).model
    model = onnx.ModelProto()
    model.CopyFrom(case.exported.model)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data) if tensor.data_type == 1 else 0)
    values = numpy_helper.to_array(largest).copy()
    values.flat[0], values.flat[1] = values.flat[1], values.flat[0]
    largest.CopyFrom(numpy_helper.from_array(values, largest.name))
    yield f"two neighbouring weights of {largest.name} swapped", model


class Rounded(TorchDispatchMode):
    """Products of numbers that are first rounded to `bits` of mantissa, sums in float32: TF32, half and bfloat16."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func.overloadpacket.__name__ in ("convolution", "mm", "addmm", "bmm", "baddbmm"):
            args = tuple(self._round(value) if isinstance(value, Tensor) else value for value in args)
        return func(*args, **(kwargs or {}))

    def _round(self, values: Tensor) -> Tensor:
        mantissa, exponent = torch.frexp(values)
        return torch.ldexp(torch.round(mantissa * 2**self.bits) / 2**self.bits, exponent)


def arithmetic(case: Case) -> str:
    """A row: how far float32 and less are off, in parts of the largest logit, and the bound."""
    network = case.exported.deployable.network
    largest = float(np.abs(case.expected).max())

    def off(logits: np.ndarray) -> float:
        return float(np.abs(logits - case.expected).max()) / largest

    serialized = case.exported.model.SerializeToString()
    rows = [off(torch_logits(network, case.pixels))]
    for level in LEVELS[:2]:
        session = open_session(serialized, "cpu", level=level)
        rows.append(off(session.run([contract.LOGITS], {contract.INPUT: case.pixels})[0]))
    for bits in (11, 8):
        with torch.no_grad(), Rounded(bits):
            rows.append(off(case.exported.deployable(torch.tensor(case.pixels)).numpy()))
    bound = comparison.error_bound(rows[0] * largest, largest) / largest
    return f"| {case.name} | " + " | ".join(f"{value:.1e}" for value in (*rows, bound)) + " |"


def main() -> int:
    """Print the tables; 1 where a change is not seen at export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    chosen = parser.parse_args()
    cases = {name: made(name, NETWORKS[name]) for name in chosen.only}
    print("| network | step | seconds |\n| --- | --- | ---: |")
    for case in cases.values():
        for step, seconds in case.seconds.items():
            print(f"| {case.name} | {step} | {seconds:.2f} |", flush=True)
    print("\n| network | PyTorch float32 | ONNX Runtime | without optimisations | TF32 or half | bfloat16 | bound |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for case in cases.values():
        print(arithmetic(case), flush=True)
    print("\n| network | change | times | export | outputs | verify | not seen in the outputs |")
    print("| --- | --- | ---: | ---: | ---: | ---: | --- |")
    missed = False
    for case in cases.values():
        for rows in (single_weights(case, chosen.changes, chosen.seconds), whole_changes(case, chosen.seconds)):
            for row in rows:
                print(row, flush=True)
                missed |= row.split("|")[4].strip() != "100.0%"
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
