"""The manifest of a bundle, as every reader opens it."""

from __future__ import annotations

from pathlib import Path

from cnnbench import records
from cnnbench.records.schema import Manifest
from cnnbench.types import CnnbenchError, Exit

MANIFEST = "manifest.json"


def is_bundle(path: str | Path) -> bool:
    """Whether `path` is a folder with a manifest."""
    return (Path(path) / MANIFEST).is_file()


def require_bundle(path: str | Path) -> Path:
    """The folder of a bundle.

    Raises:
        CnnbenchError: It has no manifest (exit 3).
    """
    if not is_bundle(path):
        raise CnnbenchError(f"{path} is not a bundle: it has no {MANIFEST}; `cnnbench export` writes one", Exit.DATA)
    return Path(path)


def open_manifest(path: str | Path) -> Manifest:
    """The manifest of the bundle at `path`.

    Raises:
        CnnbenchError: There is no bundle, or its manifest cannot be read (exit 3), or was edited (exit 4).
    """
    return records.read(require_bundle(path) / MANIFEST, Manifest)
