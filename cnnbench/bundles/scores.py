"""What a bundle claims of the trained network's probabilities: their calibration, and thresholds for "unknown"."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cnnbench import records
from cnnbench.records.bundle import Calibration, Threshold

if TYPE_CHECKING:
    from torch import nn

    from cnnbench.bundles.parity.run import ReferenceLogits
    from cnnbench.types import Split


def calibration(network: nn.Module, val: Split) -> Calibration:
    """The temperature of a trained network, fitted on the validation images."""
    from cnnbench.analysis.temperature import fit_temperature
    from cnnbench.bundles.parity.reference import torch_logits

    temperature = fit_temperature(torch_logits(network, val.images), val.labels)
    return Calibration(temperature=temperature, split="val", images=len(val.labels))


def with_errors(found: Calibration, *, logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """With the calibration error on the test images, `logits` `(N, K)`, `labels` `(N,)`, before and after."""
    from cnnbench.analysis.confidence import expected_calibration_error
    from cnnbench.analysis.temperature import scaled_softmax

    before, after = (
        expected_calibration_error(scaled_softmax(logits, value), labels) for value in (1.0, found.temperature)
    )
    return records.replace(found, ece_before=before, ece_after=after)


def thresholds(reference: ReferenceLogits, temperature: float) -> tuple[Threshold, ...]:
    """One for each accuracy that the validation images reach by leaving some unanswered."""
    from cnnbench.analysis.selective import LEVELS, answered, threshold_for
    from cnnbench.analysis.temperature import scaled_softmax

    val, test = (scaled_softmax(logits, temperature) for logits in (reference.val_logits, reference.logits))
    chosen = {level: threshold_for(val, reference.val_labels, level=level) for level in LEVELS}
    return tuple(
        Threshold(
            level=level,
            threshold=value,
            val=answered(val, reference.val_labels, threshold=value),
            test=answered(test, reference.labels, threshold=value),
        )
        for level, value in chosen.items()
        if value  # at 0 all are answered, and reach the level
    )
