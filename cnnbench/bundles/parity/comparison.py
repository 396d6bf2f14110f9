"""Comparison of logits and of top-1 classes: what differs by rounding and what does not. Arithmetic only: numpy.

**In float64** two programs of one network differ by 1e-16 to 1e-13 of the largest logit: `EXACT`.

**In float32** they differ by rounding, and the file and the network are known to be the same: what remains to be told
is float32 arithmetic from less. A float32 number has 24 bits of mantissa, TF32 and half have 11, bfloat16 has 8, so
that their logits are 2^13 or 2^16 times as far off. Float32 kernels were measured to be off by 2e-7 to 4e-6 of the
largest logit, over networks of other libraries, and simulated lower precision by 3e-4 and more (docs/proof.md):
`FLOAT32` lies in the middle. A network that rounds more than that in PyTorch itself gets `BOUND_FACTOR`
times what its float32 logits differ from float64 ones, which is still far below 2^13 times.

**Flips.** An image whose top-1 class differs is rounding where PyTorch's margin between the two classes is at most
twice the bound, since each of the two logits may be off by that much, and a bug above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cnnbench.types import CnnbenchError, Exit

CHUNK = 64
BATCH_SIZES = (1, 2, 3, 7, 8, 32, CHUNK, 65, 100)
BATCH_SIZE_IMAGES = 200
EXACT = 1e-12
"""In parts of the largest logit."""
EXACT_BATCHES = {7: None, 1: 2, 2: 4}
"""Batch sizes at which a file is evaluated in float64 for its proof, and on how many images at most."""
FLOAT32 = 4e-5
"""In parts of the largest logit."""
BOUND_FACTOR = 8
LOOSEST, LOOSEST_LOWER = 0.001, 0.15
"""In parts of the largest logit, for float32 and for less: no bound is wider, whatever a manifest says."""

Logits = Callable[[np.ndarray], np.ndarray]
"""Images `(N, H, W, C)` uint8 -> logits `(N, num_classes)` float32."""


def error_bound(float64_error: float, largest_logit: float) -> float:
    """How far float32 logits of a runtime may be from PyTorch's; see above."""
    return max(BOUND_FACTOR * float64_error, FLOAT32 * largest_logit)


def relative(expected: np.ndarray, logits: np.ndarray, *, largest: float | None = None) -> float:
    """The largest difference in parts of the largest logit; infinite where shapes differ or a number is none.

    Args:
        expected: Logits `(N, num_classes)`.
        logits: The same, computed otherwise.
        largest: The largest logit in absolute value, where `expected` is a part of what was computed.
    """
    if expected.shape != logits.shape or not np.isfinite(logits).all():
        return float("inf")
    scale = float(np.abs(expected).max()) if largest is None else largest
    return float(np.abs(logits - expected).max()) / max(scale, float(np.finfo(np.float64).tiny))


@dataclass(frozen=True)
class Flips:
    """Images whose top-1 class differs. Arrays `(F,)`, the largest margin first."""

    images: np.ndarray
    expected: np.ndarray
    actual: np.ndarray
    margins: np.ndarray
    """PyTorch's logit of its own class less its logit of the other."""
    bound: float

    @property
    def beyond_rounding(self) -> int:
        """Flips that rounding cannot explain."""
        return int((self.margins > 2 * self.bound).sum())

    @property
    def rounding(self) -> int:
        return len(self.images) - self.beyond_rounding


def flips(reference: np.ndarray, logits: np.ndarray, *, bound: float) -> Flips:
    """Compare the top-1 classes of two arrays of logits `(N, num_classes)`."""
    expected, actual = reference.argmax(1), logits.argmax(1)
    rows = np.flatnonzero(expected != actual)
    margins = reference[rows, expected[rows]] - reference[rows, actual[rows]]
    order = np.argsort(-margins, kind="stable")
    rows = rows[order]
    return Flips(rows, expected[rows], actual[rows], margins[order], bound)


@dataclass(frozen=True)
class Errors:
    """Differences of logits. Relative: in parts of the largest logit of the same image, in absolute value."""

    max_abs_error: float
    p999_abs_error: float
    max_rel_error: float
    p999_rel_error: float


def errors(reference: np.ndarray, logits: np.ndarray) -> Errors:
    """Largest and 99.9th percentile over all logits of all images `(N, num_classes)`.

    Raises:
        CnnbenchError: The arrays differ in shape, or a value of `logits` is not finite (exit 4).
    """
    if logits.shape != reference.shape:
        raise CnnbenchError(f"ONNX Runtime returns logits {logits.shape}, PyTorch {reference.shape}", Exit.VERDICT)
    if not np.isfinite(logits).all():
        raise CnnbenchError("ONNX Runtime returns logits that are not finite", Exit.VERDICT)
    absolute = np.abs(logits - reference)
    scale = np.maximum(np.abs(reference).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    relative = absolute / scale
    return Errors(*(float(value) for kind in (absolute, relative) for value in (kind.max(), np.quantile(kind, 0.999))))


def batched(logits: Logits, images: np.ndarray, *, size: int) -> np.ndarray:
    """Logits of all images, computed `size` at a time."""
    return np.concatenate([logits(images[start : start + size]) for start in range(0, len(images), size)])
