"""Fetch a data set once, so that later runs find it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cnnbench.datasets import Source, dataset
from cnnbench.datasets.choice import data_root, load
from cnnbench.types import CnnbenchError


@dataclass(frozen=True)
class Downloaded:
    """A data set that is there now, read whole."""

    dataset: str
    root: str
    train_images: int
    val_images: int
    test_images: int
    sha256: str


def download_dataset(name: str, *, root: str | Path | None = None) -> Downloaded:
    """Fetch a data set if it is not there, and read it.

    Args:
        name: Of a registered data set.
        root: Folder of the downloaded data sets; by default CNNBENCH_DATA, else the user's cache folder.

    Raises:
        CnnbenchError: The name is unknown, or the data set needs no download (exit 2); what came is damaged or altered
            (exit 3); it cannot be fetched (exit 6).
    """
    entry = dataset[name]
    if entry.ours and "download" not in entry.declared.get("uses", []):
        told = "are your own images" if name == "folder" else "comes with the installation"
        users = sorted(other.name for other in dataset.entries.values() if "download" in other.declared.get("uses", []))
        raise CnnbenchError(f"{name} {told}: there is nothing to fetch; there is for {', '.join(users)}")
    place = data_root(root)
    data = load(name, Source(place, download=True))
    return Downloaded(name, str(place), len(data.train), len(data.val), len(data.test), data.sha256)
