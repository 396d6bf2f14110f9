"""`explain`: a network layer by layer."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cnnbench.cli.hints import say_next
from cnnbench.cli.layout import Shown
from cnnbench.types import CnnbenchError, Exit, ImageSpec

if TYPE_CHECKING:
    from cnnbench.analysis.description import LayerDescription, NetworkDescription


def explain(
    arch: str | None = None,
    *,
    compare: list[str] | None = None,
    dataset: str | None = None,
    size: str | None = None,
    classes: int | None = None,
    html: str | None = None,
    columns: Shown = "fit",
    format: Literal["text", "json"] = "text",
) -> int:
    """Show a network layer by layer: shapes, receptive field, parameters against a fully connected layer's, MACs.

    Args:
        arch: A registered architecture, torchvision/<name> or timm/<name>.
        compare: Two architectures side by side, instead of one: a,b.
        dataset: Take size and classes from this dataset.
        size: Take images of HEIGHTxWIDTHxCHANNELS, or 224 for 224x224x3; by default 32x32x3.
        classes: Number of classes; by default 10, or the dataset's.
        html: Write a self-contained page with pictures to this file.
        columns: fit prints the columns that fit the terminal and names the others; all prints all.
        format: How to print it.

    Examples:
        cnnbench explain resnet20
        cnnbench explain resnet20 --html resnet20.html
        cnnbench explain --compare lenet5,mlp --dataset mnist
    """
    names = _names(arch, compare)
    spec = _spec(dataset, size, classes)
    from cnnbench.analysis.description import describe_network

    descriptions = [describe_network(name, spec) for name in names]
    if html is not None:
        from cnnbench.page.explain import explain_page
        from cnnbench.page.write import write

        write(explain_page(descriptions), Path(html))
    if format == "json":
        documents = [_plain(description) for description in descriptions]
        print(json.dumps(documents if compare else documents[0], indent=2))
    else:
        _print(descriptions, columns)
        if html is not None:
            print(f"page: {html}")
    say_next("fit", names[0], *(["--dataset", dataset] if dataset else []), format=format)
    return Exit.OK


def _names(arch: str | None, compare: list[str] | None) -> list[str]:
    """The architectures that were given: one, or two to compare."""
    if compare is None and arch is not None:
        return [arch]
    if arch is not None or compare is None:
        raise CnnbenchError("explain needs one architecture, or --compare with two")
    if len(compare) != 2:
        raise CnnbenchError(f"--compare {','.join(compare)}: expected two architectures, such as lenet5,mlp")
    return compare


def _spec(dataset: str | None, size: str | None, classes: int | None) -> ImageSpec:
    """The images of the dataset, or of the given size, or 32x32x3."""
    if dataset is None:
        return ImageSpec.of(size, classes)
    from cnnbench.datasets import dataset as registered

    if size is not None:
        raise CnnbenchError("--dataset and --size both set the image size: give one")
    entry = registered[dataset]
    entry.refuse_fault()
    declared = {**entry.declared, **({} if classes is None else {"classes": classes})}
    for key in ("size", "classes"):
        if key not in declared:
            raise CnnbenchError(f"dataset {dataset} has no fixed {key}: give --size and --classes")
    return ImageSpec.of(declared["size"], declared["classes"])


def _print(descriptions: list[NetworkDescription], shown: Shown) -> None:
    from cnnbench.cli.table import render
    from cnnbench.page import explain as page

    single = len(descriptions) == 1
    for table in [page.layer_table(descriptions[0])] if single else page.comparison_tables(*descriptions):
        render(table.columns, table.rows, title=table.title, shown=shown)
    if single:
        print(page.headline(descriptions[0]))


def _plain(description: NetworkDescription) -> dict[str, Any]:
    """The JSON document of a network."""
    spec, cost = description.spec, description.cost
    derived = {key: getattr(cost, key) for key in ("activation_bytes", "weight_bytes", "flops")}
    return {
        "arch": description.arch,
        "size": [spec.height, spec.width, spec.channels],
        "classes": spec.num_classes,
        "cost": {**asdict(cost), **derived, "training_macs": description.training_macs},
        "layers": [_plain_layer(layer) for layer in description.layers],
    }


def _plain_layer(described: LayerDescription) -> dict[str, Any]:
    document = asdict(described.layer)
    return {
        **{key: value for key, value in document.items() if key not in ("field", "origin")},
        "label": described.label,
        "receptive_field": described.layer.field,
        "receptive_field_measured": described.measured_field,
        "fully_connected_weights": described.layer.fully_connected,
        "ratio": described.ratio,
        "macs_share": described.macs_share,
    }
