"""Tasks by name: one YAML a run, in ./tasks, or among those that travel with the package."""

from __future__ import annotations

from pathlib import Path

from cnnbench.registry import hint
from cnnbench.types import CnnbenchError

_HERE = Path(__file__).parent
SHIPPED = next((f for f in (_HERE / "task_files", _HERE.parent / "tasks") if f.is_dir()), _HERE / "task_files")
"""In a wheel the folder tasks/ lies inside the package; in a checkout beside it."""


def names() -> dict[str, Path]:
    """Every task by name; the working folder's own come before the shipped ones."""
    files = [*sorted(SHIPPED.glob("*.yaml")), *sorted(Path("tasks").glob("*.yaml"))]
    return dict(sorted({file.stem: file for file in files}.items()))


def find(task: str) -> Path:
    """The file that `task` names: a path, or a task's name.

    Raises:
        CnnbenchError: There is no such file or task (exit 2), with the nearest names.
    """
    if Path(task).is_file():
        return Path(task)
    known = names()
    if task not in known:
        raise CnnbenchError(f"no config file or task {task!r}: {hint(task, list(known))}")
    return known[task]
