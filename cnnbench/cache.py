"""The user's cache folder: what can be downloaded, made or found out again."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import platformdirs

from cnnbench.types import CnnbenchError, Exit


def cache_folder(kind: Literal["data", "folders", "checks"]) -> Path:
    """The folder of one kind of files; it need not exist.

    Args:
        kind: "data" for downloaded datasets, "folders" for decoded images of the user, "checks" for what was found when
            networks and datasets of others were tried.

    Raises:
        CnnbenchError: The user has no home folder, and no other place is named (exit 6).
    """
    try:
        return Path(platformdirs.user_cache_dir("cnnbench")) / kind
    except RuntimeError:
        raise CnnbenchError(
            "there is no home folder for caches: set HOME, or XDG_CACHE_HOME to a folder that can be written",
            Exit.ENVIRONMENT,
        ) from None
