"""Tasks by name: one YAML file per task, in ./tasks or among those that are installed with the package."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnbench import records
from cnnbench.registry import hint
from cnnbench.types import CnnbenchError, printable

_HERE = Path(__file__).parent
SHIPPED = next((f for f in (_HERE / "task_files", _HERE.parent / "tasks") if f.is_dir()), _HERE / "task_files")
"""In a wheel the folder tasks/ lies inside the package; in a checkout beside it."""

LARGEST = 65_536
"""Bytes of a task's file; a task has some hundred."""
DEEPEST = 20


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
    return tuple(ListedTask(name, printable(text_of(path)).strip()) for name, path in names().items())


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
    read(path)
    return path


def read(path: Path) -> dict[Any, Any]:
    """The keys and values of a YAML file: data alone, without aliases, of which a few lines can be gigabytes.

    Raises:
        CnnbenchError: It cannot be read, is too large, is not YAML in UTF-8, or holds something else (exit 2).
    """
    import yaml

    text = text_of(path)
    try:
        _check_shape(path, yaml.parse(text))
        content = yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:  # the first from a date or number that is none
        raise CnnbenchError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise CnnbenchError(f"{path} holds {content!r:.40}; expected keys and values such as `model: {{arch: lenet5}}`")
    return content


def _check_shape(path: Path, events: Iterable[Any]) -> None:
    """Raises CnnbenchError: it has an alias, or is nested deeper than any option (exit 2)."""
    import yaml

    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise CnnbenchError(f"{path} has an alias (*): expected every value where it is used")
        if depth > DEEPEST:
            raise CnnbenchError(f"{path} is nested more than {DEEPEST} deep; expected keys and values of options")


def text_of(path: Path) -> str:
    """The text of a task's file.

    Raises:
        CnnbenchError: It cannot be read, is too large, or is not UTF-8 (exit 2).
    """
    try:
        return records.read_bytes(path, most=LARGEST).decode()
    except CnnbenchError as error:
        raise CnnbenchError(str(error).replace("not a record of cnnbench", "not a task")) from None
    except UnicodeDecodeError as error:
        raise CnnbenchError(f"{path} is not a YAML file: {error}") from None
