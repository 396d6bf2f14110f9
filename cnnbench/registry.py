"""Names to builders, discovered in a folder and through entry points.

Adding an architecture or a dataset is adding a decorated function to one file. Names, summaries and declared
costs are read from the source without importing it, so that `--help`, `list` and a near-match hint never wait
for torch.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cnnbench.types import CnnbenchError, Exit


@dataclass(frozen=True)
class Entry:
    """A registered name: where its builder is, the first line of its docstring, and the literals it declares."""

    name: str
    module: str
    function: str
    summary: str = ""
    declared: dict[str, Any] = field(default_factory=dict)

    def load(self) -> Callable[..., Any]:
        """The builder itself. Raises CnnbenchError (exit 6) where the package that registers it cannot be imported."""
        try:
            builder: Callable[..., Any] = getattr(importlib.import_module(self.module), self.function)
        except (ImportError, AttributeError) as error:
            if self.module.startswith("cnnbench."):
                raise
            raise CnnbenchError(f"{self.name} ({self.summary}) cannot be loaded: {error}", Exit.ENVIRONMENT) from None
        return builder


class Registry:
    """A decorator for builders in the modules of `package`, and the lookup of those by name.

    >>> from cnnbench.architectures import architecture
    >>> architecture["resnet20"].declared["params"]
    269722
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package

    def __call__(self, **declared: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Mark a builder. Its name is the function's, or `name` where given; `declared` is kept on the function."""

        def mark(builder: Callable[..., Any]) -> Callable[..., Any]:
            vars(builder)["declared"] = declared
            return builder

        return mark

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Every name, sorted: ours from the folder, others' from the entry-point group named like the package.

        Raises:
            ValueError: Two builders have one name.
        """
        spec = importlib.util.find_spec(self.package)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        entries: dict[str, Entry] = {}
        for folder in spec.submodule_search_locations:
            for path in sorted(Path(folder).glob("*.py")):
                for entry in _decorated(path, f"{self.package}.{path.stem}", self.kind):
                    _add(entries, entry)
        for entry in _installed(self.package):
            _add(entries, entry)
        return dict(sorted(entries.items()))

    def __getitem__(self, name: str) -> Entry:
        """Raises CnnbenchError (exit 2) with the nearest names where `name` is unknown."""
        if name not in self.entries:
            raise CnnbenchError(f"unknown {self.kind} {name!r}: {hint(name, list(self.entries))}")
        return self.entries[name]

    def __iter__(self) -> Any:
        return iter(self.entries)


def hint(word: str, accepted: list[str]) -> str:
    """A hint for a word that is not accepted: the nearest accepted ones if any is near, else all of them."""
    import difflib  # only where something was mistyped

    near = difflib.get_close_matches(word, accepted)
    return f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(accepted)}"


def _add(entries: dict[str, Entry], entry: Entry) -> None:
    if entry.name in entries:
        raise ValueError(f"{entry.name!r} is registered by {entries[entry.name].module} and by {entry.module}")
    entries[entry.name] = entry


def _decorated(path: Path, module: str, decorator: str) -> Iterator[Entry]:
    """The functions in the file at `path` decorated with `@decorator(...)`."""
    for node in ast.parse(path.read_text()).body:
        for call in getattr(node, "decorator_list", []):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == decorator:
                assert isinstance(node, ast.FunctionDef)
                summary = (ast.get_docstring(node) or "").split("\n")[0]
                declared = _literals(call)
                yield Entry(declared.pop("name", node.name), module, node.name, summary, declared)


def _installed(group: str) -> Iterator[Entry]:
    """The entry points of other installed packages in a group."""
    from importlib.metadata import entry_points  # slow, and not needed where no name is looked up

    for point in entry_points(group=group):
        yield Entry(point.name, point.module, point.attr, f"from {point.dist.name if point.dist else '?'}")


def _literals(call: ast.Call) -> dict[str, Any]:
    """Keyword arguments that are literals; what is computed is only known once the module is imported."""
    values = {}
    for keyword in call.keywords:
        try:
            values[keyword.arg or ""] = ast.literal_eval(keyword.value)
        except ValueError:
            continue
    return values
