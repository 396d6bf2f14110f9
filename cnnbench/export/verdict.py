"""Is the file the network that was trained? Judged on logits, on whole images, on every batch size that matters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cnnbench.types import CnnbenchError, Exit, Parity

CHUNK = 256
BATCH_SIZES = (1, 2, 7, 64)
BATCH_SIZE_IMAGES = 128
RELATIVE_TOLERANCE = 1e-5
"""Of the largest logit. Rounding of float32 alone stays 10 times below (a test measures it for every architecture)."""

Logits = Callable[[np.ndarray], np.ndarray]
"""Images `(N, H, W, C)` uint8 -> logits `(N, num_classes)` float32."""


def parity(provider: str, reference: np.ndarray, onnx: Logits, images: np.ndarray, labels: np.ndarray) -> Parity:
    """Compare ONNX Runtime with PyTorch over all `images`, and at several batch sizes over the first of them.

    Args:
        provider: Where `onnx` runs, for the record.
        reference: PyTorch's logits `(N, num_classes)` for the images.
        onnx: ONNX Runtime's logits for a batch.
        images: The whole test split `(N, H, W, C)` uint8.
        labels: Its labels `(N,)`.

    Raises:
        CnnbenchError: A batch size fails to run, or the output has another shape (exit 4).
    """
    found = _at(onnx, images, CHUNK)
    if found.shape != reference.shape:
        raise CnnbenchError(f"ONNX Runtime returns logits {found.shape}, PyTorch {reference.shape}", Exit.VERDICT)
    error = _max_error(found, reference)
    some = images[:BATCH_SIZE_IMAGES]
    for size in BATCH_SIZES:
        again = _at(onnx, some, size)
        if again.shape != found[: len(some)].shape:
            raise CnnbenchError(f"a batch of {size} gives {len(again)} logits for {len(some)} images", Exit.VERDICT)
        error = max(error, _max_error(again, reference[: len(some)]))
    tolerance = RELATIVE_TOLERANCE * max(1.0, float(np.abs(reference).max()))
    flips, rounding = count_flips(reference, found, tolerance)
    return Parity(
        provider=provider, images=len(images), batch_sizes=(*BATCH_SIZES, CHUNK), flips=flips, rounding_flips=rounding,
        max_abs_error=error, tolerance=tolerance,
        torch_accuracy=float((reference.argmax(1) == labels).mean()),
        onnx_accuracy=float((found.argmax(1) == labels).mean()),
    )  # fmt: skip


def count_flips(reference: np.ndarray, found: np.ndarray, tolerance: float) -> tuple[int, int]:
    """Images whose top-1 class differs: (beyond rounding, within rounding).

    A flip is rounding where the reference's own margin between the two classes is at most twice the tolerance,
    since each of the two logits may be off by that much.
    """
    expected, got = reference.argmax(1), found.argmax(1)
    rows = np.flatnonzero(expected != got)
    margins = reference[rows, expected[rows]] - reference[rows, got[rows]]
    real = int((margins > 2 * tolerance).sum())
    return real, len(rows) - real


def batched(logits: Logits, images: np.ndarray, size: int) -> np.ndarray:
    """Logits of all images, computed `size` at a time."""
    return np.concatenate([logits(images[start : start + size]) for start in range(0, len(images), size)])


def _at(onnx: Logits, images: np.ndarray, size: int) -> np.ndarray:
    try:
        return batched(onnx, images, size)
    except Exception as failure:  # ONNX Runtime's exception classes are private
        reason = str(failure).strip().split("\n")[0]
        raise CnnbenchError(f"the graph does not run with a batch of {size}: {reason}", Exit.VERDICT) from None


def _max_error(found: np.ndarray, reference: np.ndarray) -> float:
    if not np.isfinite(found).all():
        raise CnnbenchError("ONNX Runtime returns logits that are not finite", Exit.VERDICT)
    return float(np.abs(found - reference).max())
