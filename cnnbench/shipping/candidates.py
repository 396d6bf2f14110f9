"""Which networks compete: the registered small ones, or those that are named, without what no file could keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cnnbench.analysis.cost import cost
from cnnbench.architectures import architecture
from cnnbench.bundles.quantise import PRECISIONS
from cnnbench.bundles.trial import time_untrained
from cnnbench.records.bundle import Precision
from cnnbench.registry import LocalEntry
from cnnbench.tables.limits import Limits
from cnnbench.types import CnnbenchError, Cost, ImageSpec

MOST = 12
SMALL_PARAMS, SMALL_MACS = 2_000_000, 80_000_000
"""What a small network has at most, as declared for 32x32x3 and 10 classes."""
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
"""Bytes of a weight in a file of each precision."""

Timed = Callable[..., Mapping[Precision, Sequence[float]]]
"""As `time_untrained`."""


@dataclass(frozen=True)
class Entrant:
    """A network before training."""

    arch: str
    cost: Cost
    latency_ms: float | None = None
    """Median of one call of its fastest file, untrained, one image, one thread; None where it was not measured."""
    dropped: str = ""
    """Why it is not trained."""


def small_networks() -> list[str]:
    """The registered networks that are small, those with the fewest MACs first, at most 12."""
    declared = {
        entry.name: (entry.declared.get("macs", SMALL_MACS + 1), entry.declared.get("params", SMALL_PARAMS + 1))
        for entry in architecture.entries.values()
        if not isinstance(entry, LocalEntry)
    }
    small = [name for name, (macs, params) in declared.items() if macs <= SMALL_MACS and params <= SMALL_PARAMS]
    return sorted(small, key=lambda name: (declared[name], name))[:MOST]


def entrants(
    archs: Sequence[str], spec: ImageSpec, *, limits: Limits, named: bool, timed: Timed = time_untrained
) -> list[Entrant]:
    """The networks with their costs; those that cannot keep a limit of size or time in any precision are dropped.

    Latency is measured only where it is limited.

    Args:
        archs: Names.
        spec: Spec of the images.
        limits: What a file has to keep.
        named: Whether the user named them: a size that one cannot take is then an error, else a reason to drop it.
        timed: Times an untrained network.

    Raises:
        CnnbenchError: A name is unknown, or a named network cannot take the images (exit 2).
    """
    found = []
    for arch in dict.fromkeys(archs):
        architecture[arch]
        try:
            counted = cost(arch, spec)
        except CnnbenchError as error:
            if named:
                raise
            found.append(Entrant(arch, Cost(0, 0, 0, 0), dropped=str(error)))
            continue
        found.append(_screened(Entrant(arch, counted), spec, limits, timed))
    return found


def _screened(entrant: Entrant, spec: ImageSpec, limits: Limits, timed: Timed) -> Entrant:
    params, macs = entrant.cost.params, entrant.cost.macs
    fitting: list[Precision] = [
        precision
        for precision in PRECISIONS
        if limits.max_bytes is None or params * BYTES[precision] <= limits.max_bytes
    ]
    reason = ""
    if not fitting:
        reason = f"its {params:,} weights take more than {limits.max_bytes:,} bytes even in int8"
    elif limits.max_params is not None and params > limits.max_params:
        reason = f"parameters {params:,} is above {limits.max_params:,}"
    elif limits.max_macs is not None and macs > limits.max_macs:
        reason = f"MACs {macs:,} is above {limits.max_macs:,}"
    if reason or limits.max_latency_ms is None:
        return Entrant(entrant.arch, entrant.cost, None, reason)
    medians = {
        name: 1e3 * float(np.median(seconds)) for name, seconds in timed(entrant.arch, spec, precisions=fitting).items()
    }
    if not medians:
        return Entrant(entrant.arch, entrant.cost, None, f"no file of {' or '.join(fitting)} can be made of it")
    fastest = min(medians, key=lambda name: medians[name])
    if medians[fastest] > limits.max_latency_ms:
        reason = f"untrained, {fastest} takes {medians[fastest]:.3g} ms, above {limits.max_latency_ms:.3g} ms"
    return Entrant(entrant.arch, entrant.cost, medians[fastest], reason)
