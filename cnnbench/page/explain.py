"""The page and the tables of `explain`: one network layer by layer, or two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from cnnbench.page import portrait
from cnnbench.page.section import Block, Page, Section, Table, drawing
from cnnbench.tables.columns import Column

if TYPE_CHECKING:
    from cnnbench.analysis.description import LayerDescription, NetworkDescription
    from cnnbench.analysis.layer import Sides

COUNTING = (
    "Costs are counted without running the network. A layer's row includes the batch norm and activation after it.",
    "MACs: multiply-adds of convolutions and matrix products. Batch norm, activations, pooling, additions and work on "
    "parameters alone are not counted. In training: a forward and a backward pass, without the gradient of the image.",
    "Activations: output elements of convolutions and matrix products.",
    "FC weights: weights of a fully connected layer between the same two tensors, without bias. Ratio: FC weights over "
    "the layer's weights, without bias and batch norm.",
    "Receptive field: in pixels, by formula, and measured as the extent of the nonzero gradient of an output unit of a "
    "linearised copy; it may be larger than the image. 'image': the layer joins all positions ('3 x image': along one "
    "side). 'not by formula': behind attention, or where positions are moved unevenly.",
    "Layers have the names of the network's paper where it has some, else their kind and a number.",
)
"""How the figures of a network are counted."""


@dataclass(frozen=True)
class LayerRow:
    """A layer as the tables show it."""

    place: int
    """In the order of execution, from 1."""
    name: str
    """As in the network's paper, else by kind and number."""
    kind: str
    """With the operations fused into it."""
    branch: str
    window: str | None
    """Kernel / stride / padding."""
    output: str
    field: str | None
    measured_field: str | None
    params: int | None
    fully_connected_weights: int | None
    ratio: float | None
    macs: int | None
    macs_share: float | None


COLUMNS = (
    Column("place", "#", right=True),
    Column("name", "layer", priority=9),
    Column("kind", "kind", priority=8),
    Column("branch", "branch", priority=3),
    Column("window", "kernel / stride / padding", short="k / s / p"),
    Column("output", "output", priority=8),
    Column("field", "receptive field", right=True, short="field"),
    Column("measured_field", "measured", right=True, priority=3),
    Column("params", "parameters", "{:,}".format, right=True, priority=7),
    Column("fully_connected_weights", "FC weights", "{:,}".format, right=True, priority=2),
    Column("ratio", "ratio", "{:,.0f}".format, right=True, priority=2),
    Column("macs", "MACs", "{:,}".format, right=True, priority=7),
    Column("macs_share", "share", "{:.1%}".format, right=True),
)

TOTALS = {
    "params": "parameters",
    "weight_bytes": "weight bytes, float32",
    "macs": "MACs",
    "activations": "activations",
    "activation_bytes": "activation bytes, float32",
    "depth": "depth",
}


def explain_page(descriptions: Sequence[NetworkDescription]) -> Page:
    """The page of one network; of two also their comparison, in front."""
    names = " and ".join(description.arch for description in descriptions)
    sections = [_section(f"network-{place}", description) for place, description in enumerate(descriptions, 1)]
    sections.append(Section("counting", "How the figures are counted", "", [Block(notes=COUNTING)], short="Counting"))
    if len(descriptions) == 2:
        blocks = [Block(table=table) for table in comparison_tables(*descriptions)]
        sections.insert(0, Section("comparison", "Side by side", "", blocks))
    lead = f"For images of {descriptions[0].spec}."
    return Page("explain", f"{names}, layer by layer", lead, sections=sections)


def _section(anchor: str, description: NetworkDescription) -> Section:
    arch = description.arch
    figures = {
        f"Receptive fields of {arch} over an image": portrait.receptive_fields(description),
        f"Parameters of {arch} by layer": portrait.by_layer(description, "params"),
        f"MACs of {arch} by layer": portrait.by_layer(description, "macs"),
    }
    drawings = [drawing(alt, figure) for alt, figure in figures.items()]
    blocks = [Block(pictures=drawings, layout="wide"), Block(table=layer_table(description))]
    return Section(anchor, arch, headline(description), blocks)


