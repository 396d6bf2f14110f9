"""The files of three networks in other runtimes, each in its own environment: which load, and how near they are.

    python benchmarks/portability.py [--cache FOLDER] [--only RUNTIME ...]

Trains lenet5, resnet20 and a small transformer for a few epochs on mnist5k, writes each in float32, float16 and int8,
and runs the nine files on 200 test images. Environments, networks and logits are kept in the cache folder; pip and npm
install into it. Prints the table of docs/portability.md. Exits 1 where a release of ONNX Runtime does not run a file.
"""

import argparse
import signal
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import platformdirs
import torch
from torch import Tensor, nn

import cnnbench
from cnnbench import ImageSpec
from cnnbench.bundles import graph, quantise
from cnnbench.bundles.bundle import open_run
from cnnbench.runtime.providers import open_session

HERE = Path(__file__).parent
OLDEST = HERE.parent / "tests" / "oldest.txt"
IMAGES = 200
SECONDS = 600
EPOCHS: dict[str, dict[str, object]] = {
    "lenet5": {"max_epochs": 3},
    "resnet20": {"max_epochs": 3},
    "transformer": {"max_epochs": 15, "lr": 0.2, "skip_checks": True},
}


@dataclass(frozen=True)
class Runtime:
    """What a row is of: its name, what pip or npm installs, and the function of portability_run.py that runs it."""

    name: str
    requirements: tuple[str, ...]
    function: str
    package: str
    """Whose version the row states."""


RUNTIMES = (
    Runtime("ONNX Runtime, oldest", ("-r", str(OLDEST)), "onnxruntime", "onnxruntime"),
    Runtime("ONNX Runtime, newest", ("onnxruntime",), "onnxruntime", "onnxruntime"),
    Runtime("onnxruntime-web, node", ("onnxruntime-web",), "", "onnxruntime-web"),
    Runtime("OpenVINO, default", ("openvino",), "openvino", "openvino"),
    Runtime("OpenVINO, f32 hint", ("openvino",), "openvino_f32", "openvino"),
    Runtime("OpenCV dnn", ("opencv-python-headless",), "opencv", "opencv-python-headless"),
    Runtime("onnx.reference", ("onnx",), "onnx_reference", "onnx"),
    Runtime("onnx2torch", ("onnx2torch",), "onnx2torch", "onnx2torch"),
)


class Transformer(nn.Module):
    """Sixteen patches, two encoder layers with layer norm first and GELU, the mean, a linear layer."""

    def __init__(self, spec: ImageSpec, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(spec.channels, width, spec.height // 4, stride=spec.height // 4)
        self.places = nn.Parameter(0.02 * torch.randn(16, width))
        options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        self.layers = nn.Sequential(*(nn.TransformerEncoderLayer(width, 4, 2 * width, **options) for _ in range(2)))
        self.head = nn.Linear(width, spec.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places  # N, 16, width
        return self.head(self.layers(tokens).mean(1))


def transformer(spec: ImageSpec) -> nn.Module:
    """A small vision transformer."""
    return Transformer(spec)


@dataclass(frozen=True)
class File:
    """An ONNX file, and what this environment's ONNX Runtime answers to the images: logits `(N, num_classes)`."""

    network: str
    precision: str
    path: Path
    logits: np.ndarray


def make_files(cache: Path) -> list[File]:
    """Train what is not in the cache, write every file and the images."""
    files = []
    for arch, options in EPOCHS.items():
        folder = cache / "runs" / f"mnist5k_{arch}" / "seed1"
        if not (folder / "result.json").is_file():
            cnnbench.fit(runs_dir=cache / "runs", arch=arch, dataset="mnist5k", overwrite=True, **options)
        run = open_run(folder)
        images = run.data.test.images[:IMAGES]
        np.save(cache / "images.npy", images)
        fp32 = graph.to_onnx(run.classifier.network, run.record.spec, metadata={}).model
        for precision in quantise.PRECISIONS:
            model = quantise.make(precision, fp32, images=run.data.train.images, dtype="uint8")
            graph.sign(model, {})
            path = cache / f"{arch}_{precision}.onnx"
            graph.save(model, path)
            (logits,) = open_session(path).run(["logits"], {"pixels": images})
            files.append(File(arch, precision, path, logits))
    return files


@dataclass(frozen=True)
class Environment:
    """Where a runtime is installed: the start of the command that runs a file, and its version."""

    command: tuple[str, ...]
    version: str


def install(runtime: Runtime, cache: Path) -> Environment:
    """Make the environment of a runtime in the cache, or take the one that is there.

    Raises:
        subprocess.CalledProcessError: pip or npm fails.
        FileNotFoundError: There is no node.
    """
    folder = cache / "environments" / runtime.name.partition(",")[0].replace(" ", "_")
    if runtime.name == "ONNX Runtime, oldest":
        folder = folder.with_name("oldest")
    if runtime.package == "onnxruntime-web":
        folder.mkdir(parents=True, exist_ok=True)
        _run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *runtime.requirements)
        line = f"require('{folder}/node_modules/{runtime.package}/package.json').version"
        version = _run("node", "-p", line)
        return Environment(("node", str(HERE / "portability_run.mjs"), str(folder)), version)
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *runtime.requirements)
    ask = f"from importlib.metadata import version; print(version({runtime.package!r}))"
    return Environment((str(python), str(HERE / "portability_run.py"), runtime.function), _run(str(python), "-c", ask))


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS).stdout.strip()


