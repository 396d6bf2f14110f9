"""The network of a bundle, loaded by each backend: one call goes from decoded images to logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cnnbench import records
from cnnbench.bench.plan import Setup, model_file
from cnnbench.records.bundle import Manifest

LIBRARY = {"torch": "torch", "torch-compile": "torch", "onnxruntime": "onnxruntime", "openvino": "openvino"}
OURS = {
    "torch": ("cnnbench.architectures", "cnnbench.bundles.graph"),
    "torch-compile": ("cnnbench.architectures", "cnnbench.bundles.graph"),
    "onnxruntime": ("cnnbench.runtime.predict", "cnnbench.runtime.providers"),
    "openvino": ("cnnbench.runtime.predict", "cnnbench.runtime.openvino_session"),
}
"""Modules of ours that a backend needs, whose time to import is not the backend's."""


@dataclass(frozen=True)
class Call:
    """A loaded network: `call(images)` takes `(N, H, W, C)` uint8 in main memory and returns logits there."""

    logits: Callable[[np.ndarray], np.ndarray]
    device_seconds: Callable[[], float] | None = None
    """Time of the last call between two events on the device, copies included; None where there is no such clock."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What the library says it was told besides threads."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.logits(images)


def golden_images(bundle: Path, batch: int) -> np.ndarray:
    """`batch` real test images `(batch, H, W, C)` uint8: those of the bundle's golden.npz, repeated as needed."""
    with np.load(bundle / "golden.npz", allow_pickle=False) as golden:
        pixels = golden["pixels"]
    images: np.ndarray = np.resize(pixels, (batch, *pixels.shape[1:]))
    return images


def open_backend(setup: Setup) -> Call:
    """Load the network of a setup in this process.

    Every backend gets the same uint8 images and does the same preprocessing inside the timed call.
    """
    if setup.backend == "onnxruntime":
        return _onnxruntime(setup)
    if setup.backend == "openvino":
        return _openvino(setup)
    return _torch(setup)


def _onnxruntime(setup: Setup) -> Call:
    from cnnbench.runtime.predict import Model
    from cnnbench.runtime.providers import open_session

    session = open_session(model_file(setup.bundle, precision=setup.precision), setup.provider, threads=setup.threads)
    return Call(Model(setup.bundle, session, setup.precision).logits)


def _openvino(setup: Setup) -> Call:
    from cnnbench.runtime.openvino_session import OpenvinoSession
    from cnnbench.runtime.predict import Model

    session = OpenvinoSession(model_file(setup.bundle, precision=setup.precision), threads=setup.threads)
    return Call(Model(setup.bundle, session, setup.precision).logits, settings=session.settings)


def _torch(setup: Setup) -> Call:
    """PyTorch in inference mode, eager or compiled.

    The network is rebuilt from its name with fresh weights: a bundle holds none for torch, and the time of dense
    arithmetic does not depend on them. It is in its inference form, as the bundle's files are.
    """
    import torch

    from cnnbench.architectures import build
    from cnnbench.architectures.inference import merge_branches
    from cnnbench.bundles.graph import Deployable

    manifest = records.read(setup.bundle / "manifest.json", Manifest)
    torch.manual_seed(0)
    torch.set_num_threads(setup.threads)
    built = build(manifest.arch, manifest.spec).eval()
    network: Any = Deployable(merge_branches(built) or built).eval().to(setup.provider)
    if setup.backend == "torch-compile":
        # one compilation per batch size, whatever the order they come in; past torch's limit of eight it is an error,
        # where without fullgraph it would quietly run eagerly
        network = torch.compile(network, dynamic=False, fullgraph=True)
    return _on_cuda(network) if setup.provider == "cuda" else _on_cpu(network)


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
