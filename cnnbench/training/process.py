"""What a training process asks of the system before torch is loaded: cheap waiting, and memory that is kept.

Both matter because the steps of small networks are short: tens of parallel regions and tens of megabytes, again and
again. `benchmarks/process_settings.py` measures both.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

SPINS = "1000"
"""A thread that waits for another looks so many times before it sleeps. GNU OpenMP's default of 300,000 costs dearly
where another process holds one of the cores: the one who could go on is kept from it by the one who looks."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
KEPT_BYTES, HEAP_BYTES = 2**31 - 1, 2**30


def prepare() -> None:
    """Set both, where the user has not; call it before torch is imported."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        keep_freed_memory()


def keep_freed_memory() -> bool:
    """Let malloc take activations from the heap and keep them there, instead of mapping fresh pages at every step.

    Returns:
        Whether this system's C library has such settings; GNU's has.
    """
    mallopt = _c_function("mallopt")
    return bool(mallopt and mallopt(M_MMAP_THRESHOLD, HEAP_BYTES) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))


def release_freed_memory() -> None:
    """Give back to the system, once, what malloc keeps."""
    malloc_trim = _c_function("malloc_trim")
    if malloc_trim:
        malloc_trim(0)


def _c_function(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
