"""`list`: what there is to choose from. Reads declarations only, so it never waits for torch."""

from __future__ import annotations

from typing import Any, Literal

from cnnbench.report.table import Column, Format, render
from cnnbench.types import Exit


def show(what: Literal["architectures", "datasets", "tasks"] = "architectures", format: Format = "table") -> int:
    """List architectures with their declared cost (at 3 x 32 x 32, 10 classes), datasets, or tasks.

    Args:
        what: What to list.
        format: How to print it.
    """
    {"architectures": _architectures, "datasets": _datasets, "tasks": _tasks}[what](format)
    return Exit.OK


def _architectures(format: Format) -> None:
    from cnnbench.architectures import architecture

    rows: list[dict[str, Any]] = [
        {
            "arch": entry.name,
            "params": entry.declared.get("params"),
            "macs": entry.declared.get("macs"),
            "summary": entry.summary,
        }
        for entry in architecture.entries.values()
    ]
    columns = [
        Column("arch", "architecture"),
        Column("params", "parameters", "{:,}".format, right=True),
        Column("macs", "MACs", "{:,}".format, right=True),
        Column("summary", "what it is"),
    ]
    render("Architectures, at 3 x 32 x 32 with 10 classes", columns, rows, format)


def _datasets(format: Format) -> None:
    from cnnbench.datasets import dataset

    rows = [{"dataset": entry.name, "summary": entry.summary} for entry in dataset.entries.values()]
    render("Datasets", [Column("dataset", "dataset"), Column("summary", "what it is")], rows, format)


def _tasks(format: Format) -> None:
    from cnnbench import tasks

    rows = [{"task": name, "config": path.read_text().strip()} for name, path in tasks.names().items()]
    render("Tasks", [Column("task", "task"), Column("config", "what differs from the defaults")], rows, format)
