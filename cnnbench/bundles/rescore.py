"""The whole test split run again, and the validation split: the long part of `verify`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cnnbench.bundles.evidence import Check, CheckError, OpenBundle, failed
from cnnbench.bundles.parity import comparison
from cnnbench.bundles.parity import run as parity
from cnnbench.records.bundle import PrecisionFile
from cnnbench.types import CnnbenchError, Dataset, Split


def score_again(bundle: OpenBundle, file: PrecisionFile, data: Dataset) -> Check:
    """Compare the predictions of the whole test split with the stored ones; of lower precision also validation's."""
    labels, expected = bundle.classes("")
    if len(labels) != len(data.test) or (labels != data.test.labels).any():
        raise failed("rescore", "the labels of reference.npz are not the test split's")
    levels = (True,) if file.precision == "fp32" else (True, False)
    logits = _split_logits(bundle, file, data.test, levels)
    predictions = logits.argmax(axis=2)
    correct, differing = (predictions == labels).sum(axis=1), int((predictions[0] != expected).sum())
    if file.precision == "fp32":
        allowed = _ties(logits[0], expected, bound=bundle.manifest.reference.error_bound)
        val_labels, val_expected = bundle.classes("val_")
        if len(val_labels) != len(data.val) or (val_labels != data.val.labels).any():
            raise failed("rescore", "the validation labels of reference.npz are not the validation split's")
        val_logits = _split_logits(bundle, file, data.val, levels)
        _ties(val_logits[0], val_expected, bound=bundle.manifest.reference.error_bound)
        how = "by rounding"
        here = {True: int(correct[0]), False: int(correct[0])}  # the same network at both levels, within the bound
    else:
        allowed = max(2, len(labels) // 200)  # kernels of other processors round 8-bit sums elsewhere
        how = f"from PyTorch's, {_lost_on_validation(bundle, file, data.val):.2f} points lost on validation"
        here = dict(zip(levels, map(int, correct), strict=True))  # optimised 8-bit kernels may saturate
    _check_claims(file, here, allowed)
    return Check(
        "rescore", f"{file.file}: {correct[0]} of {len(labels)} images right, {differing} predictions differ {how}"
    )


def _split_logits(bundle: OpenBundle, file: PrecisionFile, split: Split, levels: Sequence[bool]) -> np.ndarray:
    """Logits of a whole split, `(levels, N, num_classes)`."""
    try:
        return bundle.logits(file, split.images, seconds=None, sizes=(comparison.CHUNK,), levels=levels)
    except CnnbenchError as error:
        raise CheckError("rescore", str(error), error.code) from None


def _lost_on_validation(bundle: OpenBundle, file: PrecisionFile, val: Split) -> float:
    """Points of accuracy that a file of lower precision loses to PyTorch on the validation split on this machine.

    Raises:
        CheckError: They are more than are accepted.
    """
    labels, expected = bundle.classes("val_")  # compared with the float32 file before
    _, stored = bundle.classes("val_", of=f"_{file.precision}")
    predictions = _split_logits(bundle, file, val, (True, False)).argmax(axis=2)
    differing = int((predictions[0] != stored).sum())
    if differing > max(2, len(labels) // 200):  # kernels of other processors round 8-bit sums elsewhere
        raise failed(
            "rescore", f"{differing} of {len(labels)} classes of {file.file} on validation are not the stored ones"
        )
    correct = [int(count) for count in (predictions == labels).sum(axis=1)]
    lost = parity.points_lost(int((labels == expected).sum()), correct, images=len(labels))
    if parity.loses_too_much(lost, file.budget_points):
        raise failed(
            "rescore",
            f"{file.file} loses {lost:.2f} points on validation here; at most {file.budget_points:g} are accepted",
        )
    return lost


def _check_claims(file: PrecisionFile, correct: dict[bool, int], allowed: int) -> None:
    """Compare the claims of each pass with the images that are right here, by level of graph optimisation.

    Raises:
        CheckError: A claim is off by more than `allowed` images.
    """
    for claimed in file.passes:
        here, level = correct[claimed.optimized], "on" if claimed.optimized else "off"
        if abs(claimed.correct - here) > allowed:
            raise failed(
                "rescore",
                f"{file.file} has {here} images right here with graph optimisations {level}, "
                f"not what the manifest claims of it: {claimed.correct}",
            )


def _ties(logits: np.ndarray, expected: np.ndarray, *, bound: float) -> int:
    """Images that rounding may decide otherwise.

    Args:
        logits: Of the float32 file, `(N, num_classes)`.
        expected: The stored predictions `(N,)`.
        bound: The error bound of a logit.

    Raises:
        CheckError: A prediction differs by more than rounding.
    """
    predictions = logits.argmax(axis=1)
    rows = np.flatnonzero(predictions != expected)
    beyond = int((logits[rows, predictions[rows]] - logits[rows, expected[rows]] > 2 * bound).sum())
    if beyond:
        raise failed("rescore", f"{beyond} of {len(predictions)} predictions differ from the stored ones")
    second, first = np.sort(logits, axis=1)[:, -2:].T
    return int((first - second <= 2 * bound).sum())