def run(environment: Environment, file: File, cache: Path) -> np.ndarray | str:
    """Logits of the images `(N, num_classes)`, or why there are none."""
    out = cache / "logits.npy"
    out.unlink(missing_ok=True)
    command = [*environment.command, str(file.path), str(cache / "images.npy"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode < 0:
        return f"crashes ({signal.Signals(-done.returncode).name})"
    if done.returncode or not out.is_file():
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if "Error" in line or "error" in line), lines[-1])
        return said.replace("|", "/").replace(str(file.path), file.path.name)[-300:]
    return np.load(out)


class Table:
    """Rows as they come, and numbered notes below them."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, reason: str) -> str:
        """The number of a reason."""
        if reason not in self.notes:
            self.notes.append(reason)
        return f"[{self.notes.index(reason) + 1}]"

    def row(self, *cells: str) -> None:
        print(f"| {' | '.join(cells)} |", flush=True)

    def end(self) -> None:
        print()
        for number, reason in enumerate(self.notes, 1):
            print(f"{number}. {reason}")


def cell(result: np.ndarray | str, file: File, table: Table) -> str:
    """How many images have the same top-1 class, and the largest difference in parts of the largest logit."""
    if isinstance(result, str):
        return f"does not run {table.note(result)}"
    equal = int((result.argmax(1) == file.logits.argmax(1)).sum())
    difference = np.abs(result - file.logits).max() / np.abs(file.logits).max()
    return f"{equal} of {len(result)}, {difference:.1e}"


def compare(runtimes: Sequence[Runtime], cache: Path) -> int:
    """Print the table; returns how many files a release of ONNX Runtime did not run."""
    files, table, failed = make_files(cache), Table(), 0
    print(f"Against ONNX Runtime {onnxruntime.__version__} on {IMAGES} test images of mnist5k, 64 at a time:\n")
    table.row("runtime", "version", "precision", *EPOCHS)
    table.row(*["---"] * 3, *["---:"] * len(EPOCHS))
    for runtime in runtimes:
        try:
            environment = install(runtime, cache)
        except (subprocess.SubprocessError, OSError) as error:
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
            table.row(runtime.name, "", "", *[f"not installed {table.note(said)}"] * len(EPOCHS))
            continue
        for precision in quantise.PRECISIONS:
            chosen = [file for file in files if file.precision == precision]
            results = [run(environment, file, cache) for file in chosen]
            failed += runtime.package == "onnxruntime" and sum(isinstance(result, str) for result in results)
            cells = [cell(result, file, table) for result, file in zip(results, chosen, strict=True)]
            table.row(runtime.name, environment.version, precision, *cells)
    table.end()
    return failed


def main() -> int:
    """Parse the options and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(platformdirs.user_cache_dir("cnnbench")) / "portability"
    parser.add_argument("--cache", type=Path, default=default, help=f"default {default}")
    parser.add_argument("--only", nargs="+", choices=[runtime.name for runtime in RUNTIMES], metavar="RUNTIME")
    chosen = parser.parse_args()
    cnnbench.register_architecture(transformer)
    cache = chosen.cache.absolute()
    cache.mkdir(parents=True, exist_ok=True)
    runtimes = [runtime for runtime in RUNTIMES if not chosen.only or runtime.name in chosen.only]
    return int(compare(runtimes, cache) > 0)


if __name__ == "__main__":
    sys.exit(main())
