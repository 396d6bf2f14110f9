"""The manifest of a bundle, as every reader opens it."""

from __future__ import annotations

import os
from pathlib import Path

from cnnbench import records
from cnnbench.records.bundle import EarlierManifest, ExportRecord, Manifest
from cnnbench.types import CnnbenchError, Exit

MANIFEST = "manifest.json"


def is_bundle(path: str | Path) -> bool:
    """Whether `path` is a folder with a manifest."""
    return (Path(path) / MANIFEST).is_file()


def require_bundle(path: str | Path) -> Path:
    """The folder of a bundle.

    Raises:
        CnnbenchError: It does not exist, has no manifest, or one that is not a file (exit 3).
    """
    file = Path(path) / MANIFEST
    if os.path.lexists(file) and not file.is_file():
        raise CnnbenchError(f"{file} is a link, a pipe, a device or a folder: expected a file", Exit.DATA)
    if not Path(path).exists():
        raise CnnbenchError(f"{path} does not exist: expected a bundle, which `cnnbench export` writes", Exit.DATA)
    if not is_bundle(path):
        raise CnnbenchError(f"{path} is not a bundle: it has no {MANIFEST}; `cnnbench export` writes one", Exit.DATA)
    return Path(path)


def open_manifest(path: str | Path) -> Manifest:
    """The manifest of the bundle at `path`.

    Raises:
        CnnbenchError: There is no bundle, it is of an earlier version, or its manifest cannot be read (exit 3), or was
            edited (exit 4).
    """
    file = require_bundle(path) / MANIFEST
    if _is_earlier(file):
        raise CnnbenchError(
            f"{path} is a bundle of an earlier version, without a proof: run `cnnbench export` again", Exit.DATA
        )
    return records.read(file, Manifest)


def read_export(file: Path) -> ExportRecord:
    """A manifest of this version or of the one before, for tables.

    Raises:
        CnnbenchError: It cannot be read (exit 3), or was edited (exit 4).
    """
    return records.read(file, EarlierManifest if _is_earlier(file) else Manifest)


def _is_earlier(file: Path) -> bool:
    return records.read_json(file).get("schema") == EarlierManifest.__struct_config__.tag
