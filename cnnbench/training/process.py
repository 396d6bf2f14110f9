"""System settings of a training process, made before torch is loaded: threads wait cheaply, malloc reuses memory.

Both matter because the steps of small networks are short: tens of parallel regions and tens of megabytes, again and
again. `benchmarks/process_settings.py` measures both.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

SPINS = "1000"
"""Spin count before a waiting OpenMP thread sleeps. GNU OpenMP's default of 300,000 is slow where another process uses
one of the cores: the spinning thread holds the core that the working thread needs."""

forked = False
"""Whether this process was forked from one that had imported torch; see `sweeps.warm`."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
TRIM_BYTES, HEAP_BYTES = 2**31 - 1, 2**30


def prepare() -> None:
    """Make both settings, except where the user has; call it before torch is imported."""
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
    return bool(mallopt and mallopt(M_MMAP_THRESHOLD, HEAP_BYTES) and mallopt(M_TRIM_THRESHOLD, TRIM_BYTES))


def release_freed_memory() -> None:
    """Give back to the system, once, what malloc keeps."""
    malloc_trim = _c_function("malloc_trim")
    if malloc_trim:
        malloc_trim(0)


def _c_function(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
