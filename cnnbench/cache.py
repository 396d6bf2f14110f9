"""The user's cache folder: what can be downloaded, made or found out again."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import platformdirs


def cache_folder(kind: Literal["data", "folders", "checks"]) -> Path:
    """The folder of one kind of files; it need not exist.

    Args:
        kind: "data" for downloaded datasets, "folders" for decoded images of the user, "checks" for what was found when
            networks and datasets of others were tried.
    """
    return Path(platformdirs.user_cache_dir("cnnbench")) / kind
