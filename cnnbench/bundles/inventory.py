"""What lies in the folder of a bundle, looked at by name, kind and size before anything in it is read."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path

from cnnbench.bundles.card import CONTENTS
from cnnbench.bundles.evidence import CheckError, failed
from cnnbench.types import Exit

MEGABYTE = 2**20
LARGEST = {
    **dict.fromkeys((name for name in CONTENTS if name.endswith(".onnx")), 2048 * MEGABYTE),  # protobuf's own limit
    "manifest.json": 16 * MEGABYTE,
    "golden.npz": 256 * MEGABYTE,
    "reference.npz": 256 * MEGABYTE,
    "flips.csv": 256 * MEGABYTE,
    "predict.py": MEGABYTE,
    "README.md": MEGABYTE,
}
"""Bytes of each file that a bundle may hold, several times what the largest one has."""
LOADED = (
    *(".py", ".pyc", ".pyw", ".pyd", ".so", ".dll", ".dylib", ".pth", ".egg", ".whl", ".zip"),
    *(".onnx", ".ort", ".data", ".pt", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".safetensors"),
)
"""Ends of names that Python or a runtime may import or load beside the bundle's own files."""
VERSIONED = re.compile(r"\.so(\.\d+)+$")
"""Libraries as Linux names them: libcudart.so.12."""
HOSTS = {".git", ".cache", ".eval_results"}
"""Folders that repositories of models keep in it."""


@dataclass(frozen=True)
class Inventory:
    """The bundle's own files that are there, and others, which are never read."""

    own: frozenset[str]
    others: tuple[str, ...]


def take(path: Path) -> Inventory:
    """Look at every entry of the folder `path`, reading none.

    Raises:
        CheckError: One is a link, a device, a pipe, a folder, larger than such a file can be (exit 3), or of a kind
            that could be imported or loaded in the stead of the bundle's own (exit 4).
    """
    others = []
    own = set()
    try:
        for entry in sorted(path.iterdir()):
            kind = entry.lstat()
            if stat.S_ISDIR(kind.st_mode) and entry.name in HOSTS:
                continue
            if not stat.S_ISREG(kind.st_mode):
                what = "a folder" if stat.S_ISDIR(kind.st_mode) else "a link, a pipe or a device"
                raise CheckError("files", f"{entry} is {what}; expected the files of a bundle alone", Exit.DATA)
            if entry.name not in CONTENTS:
                if entry.name.lower().endswith(LOADED) or VERSIONED.search(entry.name.lower()):
                    raise failed("files", f"{entry} is not a file of a bundle and could be loaded beside it: remove it")
                others.append(entry.name)
                continue
            if kind.st_size > LARGEST[entry.name]:
                raise CheckError(
                    "files",
                    f"{entry} has {kind.st_size:,} bytes; expected at most {LARGEST[entry.name]:,}",
                    Exit.DATA,
                )
            own.add(entry.name)
    except OSError as error:
        raise CheckError("files", f"cannot read {error.filename or path}: {error.strerror}", Exit.DATA) from None
    return Inventory(frozenset(own), tuple(others))
