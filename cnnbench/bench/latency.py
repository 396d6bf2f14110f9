"""What is timed when latency is measured: one call from decoded images to logits, on an engine with fixed threads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cnnbench import records
from cnnbench.types import CnnbenchError, Manifest

Runtime = Literal["torch", "torch-compile", "onnxruntime"]
RUNTIMES: tuple[Runtime, ...] = ("torch", "onnxruntime")
"""Those of the latency table; torch.compile takes most of a minute to start, and is timed by benchmarks/engines.py."""


def bundles(folder: Path) -> list[Path]:
    """The bundles in `folder`, by name."""
    return sorted(path.parent for path in folder.glob("*/manifest.json"))


def images_of(bundle: Path, batch: int) -> np.ndarray:
    """`batch` real test images `(batch, H, W, C)` uint8: the golden ones, repeated as needed."""
    with np.load(bundle / "golden.npz", allow_pickle=False) as golden:
        pixels = golden["pixels"]
    images: np.ndarray = np.resize(pixels, (batch, *pixels.shape[1:]))
    return images


def prepare(
    bundle: Path, runtime: Runtime, threads: int, precision: str = "fp32"
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from images `(N, H, W, C)` uint8 to logits, on `runtime` on the CPU.

    All engines get the same uint8 images and do the same preprocessing inside the timed call. `precision` chooses
    among the files of the bundle; PyTorch has float32 alone.
    """
    if runtime == "onnxruntime":
        return _onnxruntime(bundle, threads, precision)
    return _torch(bundle, threads, compiled=runtime == "torch-compile")


def extra_info(bundle: Path, runtime: Runtime, batch: int, threads: int) -> dict[str, str | int]:
    """What a latency depends on, for the record beside the times."""
    manifest = records.read(bundle / "manifest.json", Manifest)
    return {
        "task": manifest.task,
        "arch": manifest.arch,
        "model_sha256": manifest.files["model.onnx"]["sha256"],
        "runtime": runtime,
        "provider": "cpu",
        "batch": batch,
        "threads": threads,
    }


def _onnxruntime(bundle: Path, threads: int, precision: str) -> Callable[[np.ndarray], np.ndarray]:
    from cnnbench.runtime.predict import Model
    from cnnbench.runtime.providers import open_session

    manifest = records.read(bundle / "manifest.json", Manifest)
    file = next((variant.file for variant in manifest.kept if variant.precision == precision), None)
    if file is None:
        raise CnnbenchError(f"{bundle} holds no {precision} model: it was not asked for, or was refused")
    return Model(bundle, open_session(bundle / file, "cpu", threads), precision).logits


def _torch(bundle: Path, threads: int, compiled: bool) -> Callable[[np.ndarray], np.ndarray]:
    """PyTorch in inference mode, eager or compiled.

    The network is rebuilt from its name with fresh weights: a bundle holds none for torch, and the time of dense
    arithmetic does not depend on them.
    """
    import torch

    from cnnbench.architectures import build
    from cnnbench.export.graph import Deployable

    manifest = records.read(bundle / "manifest.json", Manifest)
    torch.manual_seed(0)
    network: Any = Deployable(build(manifest.arch, manifest.spec)).eval()
    torch.set_num_threads(threads)
    if compiled:
        network = torch.compile(network)

    def logits(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            result: np.ndarray = network(torch.from_numpy(pixels)).numpy()
        return result

    return logits
