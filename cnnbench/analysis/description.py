"""A network layer by layer, with its cost and its receptive fields by formula and as measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from cnnbench.analysis import receptive_field
from cnnbench.analysis.cost import traced_cost
from cnnbench.analysis.layer import Field, Layer, field_text
from cnnbench.analysis.macs import training_macs, training_macs_of
from cnnbench.analysis.names import layer_names
from cnnbench.analysis.tracer import Traced, trace_architecture, trace_copy
from cnnbench.types import Cost, ImageSpec


@dataclass(frozen=True)
class LayerDescription:
    """A layer as it was traced, and what was measured on it."""

    layer: Layer
    label: str
    """Its name as in the network's paper, such as C1, else by kind and number, such as conv1; see `names`."""
    measured_field: Field
    """The receptive field by where the gradient of one output unit is not zero; None where it was not measured."""
    macs_share: float | None
    """Share of the network's multiply-adds; None where it has none."""

    @property
    def ratio(self) -> float | None:
        """Weights of a fully connected layer between the same two tensors, over the layer's own."""
        return self.layer.fully_connected / self.layer.weights if self.layer.fully_connected else None


@dataclass(frozen=True)
class NetworkDescription:
    """An architecture for images of one size, taken apart."""

    arch: str
    spec: ImageSpec
    cost: Cost
    layers: tuple[LayerDescription, ...]
    """In the order of execution."""
    training_macs: int | None = None
    """Multiply-adds of a forward and a backward pass, per image; None where they could not be counted."""

    def __str__(self) -> str:
        """A line per layer: name, kind, shape of its output, receptive field by formula, parameters, MACs."""
        cells = [("layer", "kind", "output", "field", "parameters", "MACs")]
        for described in self.layers:
            layer = described.layer
            shape = "x".join(map(str, layer.output_shape))
            figures = (f"{layer.params:,}", f"{layer.macs:,}")
            cells.append((described.label, layer.kind, shape, field_text(layer.field), *figures))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        total = f"{self.arch} for {self.spec}: {self.cost.params:,} parameters, {self.cost.macs:,} MACs"
        return "\n".join([*lines, total, *([self.cost.form] if self.cost.form else [])])


def describe_network(arch: str, spec: ImageSpec) -> NetworkDescription:
    """Trace a network on the meta device, count its cost and measure its receptive fields.

    Raises:
        CnnbenchError: Unknown architecture, or a size that it cannot take (exit 2).
    """
    traced = trace_architecture(arch, spec)
    described = describe_traced(
        arch, spec, traced=replace(traced, layers=[_without_prefix(layer) for layer in traced.layers])
    )
    return replace(described, training_macs=training_macs(arch, spec))


def describe_module(network: nn.Module, spec: ImageSpec) -> NetworkDescription:
    """As `describe_network`, of a network that is there already; it is called by the name of its class.

    Its classes are as many as it returns, whatever the spec has.

    Raises:
        CnnbenchError: It cannot take such an image (exit 2).
    """
    traced = trace_copy(network, spec)
    if traced.layers and len(returned := traced.layers[-1].output_shape) == 1:
        spec = replace(spec, num_classes=returned[0])
    described = describe_traced(type(network).__name__, spec, traced=traced)
    return replace(described, training_macs=training_macs_of(network, spec))


def describe_traced(arch: str, spec: ImageSpec, *, traced: Traced) -> NetworkDescription:
    """Describe a network that was traced, without its training."""
    fields = receptive_field.measure_fields(traced.network, spec, layers=traced.layers)
    cost = traced_cost(traced)
    described = tuple(
        LayerDescription(layer, label, field, layer.macs / cost.macs if cost.macs else None)
        for layer, label, field in zip(traced.layers, layer_names(arch, traced.layers), fields, strict=True)
    )
    return NetworkDescription(arch, spec, cost, described)


def _without_prefix(layer: Layer) -> Layer:
    """`build` puts the normalisation in front, so that names begin with the place of the network behind it."""
    return replace(layer, name=layer.name.removeprefix("1."))
