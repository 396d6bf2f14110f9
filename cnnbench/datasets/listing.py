"""Every registered dataset with what it declares; nothing is read or imported."""

from __future__ import annotations

from dataclasses import dataclass

from cnnbench.datasets import dataset


@dataclass(frozen=True)
class ListedDataset:
    """A dataset; size and classes are None where they depend on the user's images."""

    dataset: str
    size: str | None
    classes: int | None
    summary: str


def list_datasets() -> tuple[ListedDataset, ...]:
    """Every registered dataset, by name."""
    return tuple(
        ListedDataset(entry.name, entry.declared.get("size"), entry.declared.get("classes"), entry.summary)
        for entry in dataset.entries.values()
    )
