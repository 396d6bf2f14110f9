"""Tasks by name: one YAML file per task, in ./tasks or among those that are installed with the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cnnbench.registry import hint
from cnnbench.types import CnnbenchError

_HERE = Path(__file__).parent
SHIPPED = next((f for f in (_HERE / "task_files", _HERE.parent / "tasks") if f.is_dir()), _HERE / "task_files")
"""In a wheel the folder tasks/ lies inside the package; in a checkout beside it."""


def names() -> dict[str, Path]:
    """The file of every task by name; one in ./tasks replaces the installed one of its name."""
    files = [*sorted(SHIPPED.glob("*.yaml")), *sorted(Path("tasks").glob("*.yaml"))]
    return dict(sorted({file.stem: file for file in files}.items()))


@dataclass(frozen=True)
class ListedTask:
    """A task and its YAML: what differs from the defaults."""

    task: str
    config: str


def list_tasks() -> tuple[ListedTask, ...]:
    """Every task, by name."""
    return tuple(ListedTask(name, path.read_text().strip()) for name, path in names().items())


def find(task: str) -> Path:
    """The file of a task, given as a path or by name.

    Raises:
        CnnbenchError: There is no such file or task (exit 2), with the nearest names.
    """
    path, known = Path(task), names()
    if path.is_dir() and task not in known:
        raise CnnbenchError(f"{task} is a folder; expected a YAML file or a task's name")
    if not path.is_file():
        if task not in known:
            raise CnnbenchError(f"no config file or task {task!r}: {hint(task, list(known))}")
        path = known[task]
    _check(path)
    return path


def _check(path: Path) -> None:
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CnnbenchError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise CnnbenchError(f"{path} holds {content!r:.40}; expected keys and values such as `model: {{arch: lenet5}}`")
