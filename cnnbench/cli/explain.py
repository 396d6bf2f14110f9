"""`explain`: a network layer by layer, with what each sees, weighs and costs."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.cli.table import render
from cnnbench.page.page import Section, Table, write
from cnnbench.tables.columns import Column
from cnnbench.types import CnnbenchError, Exit, ImageSpec

if TYPE_CHECKING:
    from cnnbench.analysis.layer import Field, Sides

COUNTED = (
    "Costs are counted without running anything. A layer's row includes the batch norm and activation behind it. "
    "MACs: one for a multiply-add, in convolutions and matrix products; batch norm, activations, pooling and "
    "additions are not counted. Activations: the elements that convolutions and matrix products put out. FC weights: "
    "what a fully connected layer between the same two tensors would need, without bias; the ratio is to the layer's "
    "own weights, without bias and batch norm. Receptive field: in pixels, by the formula and, measured, by where the"
    " gradient of one output unit of a linearised copy is not zero; 'image' where a layer joins all positions. It may"
    " be larger than the image."
)


def explain(
    arch: str | None = None,
    compare: list[str] | None = None,
    dataset: str | None = None,
    size: str | None = None,
    classes: int | None = None,
    html: str | None = None,
    json: bool = False,
) -> int:
    """Show a network layer by layer: shapes, receptive field, parameters against a fully connected layer's, MACs.

    Args:
        arch: A registered architecture, torchvision/<name> or timm/<name>.
        compare: Two architectures side by side, instead of one.
        dataset: Take size and classes from this dataset.
        size: Take images of HEIGHTxWIDTHxCHANNELS, or 224 for 224x224x3; by default 32x32x3.
        classes: Number of classes; by default 10, or the dataset's.
        html: Write a self-contained page with pictures to this file.
        json: Print one JSON document.
    """
    if (arch is None) == (compare is None):
        raise CnnbenchError("explain needs one architecture, or --compare with two")
    if compare is not None and len(compare) != 2:
        raise CnnbenchError(f"--compare has {len(compare)} architectures: expected two")
    spec = _spec(dataset, size, classes)
    documents = [describe(name, spec) for name in compare or [str(arch)]]
    if html is not None:
        sections = [_section(document, spec) for document in documents]
        names = " and ".join(document["arch"] for document in documents)
        if compare:
            sections.insert(0, Section("Side by side", tables=[_totals(documents), _side_by_side(documents)]))
        write(Path(html), f"{names}, layer by layer", f"For images of {spec}. {COUNTED}", sections)
    if json:
        print(json_module.dumps(documents if compare else documents[0], indent=2))
    elif compare:
        for table in (_totals(documents), _side_by_side(documents)):
            render(table.columns, table.rows, title=table.title)
    else:
        table = _layers(documents[0], spec)
        render(table.columns, table.rows, title=table.title)
        print(_headline(documents[0]))
    if html is not None and not json:
        print(f"page: {html}")
    return Exit.OK


def describe(arch: str, spec: ImageSpec) -> dict[str, Any]:
    """All that is known of a network for images of `spec`, as plain data.

    Raises:
        CnnbenchError: Unknown architecture, or a size that it cannot take (exit 2).
    """
    import torch

    from cnnbench.analysis import receptive_field
    from cnnbench.analysis.cost import total
    from cnnbench.analysis.tracer import trace
    from cnnbench.architectures import build

    with torch.device("meta"):
        network = build(arch, spec)
        layers = trace(network, spec)
    fields = receptive_field.measure_fields(network, spec, layers=layers)
    cost = total(network, layers)
    rows = []
    for layer, measured in zip(layers, fields, strict=True):
        row = asdict(layer)
        row["name"] = layer.name.removeprefix("1.")  # the second of two: `build` puts the normalisation in front
        row["receptive_field"], row["receptive_field_measured"] = row.pop("field"), measured
        row["fully_connected_weights"] = layer.fully_connected
        row["ratio"] = layer.fully_connected / layer.weights if layer.fully_connected else None
        row["macs_share"] = layer.macs / cost.macs if cost.macs else None
        rows.append(row)
    derived = {key: getattr(cost, key) for key in ("activation_bytes", "weight_bytes", "flops")}
    size = [spec.height, spec.width, spec.channels]
    return {
        "arch": arch,
        "size": size,
        "classes": spec.num_classes,
        "cost": {**asdict(cost), **derived},
        "layers": rows,
    }


def _spec(dataset: str | None, size: str | None, classes: int | None) -> ImageSpec:
    """What is asked for: a dataset's images, a size, or 32x32x3."""
    if dataset is None:
        return ImageSpec.of(size, classes)
    from cnnbench.datasets import dataset as registered

    if size is not None:
        raise CnnbenchError("--dataset and --size both say how large the images are: give one")
    declared = registered[dataset].declared
    if "size" not in declared:
        raise CnnbenchError(f"dataset {dataset} has no size of its own: give --size and --classes")
    return ImageSpec.of(declared["size"], declared["classes"] if classes is None else classes)


