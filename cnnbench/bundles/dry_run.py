"""Whether a network exports, tried on untrained weights: before the hours of training, not after them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime

from cnnbench.architectures import build
from cnnbench.bundles import contract, graph
from cnnbench.bundles.parity.comparison import error_bound
from cnnbench.bundles.parity.proof import ask, prove
from cnnbench.bundles.parity.reference import torch_logits
from cnnbench.types import SEED, CnnbenchError, Exit, ImageSpec, first_line

IMAGES = 64
PROVEN_IMAGES = 8


@dataclass(frozen=True)
class DryExport:
    """An untrained network as ONNX, compared with PyTorch on random images."""

    arch: str
    spec: ImageSpec
    bytes: int
    """Bytes of the float32 file."""
    images: int
    largest_error: float
    """Largest error of any logit."""
    error_bound: float
    """What is allowed; see `parity.comparison`."""
    graph_error: float
    """Graph error of the file, evaluated in float64, from the network, in parts of the largest logit."""


def dry_export_warnings(arch: str, spec: ImageSpec) -> tuple[str, ...]:
    """Why a network does not export, for one that is to be trained whether it does or not."""
    try:
        dry_export(arch, spec)
    except CnnbenchError as error:
        return (f"it trains but does not export: {error}",)
    return ()


def dry_export(arch: str, spec: ImageSpec) -> DryExport:
    """Export an architecture untrained, in memory, and compare ONNX Runtime's logits with PyTorch's.

    Raises:
        CnnbenchError: Unknown architecture, or a size that it cannot take (exit 2); it cannot be exported, ONNX Runtime
            cannot run it, or computes something else (exit 4).
    """
    network = build(arch, spec).eval()
    shape = (IMAGES, spec.height, spec.width, spec.channels)
    images = np.random.RandomState(SEED % 2**32).randint(0, 256, shape).astype(np.uint8)
    try:
        asked = ask(graph.Deployable(network).eval(), images, dtype="uint8")
        exported = graph.to_onnx(network, spec, metadata={})
        proven = prove(exported, images=images[:PROVEN_IMAGES], dtype="uint8", asked=asked)
        expected = torch_logits(network, images)
        serialized = exported.model.SerializeToString()
        session = onnxruntime.InferenceSession(serialized, providers=["CPUExecutionProvider"])
        (logits,) = session.run([contract.LOGITS], {contract.INPUT: images})
    except CnnbenchError:
        raise
    except Exception as error:  # whatever a network raises in float64, or ONNX Runtime for an operator that it lacks
        raise CnnbenchError(
            f"{arch} cannot be compared with its export: {type(error).__name__}: {first_line(error)}", Exit.VERDICT
        ) from None
    error32 = float(np.abs(expected[:PROVEN_IMAGES] - proven.logits).max())
    bound = error_bound(error32, float(np.abs(expected).max()))
    largest = float(np.abs(logits - expected).max())
    if not largest <= bound:
        raise CnnbenchError(
            f"ONNX Runtime does not compute {arch} in float32: on {IMAGES} random images its logits differ from "
            f"PyTorch's by {largest:.1e}; bound {bound:.1e}",
            Exit.VERDICT,
        )
    return DryExport(arch, spec, len(serialized), IMAGES, largest, bound, proven.proof.graph_error)
