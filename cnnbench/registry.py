"""Names to builders: discovered in a folder and through entry points, or registered while Python runs.

Adding an architecture or a dataset is adding a decorated function to one file. Names, summaries and declared
costs are read from the source without importing it, so that `--help`, `list` and a near-match hint never wait
for torch. Packages of others name theirs by entry points; a script or a notebook decorates a function.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from cnnbench.types import CnnbenchError, Exit, check_name, first_line

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Builder = TypeVar("Builder", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """A registered name: where its builder is, the first line of its docstring, and the literals it declares."""

    name: str
    module: str
    function: str
    summary: str = ""
    declared: dict[str, Any] = field(default_factory=dict)
    ours: ClassVar[bool] = True
    """Whether its builder is one of this package, which tests try; what builders of others return is tried first."""

    @property
    def origin(self) -> str:
        """Where it comes from, in words."""
        return self.module

    def load(self) -> Callable[..., Any]:
        """The builder itself.

        Raises:
            CnnbenchError: The package that registers it cannot be imported, or has no such function (exit 6).
        """
        builder: Callable[..., Any] = getattr(importlib.import_module(self.module), self.function)
        return builder


@dataclass(frozen=True)
class InstalledEntry(Entry):
    """The entry point of another installed package."""

    point: EntryPoint | None = None
    ours: ClassVar[bool] = False

    @property
    def package(self) -> str:
        """The distribution's name."""
        return self.point.dist.name if self.point and self.point.dist else "?"

    @property
    def origin(self) -> str:
        return f"the package {self.package}"

    def load(self) -> Callable[..., Any]:
        assert self.point is not None
        try:
            builder = self.point.load()
        except (Exception, SystemExit) as error:  # whatever a package does when it is imported
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise CnnbenchError(f"{self.name} of {self.origin} cannot be loaded: {reason}", Exit.ENVIRONMENT) from None
        if not callable(builder):
            raise CnnbenchError(
                f"{self.name} of {self.origin} is {self.point.value}, a {type(builder).__name__}: expected a function, "
                "as in package.module:function",
                Exit.ENVIRONMENT,
            )
        result: Callable[..., Any] = builder
        return result


@dataclass(frozen=True)
class LocalEntry(Entry):
    """A builder that a script or a notebook has registered in this process."""

    builder: Callable[..., Any] | None = None
    ours: ClassVar[bool] = False

    def load(self) -> Callable[..., Any]:
        assert self.builder is not None
        return self.builder


@dataclass(frozen=True)
class AmbiguousEntry(Entry):
    """A name that several installed packages give to different builders."""

    packages: tuple[str, ...] = ()
    ours: ClassVar[bool] = False

    def load(self) -> Callable[..., Any]:
        raise CnnbenchError(
            f"{self.name} is registered by {' and by '.join(self.packages)}: uninstall all of them but one",
            Exit.ENVIRONMENT,
        )


class Registry:
    """A decorator for builders, with or without arguments, and the lookup of those by name.

    In a module of `package` it marks a builder, which is found in the source. Elsewhere it registers the builder in
    this process, at once; a second registration by the same module replaces the first, as when a notebook's cell is
    run again.

    >>> from cnnbench.architectures import architecture
    >>> architecture["resnet20"].declared["params"]
    269722
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self.packages: set[str] = set()
        """Top-level modules that entry points name."""

    @overload
    def __call__(self, builder: Builder, /) -> Builder: ...

    @overload
    def __call__(self, /, **declared: Any) -> Callable[[Builder], Builder]: ...

    def __call__(self, builder: Any = None, /, **declared: Any) -> Any:
        """Mark a builder. Its name is the function's, or `name` where given; `declared` is kept on the function.

        Raises:
            CnnbenchError: The name is taken, or cannot name a folder (exit 2).
        """

        def mark(builder: Builder) -> Builder:
            if not callable(builder):
                raise CnnbenchError(f"{builder!r} is no builder of the {self.kind}: expected a function")
            builder.declared = declared  # type: ignore[attr-defined]
            if not builder.__module__.startswith(f"{self.package}."):
                self._register(builder, declared)
            return builder

        return mark if builder is None else mark(builder)

    def _register(self, builder: Callable[..., Any], declared: dict[str, Any]) -> None:
        """Add a builder that this process has defined. Those of a package are known by its entry points alone."""
        module, function = builder.__module__, getattr(builder, "__name__", "")
        entries = self.entries  # fills `packages`
        if module.partition(".")[0] in self.packages:
            return
        name = declared.get("name", function)
        if not name or name == "<lambda>":
            raise CnnbenchError(f"the builder {builder!r} has no name: give it one with name=")
        _check_name(name, f"the {self.kind}'s name")
        before = entries.get(name)
        if before is not None and not (isinstance(before, LocalEntry) and before.module == module):
            raise CnnbenchError(f"the {self.kind} {name!r} is there already, of {before.origin}: give another name=")
        summary = (builder.__doc__ or "").strip().partition("\n")[0]
        literals = {key: value for key, value in declared.items() if key != "name"}
        entries[name] = LocalEntry(name, module, function, summary, literals, builder)

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Every name, sorted: ours from the folder, others' from the entry-point group named like the package.

        An entry point that cannot be used is left out, with a line on stderr.

        Raises:
            ValueError: Two builders of ours have one name.
        """
        spec = importlib.util.find_spec(self.package)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        entries: dict[str, Entry] = {}
        for folder in spec.submodule_search_locations:
            for path in sorted(Path(folder).glob("*.py")):
                for entry in _decorated(path, f"{self.package}.{path.stem}", self.kind):
                    _add(entries, entry)
        for installed in _installed(self.package, self.kind):
            self.packages.add(installed.module.partition(".")[0])
            reason = _add_installed(entries, installed)
            if reason:
                print(f"note: {self.kind} {installed.name!r} of {installed.origin} {reason}", file=sys.stderr)
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