def _by(sides: Sides | None) -> str | None:
    """`3` for a square, `1x7` for others."""
    if sides is None:
        return None
    return str(sides[0]) if sides[0] == sides[1] else f"{sides[0]}x{sides[1]}"


def _seen(field: Field) -> str | None:
    return field if isinstance(field, str) else _by(field)


def _shape(shape: tuple[int, ...]) -> str:
    """Height x width x channels, as sizes are written everywhere; a vector has its length alone."""
    return "x".join(str(side) for side in (*shape[1:], shape[0])) if len(shape) == 3 else "x".join(map(str, shape))


COLUMNS = [
    Column("place", "#", right=True),
    Column("name", "layer"),
    Column("what", "kind"),
    Column("branch", "branch"),
    Column("window", "kernel / stride / padding"),
    Column("output", "output"),
    Column("seen", "receptive field", right=True),
    Column("measured", "measured", right=True),
    Column("params", "parameters", "{:,}".format, right=True),
    Column("fully_connected_weights", "FC weights", "{:,}".format, right=True),
    Column("ratio", "ratio", "{:,.0f}".format, right=True),
    Column("macs", "MACs", "{:,}".format, right=True),
    Column("macs_share", "share", "{:.1%}".format, right=True),
]


def _layers(document: dict[str, Any], spec: ImageSpec) -> Table:
    title = f"{document['arch']} for images of {spec}"
    return Table(title, COLUMNS, [_row(place, layer) for place, layer in enumerate(document["layers"], start=1)])


def _row(place: int, layer: dict[str, Any]) -> dict[str, Any]:
    window = [_by(layer[key]) for key in ("kernel", "stride", "padding")]
    groups = f", {layer['groups']} groups" if layer["groups"] > 1 else ""
    return {
        **layer,
        "place": place,
        "what": ", ".join([layer["kind"] + groups, *layer["fused_ops"]]),
        "window": " / ".join(word for word in window if word) or None,
        "output": _shape(layer["output_shape"]),
        "seen": _seen(layer["receptive_field"]),
        "measured": _seen(layer["receptive_field_measured"]),
        "macs": layer["macs"] or None,
        "macs_share": layer["macs_share"] if layer["macs"] else None,
        "params": layer["params"] or None,
    }


def _headline(document: dict[str, Any]) -> str:
    cost = document["cost"]
    return (
        f"{cost['params']:,} parameters ({_bytes(cost['weight_bytes'])}), {cost['macs']:,} MACs, "
        f"{cost['activations']:,} activations ({_bytes(cost['activation_bytes'])}), depth {cost['depth']}"
    )


def _bytes(count: int) -> str:
    return f"{count / 1e6:,.2f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def _totals(documents: list[dict[str, Any]]) -> Table:
    """The figures of both, and the second over the first."""
    first, second = (document["cost"] for document in documents)
    names = {
        "params": "parameters",
        "weight_bytes": "weight bytes, float32",
        "macs": "MACs",
        "activations": "activations",
        "activation_bytes": "activation bytes, float32",
        "depth": "depth",
    }
    rows = [
        {"figure": name, "first": first[key], "second": second[key], "ratio": second[key] / first[key]}
        for key, name in names.items()
    ]
    columns = [
        Column("figure", "figure"),
        Column("first", documents[0]["arch"], "{:,}".format, right=True),
        Column("second", documents[1]["arch"], "{:,}".format, right=True),
        Column("ratio", "second / first", "{:,.3g}".format, right=True),
    ]
    size = "x".join(str(side) for side in documents[0]["size"])
    return Table(f"{documents[0]['arch']} and {documents[1]['arch']}, images of {size}", columns, rows)


def _side_by_side(documents: list[dict[str, Any]]) -> Table:
    """Layer n of both in one row."""
    columns: list[Column] = [Column("place", "#", right=True)]
    for side, document in zip("ab", documents, strict=True):
        arch = document["arch"]
        columns += [
            Column(f"{side} what", arch),
            Column(f"{side} output", "output"),
            Column(f"{side} seen", "field", right=True),
            Column(f"{side} params", "parameters", "{:,}".format, right=True),
            Column(f"{side} macs", "MACs", "{:,}".format, right=True),
        ]
    rows = []
    for place, pair in enumerate(zip_longest(*(document["layers"] for document in documents)), start=1):
        row: dict[str, Any] = {"place": place}
        for side, layer in zip("ab", pair, strict=True):
            if layer:
                row |= {f"{side} {key}": value for key, value in _row(place, layer).items()}
        rows.append(row)
    return Table("Layer by layer", columns, rows)


def _section(document: dict[str, Any], spec: ImageSpec) -> Section:
    from cnnbench.page import portrait

    layers, arch, cost = document["layers"], document["arch"], document["cost"]
    figures = {
        f"Receptive fields of {arch} over an image": portrait.receptive_fields(layers, spec),
        f"Parameters of {arch} by layer": portrait.by_layer(layers, "params", "parameters", cost["params"]),
        f"MACs of {arch} by layer": portrait.by_layer(layers, "macs", "MACs", cost["macs"]),
    }
    return Section(arch, [_headline(document)], figures=figures, tables=[_layers(document, spec)])
