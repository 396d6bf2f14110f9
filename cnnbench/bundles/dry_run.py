"""Whether a network exports, tried on untrained weights: before the hours of training, not after them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime

from cnnbench.architectures import build
from cnnbench.bundles import contract, graph
from cnnbench.bundles.parity.comparison import error_bound
from cnnbench.bundles.parity.reference import float64_logits, torch_logits
from cnnbench.types import SEED, CnnbenchError, Exit, ImageSpec, first_line

IMAGES = 64

MARGIN = 4
"""Times the error bound: it is estimated on fewer images than an export takes, and this is no verdict."""


@dataclass(frozen=True)
class DryExport:
    """An untrained network as ONNX, compared with PyTorch on random images."""

    arch: str
    spec: ImageSpec
    bytes: int
    """Of the float32 file."""
    images: int
    largest_error: float
    """Of any logit."""
    error_bound: float
    """What is allowed: `MARGIN` times how far two correct float32 programs may be apart; see `parity.comparison`."""


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
    model = graph.to_onnx(network, spec, metadata={})
    shape = (IMAGES, spec.height, spec.width, spec.channels)
    images = np.random.RandomState(SEED % 2**32).randint(0, 256, shape).astype(np.uint8)
    try:
        expected, exact = torch_logits(network, images), float64_logits(network, images)
        serialized = model.SerializeToString()
        session = onnxruntime.InferenceSession(serialized, providers=["CPUExecutionProvider"])
        (logits,) = session.run([contract.LOGITS], {contract.INPUT: images})
    except Exception as error:  # whatever a network raises in float64, or ONNX Runtime for an operator that it lacks
        raise CnnbenchError(
            f"{arch} cannot be compared with its export: {type(error).__name__}: {first_line(error)}", Exit.VERDICT
        ) from None
    bound = MARGIN * error_bound(float(np.abs(expected - exact).max()), float(np.abs(expected).max()))
    largest = float(np.abs(logits - expected).max())
    if not largest <= bound:
        raise CnnbenchError(
            f"{arch} exports to a file that computes something else: on {IMAGES} random images its logits differ from "
            f"PyTorch's by {largest:.1e}; bound {bound:.1e}",
            Exit.VERDICT,
        )
    return DryExport(arch, spec, len(serialized), IMAGES, largest, bound)
