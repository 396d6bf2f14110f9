"""`list`: architectures, datasets and tasks. Reads declarations without importing torch, unless a size is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cnnbench.cli.hints import say_next
from cnnbench.cli.layout import Shown
from cnnbench.cli.table import Format, render
from cnnbench.tables.columns import Column
from cnnbench.types import COST_SPEC, CnnbenchError, Exit, ImageSpec

Kind = Literal["architectures", "datasets", "tasks"]


def list_(
    what: Kind = "architectures",
    *,
    size: str | None = None,
    classes: int | None = None,
    columns: Shown = "fit",
    format: Format = "table",
) -> int:
    """List architectures by their cost, the cheapest first, datasets, or tasks.

    Args:
        what: What to list.
        size: Count the cost of all architectures at HEIGHTxWIDTHxCHANNELS, or 224 for 224x224x3; by default 32x32x3.
        classes: Count it for this many classes; by default 10.
        columns: fit prints the columns that fit the terminal and names the others; all prints all.
        format: How to print it.

    Examples:
        cnnbench list
        cnnbench list datasets
        cnnbench list --size 28x28x1
    """
    counted = size is not None or classes is not None
    if counted and what != "architectures":
        raise CnnbenchError(f"list {what} has no cost to count: --size and --classes go with architectures")
    spec = ImageSpec.of(size, classes) if counted else None
    title, table = _table(what, spec)
    render(table, _rows(what, spec), title=title, format=format, shown=columns)
    if what == "architectures":
        say_next("explain", "lenet5", format=format)
    else:
        say_next(
            "fit", *(["lenet5", "--dataset", "mnist5k"] if what == "datasets" else ["mnist5k_lenet5"]), format=format
        )
    return Exit.OK


def _rows(what: Kind, spec: ImageSpec | None) -> Sequence[object]:
    if what == "datasets":
        from cnnbench.datasets.listing import list_datasets

        return list_datasets()
    if what == "tasks":
        from cnnbench.tasks import list_tasks

        return list_tasks()
    from cnnbench.analysis.listing import list_architectures

    # what cannot be counted stands last
    return sorted(list_architectures(spec), key=lambda each: (each.macs is None, each.macs or 0, each.params or 0))


def _table(what: Kind, spec: ImageSpec | None) -> tuple[str, list[Column]]:
    """Title and columns."""
    summary = Column("summary", "what it is")
    if what == "datasets":
        return "Datasets", [Column("dataset", "dataset"), Column("size", "size"), _number("classes"), summary]
    if what == "tasks":
        return "Tasks", [Column("task", "task"), Column("config", "what differs from the defaults")]
    title = f"Architectures at {spec or COST_SPEC}; also torchvision/<name> and timm/<name>"
    costs = [_number("params", "parameters"), _number("macs", "MACs")]
    if spec is None:
        return title, [Column("arch", "architecture"), *costs, summary]
    costs += [_number("activations"), _number("depth")]
    return title, [Column("arch", "architecture"), Column("size", "size"), *costs, summary]


def _number(key: str, heading: str = "") -> Column:
    return Column(key, heading or key, "{:,}".format, right=True)
