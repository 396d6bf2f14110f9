"""`list`: what there is to choose from. Reads declarations, without waiting for torch, unless a size is asked for."""

from __future__ import annotations

from typing import Any, Literal

from cnnbench.cli.table import Format, render
from cnnbench.registry import Entry
from cnnbench.tables.columns import Column
from cnnbench.types import COST_SPEC, CnnbenchError, Exit, ImageSpec


def show(
    what: Literal["architectures", "datasets", "tasks"] = "architectures",
    size: str | None = None,
    classes: int | None = None,
    format: Format = "table",
) -> int:
    """List architectures with their cost, datasets, or tasks.

    Args:
        what: What to list.
        size: Count the cost of all architectures at HEIGHTxWIDTHxCHANNELS, or 224 for 224x224x3; by default 32x32x3.
        classes: Count it for this many classes; by default 10.
        format: How to print it.
    """
    if what == "architectures":
        asked = size is not None or classes is not None
        _architectures(ImageSpec.of(size, classes) if asked else None, format)
    elif size is not None or classes is not None:
        raise CnnbenchError(f"list {what} has no cost to count: --size and --classes go with architectures")
    else:
        {"datasets": _datasets, "tasks": _tasks}[what](format)
    return Exit.OK


def _architectures(spec: ImageSpec | None, format: Format) -> None:
    """What architectures declare, without importing torch; counted where another spec is asked for."""
    from cnnbench.architectures import architecture

    if spec is None:
        rows: list[dict[str, Any]] = [
            {"arch": entry.name, **_told(entry, COST_SPEC), "summary": entry.summary}
            for entry in architecture.entries.values()
        ]
    else:
        rows = [_counted(entry.name, spec, entry.summary) for entry in architecture.entries.values()]
        from cnnbench.architectures import external

        if not spec.small and spec.num_classes == 1000:  # what their model cards are for
            rows += [_published(name, spec) for name, spec in external.PUBLISHED.items()]
    columns = [
        Column("arch", "architecture"),
        *([Column("size", "size")] if spec else []),
        Column("params", "parameters", "{:,}".format, right=True),
        Column("macs", "MACs", "{:,}".format, right=True),
        *([Column("activations", "activations", "{:,}".format, right=True)] if spec else []),
        *([Column("depth", "depth", right=True)] if spec else []),
        Column("summary", "what it is"),
    ]
    render(
        columns,
        rows,
        title=f"Architectures at {spec or COST_SPEC}; also torchvision/<name> and timm/<name>",
        format=format,
    )


def _told(entry: Entry, spec: ImageSpec) -> dict[str, Any]:
    return {
        "size": spec.size,
        "classes": spec.num_classes,
        **{key: entry.declared.get(key) for key in ("params", "macs")},
    }


def _counted(name: str, spec: ImageSpec, summary: str) -> dict[str, Any]:
    """One row; where the network cannot take the size, its summary says so."""
    from cnnbench.analysis.cost import cost

    row: dict[str, Any] = {"arch": name, "size": spec.size, "classes": spec.num_classes}
    keys = ("params", "macs", "activations", "activation_bytes", "weight_bytes", "depth")
    try:
        found = cost(name, spec)
    except CnnbenchError as refusal:
        return {**row, **dict.fromkeys(keys), "summary": str(refusal)}
    return {**row, **{key: getattr(found, key) for key in keys}, "summary": summary}


def _published(name: str, spec: ImageSpec) -> dict[str, Any]:
    """A network of torchvision at the size and classes of its model card, with and without its auxiliary heads."""
    from cnnbench.architectures import external

    row = _counted(name, spec, "torchvision's own, at the size of its model card; no auxiliary heads")
    return {**row, "params_with_auxiliary_heads": external.params_with_auxiliary_heads(name, spec)}


def _datasets(format: Format) -> None:
    from cnnbench.datasets import dataset

    rows = [
        {
            "dataset": entry.name,
            **{key: entry.declared.get(key) for key in ("size", "classes")},
            "summary": entry.summary,
        }
        for entry in dataset.entries.values()
    ]
    columns = [Column("dataset", "dataset"), Column("size", "size"), Column("classes", "classes", right=True)]
    render([*columns, Column("summary", "what it is")], rows, title="Datasets", format=format)


def _tasks(format: Format) -> None:
    from cnnbench import tasks

    rows = [{"task": name, "config": path.read_text().strip()} for name, path in tasks.names().items()]
    columns = [Column("task", "task"), Column("config", "what differs from the defaults")]
    render(columns, rows, title="Tasks", format=format)
