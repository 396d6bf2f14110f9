"""What is timed when latency is measured: one call from decoded images to logits, on an engine with fixed threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cnnbench import records
from cnnbench.records.schema import Manifest
from cnnbench.types import CnnbenchError

Runtime = Literal["torch", "torch-compile", "onnxruntime"]
Provider = Literal["cpu", "cuda"]
RUNTIMES: tuple[Runtime, ...] = ("torch", "onnxruntime")
"""Those measured by default; torch.compile takes most of a minute to start, and is measured when it is asked for."""


@dataclass(frozen=True)
class Call:
    """One engine, ready: `call(images)` takes `(N, H, W, C)` uint8 in main memory and returns logits there."""

    logits: Callable[[np.ndarray], np.ndarray]
    device_seconds: Callable[[], float] | None = None
    """Time of the last call between two events on the device, copies included; None where there is no such clock."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.logits(images)


def bundles(folder: Path) -> list[Path]:
    """The bundles in `folder`, by name."""
    return sorted(path.parent for path in folder.glob("*/manifest.json"))


def images_of(bundle: Path, batch: int) -> np.ndarray:
    """`batch` real test images `(batch, H, W, C)` uint8: the golden ones, repeated as needed."""
    with np.load(bundle / "golden.npz", allow_pickle=False) as golden:
        pixels = golden["pixels"]
    images: np.ndarray = np.resize(pixels, (batch, *pixels.shape[1:]))
    return images


def prepare(bundle: Path, runtime: Runtime, threads: int, precision: str = "fp32", provider: Provider = "cpu") -> Call:
    """A call from images `(N, H, W, C)` uint8 to logits, on `runtime` on `provider`.

    All engines get the same uint8 images and do the same preprocessing inside the timed call. `precision` chooses
    among the files of the bundle; PyTorch has float32 alone.
    """
    if runtime == "onnxruntime":
        return _onnxruntime(bundle, threads, precision, provider)
    return _torch(bundle, threads, runtime == "torch-compile", provider)


def extra_info(
    bundle: Path, runtime: Runtime, batch: int, threads: int, precision: str = "fp32", provider: Provider = "cpu"
) -> dict[str, str | int]:
    """What a latency depends on, for the record beside the times. `model_sha256` is the bundle's: of its model.onnx."""
    manifest = records.read(bundle / "manifest.json", Manifest)
    return {
        "task": manifest.task,
        "arch": manifest.arch,
        "model_sha256": manifest.files["model.onnx"].sha256,
        "runtime": runtime,
        "precision": precision,
        "provider": provider,
        "batch": batch,
        "threads": threads,
    }


def file_of(bundle: Path, manifest: Manifest, precision: str) -> Path:
    """The bundle's file of this precision.

    Raises:
        CnnbenchError: It holds none (exit 2).
    """
    file = next((variant.file for variant in manifest.kept if variant.precision == precision), None)
    if file is None:
        raise CnnbenchError(f"{bundle} holds no {precision} model: it was not asked for, or was refused")
    return bundle / file


def _onnxruntime(bundle: Path, threads: int, precision: str, provider: Provider) -> Call:
    from cnnbench.runtime.predict import Model
    from cnnbench.runtime.providers import open_session

    file = file_of(bundle, records.read(bundle / "manifest.json", Manifest), precision)
    return Call(Model(bundle, open_session(file, provider, threads), precision).logits)


def _torch(bundle: Path, threads: int, compiled: bool, provider: Provider) -> Call:
    """PyTorch in inference mode, eager or compiled.

    The network is rebuilt from its name with fresh weights: a bundle holds none for torch, and the time of dense
    arithmetic does not depend on them.
    """
    import torch

    from cnnbench.architectures import build
    from cnnbench.bundles.graph import Deployable

    manifest = records.read(bundle / "manifest.json", Manifest)
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    network: Any = Deployable(build(manifest.arch, manifest.spec)).eval().to(provider)
    if compiled:
        # one compilation a batch size, whatever the order they come in; past torch's limit of eight it is an error,
        # where without fullgraph it would quietly run eagerly
        network = torch.compile(network, dynamic=False, fullgraph=True)
    return _on_cuda(network) if provider == "cuda" else _on_cpu(network)


def _on_cpu(network: Any) -> Call:
    import torch

    def logits(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            result: np.ndarray = network(torch.from_numpy(pixels)).numpy()
        return result

    return Call(logits)


def _on_cuda(network: Any) -> Call:
    """Host to host: copied in, run, copied out; with events around all three on the device's own clock."""
    import torch

    event: Any = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)

    def logits(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            start.record()
            on_host = network(torch.from_numpy(pixels).to("cuda")).cpu()
            end.record()
            torch.cuda.synchronize()
        result: np.ndarray = on_host.numpy()
        return result

    return Call(logits, lambda: start.elapsed_time(end) / 1e3)