def _add_installed(entries: dict[str, Entry], entry: InstalledEntry) -> str:
    """Add the entry of a package; if it is left out, the reason."""
    before = entries.get(entry.name)
    try:
        _check_name(entry.name, "its name")
    except CnnbenchError as error:
        return f"is left out: {error}"
    if before is None:
        entries[entry.name] = entry
    elif isinstance(before, InstalledEntry | AmbiguousEntry):
        packages = before.packages if isinstance(before, AmbiguousEntry) else (before.package,)
        entries[entry.name] = AmbiguousEntry(entry.name, "", "", "", {}, (*packages, entry.package))
    else:
        return f"is left out: the name is that of {before.origin}"
    return ""


def _check_name(name: str, what: str) -> None:
    """A name may have slashes, which become dashes where it names a folder."""
    check_name(name.replace("/", "-"), what)


def _decorated(path: Path, module: str, decorator: str) -> Iterator[Entry]:
    """The functions in the file at `path` decorated with `@decorator(...)`."""
    for node in ast.parse(path.read_text()).body:
        for call in getattr(node, "decorator_list", []):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == decorator:
                assert isinstance(node, ast.FunctionDef)
                declared = _literals(call)
                yield Entry(declared.pop("name", node.name), module, node.name, _summary(node), declared)


def _installed(group: str, kind: str) -> Iterator[InstalledEntry]:
    """The entry points of other installed packages in a group."""
    from importlib.metadata import entry_points  # slow, and not needed where no name is looked up

    for point in sorted(
        entry_points(group=group), key=lambda point: (point.name, point.dist.name if point.dist else "")
    ):
        summary, declared = _described(point, kind)
        source = f"from {point.dist.name if point.dist else '?'}"
        summary = f"{summary} ({source})" if summary else source
        yield InstalledEntry(point.name, point.module, point.attr or "", summary, declared, point)


def _described(point: EntryPoint, kind: str) -> tuple[str, dict[str, Any]]:
    """The first line of the docstring of an entry point's function, and the literals that its decorator declares.

    The source is read, nothing is imported. What cannot be found there is left out.
    """
    path = _source(point.module)
    try:
        body: list[ast.stmt] = ast.parse(path.read_bytes()).body if path else []
    except (OSError, SyntaxError, ValueError):  # loading it will say what is wrong
        return "", {}
    node: Any = None
    for name in (point.attr or "").split("."):
        node = next((node for node in body if getattr(node, "name", None) == name), None)
        body = getattr(node, "body", [])
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        return "", {}
    declared: dict[str, Any] = {}
    for call in node.decorator_list:
        if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] in (kind, f"register_{kind}"):
            declared = _literals(call)
    declared.pop("name", None)  # the entry point's counts
    return _summary(node), declared


def _source(module: str) -> Path | None:
    """The file of a module, found without importing it or the packages around it."""
    top, *parts = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not parts:
        return Path(spec.origin) if spec.origin else None
    places = [Path(place, *parts) for place in spec.submodule_search_locations or ()]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    return next((file for file in files if file.is_file()), None)


def _summary(node: ast.FunctionDef | ast.ClassDef) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]


def _literals(call: ast.Call) -> dict[str, Any]:
    """Keyword arguments that are literals; what is computed is only known once the module is imported."""
    values = {}
    for keyword in call.keywords:
        try:
            values[keyword.arg or ""] = ast.literal_eval(keyword.value)
        except ValueError:
            continue
    return values
