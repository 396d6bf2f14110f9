"""Every registered architecture with its cost: as declared, without importing torch, or counted for another size."""

from __future__ import annotations

from dataclasses import dataclass

from cnnbench.architectures import architecture
from cnnbench.types import COST_SPEC, CnnbenchError, ImageSpec, Size, spec_of


@dataclass(frozen=True)
class ListedArchitecture:
    """An architecture and its cost for one image. What was not declared, or cannot be counted, is None."""

    arch: str
    size: str
    classes: int
    params: int | None = None
    macs: int | None = None
    activations: int | None = None
    activation_bytes: int | None = None
    weight_bytes: int | None = None
    depth: int | None = None
    summary: str = ""
    """What it is, or why it cannot take the size."""
    params_with_auxiliary_heads: int | None = None


def list_architectures(spec: Size | None = None) -> tuple[ListedArchitecture, ...]:
    """Every registered architecture, by name.

    Args:
        spec: Count costs for these images, an ImageSpec or a size such as "28x28x1"; by default costs are those
            declared at 32x32x3 with 10 classes.

    At 1000 classes and more than 64 pixels torchvision's networks follow at the size of their model cards.
    """
    if spec is None:
        return tuple(
            ListedArchitecture(
                entry.name,
                COST_SPEC.size,
                COST_SPEC.num_classes,
                params=entry.declared.get("params"),
                macs=entry.declared.get("macs"),
                summary=entry.summary,
            )
            for entry in architecture.entries.values()
        )
    spec = spec_of(spec)
    from cnnbench.architectures import external  # loads torch

    ours = [_counted(entry.name, spec, entry.summary) for entry in architecture.entries.values()]
    if spec.small or spec.num_classes != 1000:
        return tuple(ours)
    return (*ours, *(_published(name, size) for name, size in external.PUBLISHED.items()))


def _counted(name: str, spec: ImageSpec, summary: str, auxiliary: int | None = None) -> ListedArchitecture:
    from cnnbench.analysis.cost import cost

    try:
        counted = cost(name, spec)
    except CnnbenchError as refusal:
        return ListedArchitecture(name, spec.size, spec.num_classes, summary=str(refusal))
    return ListedArchitecture(
        name,
        spec.size,
        spec.num_classes,
        params=counted.params,
        macs=counted.macs,
        activations=counted.activations,
        activation_bytes=counted.activation_bytes,
        weight_bytes=counted.weight_bytes,
        depth=counted.depth,
        summary=f"{summary}; {counted.form}" if counted.form else summary,
        params_with_auxiliary_heads=auxiliary,
    )


def _published(name: str, spec: ImageSpec) -> ListedArchitecture:
    """A network of torchvision, counted without its auxiliary heads; their parameters are given beside."""
    from cnnbench.architectures import external

    summary = "torchvision's own, at the size of its model card; no auxiliary heads"
    return _counted(name, spec, summary, external.params_with_auxiliary_heads(name, spec))