def headline(description: NetworkDescription) -> str:
    """The cost of a network in one line."""
    cost = description.cost
    trained = description.training_macs
    training = f" ({trained:,} in training)" if trained else ""
    return (
        f"{cost.params:,} parameters ({_bytes(cost.weight_bytes)}), {cost.macs:,} MACs{training}, "
        f"{cost.activations:,} activations ({_bytes(cost.activation_bytes)}), depth {cost.depth}"
        + (f"; {cost.form}" if cost.form else "")
    )


def layer_table(description: NetworkDescription) -> Table:
    """One row per layer."""
    rows = _rows(description)
    columns = [column for column in COLUMNS if column.key != "branch" or any(row.branch for row in rows)]
    return Table(columns, rows, f"{description.arch} for images of {description.spec}")


def comparison_tables(first: NetworkDescription, second: NetworkDescription) -> tuple[Table, Table]:
    """The costs of two networks with their ratio, and their layers side by side."""
    return _totals(first, second), _side_by_side(first, second)


def _totals(first: NetworkDescription, second: NetworkDescription) -> Table:
    pairs = {name: (getattr(first.cost, key), getattr(second.cost, key)) for key, name in TOTALS.items()}
    rows = [{"figure": name, "first": a, "second": b, "ratio": b / a} for name, (a, b) in pairs.items()]
    columns = [
        Column("figure", "figure"),
        Column("first", first.arch, "{:,}".format, right=True),
        Column("second", second.arch, "{:,}".format, right=True),
        Column("ratio", "second / first", "{:,.3g}".format, right=True),
    ]
    return Table(columns, rows, f"{first.arch} and {second.arch}, images of {first.spec.size}")


def _side_by_side(first: NetworkDescription, second: NetworkDescription) -> Table:
    """Layer n of both in one row."""
    columns: list[Column] = [Column("place", "#", right=True)]
    for side, arch in (("first", first.arch), ("second", second.arch)):
        columns += [
            Column(f"{side}_kind", arch),
            Column(f"{side}_output", "output"),
            Column(f"{side}_field", "field", right=True),
            Column(f"{side}_params", "parameters", "{:,}".format, right=True),
            Column(f"{side}_macs", "MACs", "{:,}".format, right=True),
        ]
    rows = [
        {"place": place, **_prefixed("first", left), **_prefixed("second", right)}
        for place, (left, right) in enumerate(zip_longest(_rows(first), _rows(second)), start=1)
    ]
    return Table(columns, rows, "Layer by layer")


def _prefixed(side: str, row: LayerRow | None) -> dict[str, object]:
    """The cells of a layer in one half of the comparison; none where the network has ended."""
    keys = ("kind", "output", "field", "params", "macs") if row else ()
    return {f"{side}_{key}": getattr(row, key) for key in keys}


def _rows(description: NetworkDescription) -> list[LayerRow]:
    return [_row(place, described) for place, described in enumerate(description.layers, start=1)]


def _row(place: int, described: LayerDescription) -> LayerRow:
    from cnnbench.analysis.layer import field_text

    layer = described.layer
    window = [_by(sides) for sides in (layer.kernel, layer.stride, layer.padding)]
    groups = f", {layer.groups} groups" if layer.groups > 1 else ""
    return LayerRow(
        place=place,
        name=described.label,
        kind=", ".join([layer.kind + groups, *layer.fused_ops]),
        branch=layer.branch,
        window=" / ".join(word for word in window if word) or None,
        output=_shape(layer.output_shape),
        field=field_text(layer.field),
        measured_field=None if described.measured_field is None else field_text(described.measured_field),
        params=layer.params or None,
        fully_connected_weights=layer.fully_connected,
        ratio=described.ratio,
        macs=layer.macs or None,
        macs_share=described.macs_share if layer.macs else None,
    )


def _by(sides: Sides | None) -> str | None:
    """`3` for a square, `1x7` for others."""
    if sides is None:
        return None
    return str(sides[0]) if sides[0] == sides[1] else f"{sides[0]}x{sides[1]}"


def _shape(shape: tuple[int, ...]) -> str:
    """Height x width x channels, as sizes are written everywhere; a vector has its length alone."""
    return "x".join(str(side) for side in (*shape[1:], shape[0])) if len(shape) == 3 else "x".join(map(str, shape))


def _bytes(count: int) -> str:
    return f"{count / 1e6:,.2f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"
