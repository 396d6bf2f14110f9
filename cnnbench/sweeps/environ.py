"""The environment of a run's process."""

from __future__ import annotations

import os
from pathlib import Path


def data_root() -> str | None:
    """CNNBENCH_DATA as every machine finds it."""
    given = os.environ.get("CNNBENCH_DATA")
    return str(Path(given).expanduser().resolve()) if given else None


def threads_per_run(jobs: int) -> int | None:
    """Threads of each of `jobs` processes; None leaves one alone with what the environment or torch decides."""
    if jobs == 1 or "OMP_NUM_THREADS" in os.environ:
        return None
    return max(1, (os.cpu_count() or 1) // jobs)


def environment(threads: int | None, data: str | None) -> dict[str, str]:
    """That of this process, with OMP_NUM_THREADS and CNNBENCH_DATA where they are given."""
    environ = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    return environ | ({"CNNBENCH_DATA": data} if data else {})
