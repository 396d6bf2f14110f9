"""The whole test split run again, and the validation split: the long part of `verify`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from cnnbench.analysis.selective import answered
from cnnbench.analysis.temperature import scaled_softmax
from cnnbench.bundles.evidence import Check, CheckError, OpenBundle, failed
from cnnbench.bundles.parity import child, comparison
from cnnbench.bundles.parity import run as parity
from cnnbench.records.bundle import PrecisionFile
from cnnbench.types import CnnbenchError, Dataset, Split

NEAR = 1e-4
"""Difference from a threshold within which a probability may be rounded to its other side."""


def score_again(bundle: OpenBundle, file: PrecisionFile, *, data: Dataset) -> Check:
    """Compare the predictions of the whole test split with the stored ones, and those of the validation split.

    The test split is run as it was for the export: every batch size, graph optimisations on and off.

    Raises:
        CheckError: A prediction, an accuracy or another batch size differs by more than rounding (exit 4), or the file
            takes longer than is allowed (exit 3).
    """
    labels, expected = bundle.classes("")
    if len(labels) != len(data.test) or (labels != data.test.labels).any():
        raise failed("rescore", "the labels of reference.npz are not the test split's")
    by_level = _logits_of_test(bundle, file, data.test)
    differing = int((by_level[True].argmax(1) != expected).sum())
    right = {level: int((logits.argmax(1) == labels).sum()) for level, logits in by_level.items()}
    if file.precision == "fp32":
        bound = bundle.manifest.reference.error_bound
        allowed = max(_ties(logits, expected, bound=bound) for logits in by_level.values())
        val_labels, val_expected = bundle.classes("val_")
        if len(val_labels) != len(data.val) or (val_labels != data.val.labels).any():
            raise failed("rescore", "the validation labels of reference.npz are not the validation split's")
        of_val = _logits_of_val(bundle, file, data.val)[0]
        ties = _ties(of_val, val_expected, bound=bound)
        _check_thresholds(bundle, "val", logits=of_val, labels=val_labels, ties=ties)
        _check_thresholds(bundle, "test", logits=by_level[True], labels=labels, ties=allowed)
        how = "by rounding"
    else:
        allowed = max(2, len(labels) // 200)  # kernels of other processors round 8-bit sums elsewhere
        how = f"from PyTorch's, {_lost_on_validation(bundle, file, data.val):.2f} points lost on validation"
    _check_claims(file, right, allowed)
    return Check(
        "rescore", f"{file.file}: {right[True]} of {len(labels)} images right, {differing} predictions differ {how}"
    )


def _logits_of_test(bundle: OpenBundle, file: PrecisionFile, test: Split) -> dict[bool, np.ndarray]:
    """Logits `(N, num_classes)` of the test split by level of graph optimisation; other batch sizes agree with them."""
    passes = parity.pass_requests(len(test), few=min(len(test), comparison.BATCH_SIZE_IMAGES))
    found = _run(bundle, file, test, passes)
    for by_size in found:
        whole = by_size[comparison.CHUNK]
        largest = float(np.abs(whole).max())
        lower = comparison.LOOSEST_LOWER * largest  # the scales of 8 bits are those of no batch, but kernels differ
        bound = 2 * bundle.manifest.reference.error_bound if file.precision == "fp32" else lower
        for size, logits in by_size.items():
            difference = float(np.abs(logits - whole[: len(logits)]).max())
            if not difference <= bound:
                raise failed(
                    "rescore",
                    f"{file.file} answers otherwise at batch {size}: logits differ by {difference:.2g} (bound "
                    f"{bound:.2g})",
                )
    return {each.level == "on": by_size[comparison.CHUNK] for each, by_size in zip(passes, found, strict=True)}


def _logits_of_val(bundle: OpenBundle, file: PrecisionFile, val: Split) -> list[np.ndarray]:
    """Logits `(N, num_classes)` of the validation split, graph optimisations on and off."""
    sizes = {comparison.CHUNK: len(val)}
    passes = [child.PassRequest(level=level, sizes=sizes, profile=False) for level in parity.BY_LEVEL]
    return [by_size[comparison.CHUNK] for by_size in _run(bundle, file, val, passes)]


def _run(
    bundle: OpenBundle, file: PrecisionFile, split: Split, passes: Sequence[child.PassRequest]
) -> list[dict[int, np.ndarray]]:
    try:
        return bundle.logits(file, split.images, passes=passes)
    except CnnbenchError as error:
        raise CheckError("rescore", str(error), error.code) from None


def _lost_on_validation(bundle: OpenBundle, file: PrecisionFile, val: Split) -> float:
    """Points of accuracy that a file of lower precision loses to PyTorch on the validation split on this machine.

    Raises:
        CheckError: They are more than are accepted.
    """
    labels, expected = bundle.classes("val_")  # compared with the float32 file before
    _, stored = bundle.classes("val_", of=f"_{file.precision}")
    predictions = [logits.argmax(1) for logits in _logits_of_val(bundle, file, val)]
    differing = int((predictions[0] != stored).sum())
    if differing > max(2, len(labels) // 200):  # kernels of other processors round 8-bit sums elsewhere
        raise failed(
            "rescore", f"{differing} of {len(labels)} classes of {file.file} on validation are not the stored ones"
        )
    correct = [int((classes == labels).sum()) for classes in predictions]
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


def _check_thresholds(
    bundle: OpenBundle, split: Literal["val", "test"], *, logits: np.ndarray, labels: np.ndarray, ties: int
) -> None:
    """Compare what each threshold is claimed to answer with what is answered here.

    Args:
        bundle: With the claims.
        split: Split of the images.
        logits: Logits of the float32 file, `(N, num_classes)`.
        labels: `(N,)`.
        ties: Images of which rounding may decide the class.

    Raises:
        CheckError: More images differ than lie so near to the threshold that rounding may decide.
    """
    calibration = bundle.manifest.calibration
    probabilities = scaled_softmax(logits, calibration.temperature if calibration else 1.0)
    for offered in bundle.manifest.thresholds:
        claimed = offered.val if split == "val" else offered.test
        here = answered(probabilities, labels, threshold=offered.threshold)
        near = int((np.abs(probabilities.max(axis=1) - offered.threshold) <= NEAR).sum())
        if abs(here.images - claimed.images) > near or abs(here.correct - claimed.correct) > near + ties:
            raise failed(
                "rescore",
                f"at the threshold {offered.threshold:g} {here.correct} of {here.images} answered {split} images are "
                f"right here, not what the manifest claims: {claimed.correct} of {claimed.images}",
            )


def _ties(logits: np.ndarray, expected: np.ndarray, *, bound: float) -> int:
    """Images that rounding may decide otherwise.

    Args:
        logits: Logits of the float32 file, `(N, num_classes)`.
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
