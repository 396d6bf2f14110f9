"""Which datasets are on this machine, read whole, and whether they are intact."""

from __future__ import annotations

from pathlib import Path

from cnnbench.datasets import Source, dataset
from cnnbench.datasets.choice import data_root, load
from cnnbench.extras import AbsentError
from cnnbench.types import CnnbenchError, DatasetNotFoundError, Finding


def check_datasets(root: str | Path | None = None) -> list[Finding]:
    """Read every registered dataset that is below `root`; the kind `folder` has no files of its own.

    Args:
        root: Folder of the downloaded datasets; by default CNNBENCH_DATA, else the user's cache folder.
    """
    folder = data_root(root)
    place = Finding("data folder", f"{folder}{'' if folder.is_dir() else ' (does not exist yet)'}")
    return [place, *(check_dataset(name, folder) for name in dataset if name != "folder")]


def check_dataset(name: str, root: Path) -> Finding:
    """Read one dataset. Absent data are no fault; altered or damaged data are."""
    try:
        data = load(name, Source(root))
    except DatasetNotFoundError:
        return Finding(f"data {name}", "not on this machine")
    except AbsentError as error:
        return Finding(f"data {name}", str(error))
    except CnnbenchError as error:
        return Finding(f"data {name}", "cannot be used", str(error))
    counts = f"{len(data.train):,} / {len(data.val):,} / {len(data.test):,}"
    return Finding(f"data {name}", f"{data.spec}, {counts} images, sha256 {data.sha256[:12]}")
