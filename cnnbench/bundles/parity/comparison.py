"""Is the file the network that was trained? Comparison of logits and of top-1 classes. Arithmetic only: numpy.

**Error bound.** Two correct float32 programs of one network differ by rounding. How much depends on the network: long
sums and unnormalised logits round more. It is measured with PyTorch: the largest difference between its float32 and
its float64 logits, over `ROUNDING_IMAGES` of the test images and some noise, is this network's rounding error. The
bound is `BOUND_FACTOR` times that; every registered architecture stays below half of it (tests/bundles/test_graph.py).

**Flips.** An image whose top-1 class differs is rounding where PyTorch's margin between the two classes is at most
twice the bound, since each of the two logits may be off by that much, and a bug above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cnnbench.types import CnnbenchError, Exit

CHUNK = 64
BATCH_SIZES = (1, 2, 7, CHUNK)
BATCH_SIZE_IMAGES = 512
ROUNDING_IMAGES = 64
BOUND_FACTOR = 8
FLOOR = 4 * float(np.finfo(np.float32).eps)
"""In parts of the largest logit: the rounding of the last additions alone, however exact the rest."""

Logits = Callable[[np.ndarray], np.ndarray]
"""Images `(N, H, W, C)` uint8 -> logits `(N, num_classes)` float32."""


def error_bound(float64_error: float, largest_logit: float) -> float:
    """How far two correct float32 programs of one network may be apart; see above."""
    return max(BOUND_FACTOR * float64_error, FLOOR * largest_logit)


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
