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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, overload

import msgspec
from msgspec import Meta

from cnnbench.arguments import near, shown
from cnnbench.packages import guarded, guarded_call
from cnnbench.types import CnnbenchError, Exit, Terminated, check_name, first_line

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Builder = TypeVar("Builder", bound=Callable[..., Any])


@dataclass(frozen=True)
class Declarable:
    """What a decorator may declare under a key: a type that msgspec checks, and the same in words."""

    type: Any
    words: str


COUNT = Declarable(Annotated[int, Meta(ge=1)], "a whole number from 1 on")
SHA256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]

Declarables = Mapping[str, Declarable]
"""The keys that a registry knows; an empty one takes any."""


def fault_of(declared: Mapping[str, Any], declarables: Declarables) -> str:
    """What is wrong with a declaration, in words; empty where nothing is."""
    for key, value in declared.items() if declarables else ():
        if key not in declarables:
            return f"declares {key}: {hint(key, list(declarables))}"
        try:
            msgspec.convert(value, declarables[key].type)
        except msgspec.ValidationError:
            return f"declares {key}={shown(value)}: expected {declarables[key].words}"
    return ""


@dataclass(frozen=True)
class Entry:
    """A registered name: where its builder is, the first line of its docstring, and the literals it declares."""

    name: str
    module: str
    function: str
    summary: str = ""
    declared: dict[str, Any] = field(default_factory=dict)
    fault: str = ""
    """What is wrong with what it declares, in words; none of it counts then, and the builder is refused."""
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

    def declarations(self) -> dict[str, Any]:
        """All that its builder declares, also what is computed when it is imported.

        Raises:
            CnnbenchError: As `load`.
        """
        return {**self.declared, **_declared(self.load())}

    def refuse_fault(self) -> None:
        """Raises CnnbenchError where it declares what cannot be (exit 6)."""
        if self.fault:
            raise CnnbenchError(f"{self.name} of {self.origin} {self.fault}", Exit.ENVIRONMENT)


@dataclass(frozen=True)
class InstalledEntry(Entry):
    """The entry point of another installed package."""

    point: EntryPoint | None = None
    declarables: Declarables = field(default_factory=dict)
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
        self.refuse_fault()
        what = f"{self.name} of {self.origin}"
        try:
            with guarded(self.module, what):
                builder = self.point.load()
        except (CnnbenchError, Terminated):
            raise
        except (Exception, SystemExit) as error:  # whatever a package does when it is imported
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise CnnbenchError(f"{what} cannot be loaded: {reason}", Exit.ENVIRONMENT) from None
        if not callable(builder):
            raise CnnbenchError(
                f"{what} is {self.point.value}, a {type(builder).__name__}: expected a function, "
                "as in package.module:function",
                Exit.ENVIRONMENT,
            )
        replace(self, fault=fault_of(_declared(builder), self.declarables)).refuse_fault()  # of what is computed
        return guarded_call(builder, self.module, what=what)


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

    def __init__(self, kind: str, package: str, *, declarables: Declarables | None = None) -> None:
        self.kind = kind
        self.package = package
        self.declarables = declarables or {}
        self.packages: set[str] = set()
        """Top-level modules that entry points name."""

    @overload
    def __call__(self, builder: Builder, /) -> Builder: ...

    @overload
    def __call__(self, /, **declared: Any) -> Callable[[Builder], Builder]: ...

    def __call__(self, builder: Any = None, /, **declared: Any) -> Any:
        """Mark a builder. Its name is the function's, or `name` where given; `declared` is kept beside it.

        Raises:
            CnnbenchError: The name is taken, or cannot name a folder; or something is declared that cannot be (exit 2).
        """

        def mark(builder: Builder) -> Builder:
            if not callable(builder):
                raise CnnbenchError(f"{shown(builder)} is not a builder of the {self.kind}: expected a function")
            with suppress(
                AttributeError, TypeError
            ):  # a bound method has no attributes; its entry has what it declares
                builder.declared = declared  # type: ignore[attr-defined]
            if not _module_of(builder).startswith(f"{self.package}."):
                self._register(builder, declared)
            return builder

        return mark if builder is None else mark(builder)

    def _register(self, builder: Callable[..., Any], declared: dict[str, Any]) -> None:
        """Add a builder that this process has defined. Those of a package are known by its entry points alone."""
        module, function = _module_of(builder), getattr(builder, "__name__", "")
        entries = self.entries  # fills `packages`
        if module.partition(".")[0] in self.packages:
            return
        name = declared.get("name", function)
        if not name or name == "<lambda>":
            raise CnnbenchError(f"the builder {builder!r} has no name: give it one with name=")
        check_name(name, f"the {self.kind}'s name")
        before = entries.get(name)
        if before is not None and not (isinstance(before, LocalEntry) and before.module == module):
            raise CnnbenchError(f"the {self.kind} {name!r} is there already, of {before.origin}: give another name=")
        summary = (builder.__doc__ or "").strip().partition("\n")[0]
        stated = _without_name(declared)
        fault = fault_of(stated, self.declarables)
        if fault:
            raise CnnbenchError(f"the {self.kind} {name!r} {fault}")
        entries[name] = LocalEntry(name, module, function, summary, stated, builder=builder)

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
        for installed in _installed(self.package, self.kind, self.declarables):
            self.packages.add(installed.module.partition(".")[0])
            reason = _add_installed(entries, installed)
            if reason:
                say_left_out(f"{self.kind} {installed.name!r} of {installed.origin}", reason)
        return dict(sorted(entries.items()))

    def __getitem__(self, name: str) -> Entry:
        """Raises CnnbenchError (exit 2) with the nearest names where `name` is unknown, or is not a name."""
        self.require_text(name)
        if name not in self.entries:
            raise CnnbenchError(f"unknown {self.kind} {name!r}: {hint(name, list(self.entries))}")
        return self.entries[name]

    def require_text(self, name: object) -> None:
        """Raises CnnbenchError for what is not a name, such as a network where the name of one is expected (exit 2)."""
        if not isinstance(name, str):
            article = "an" if self.kind[0] in "aeiou" else "a"
            raise CnnbenchError(
                f"{shown(name)} is not a name: expected the name of {article} {self.kind}; register a builder with "
                f"@cnnbench.register_{self.kind}"
            )

    def __iter__(self) -> Any:
        return iter(self.entries)


def hint(word: str, accepted: Sequence[str]) -> str:
    """A hint for a word that is not accepted: the nearest accepted ones if any is near, else all of them."""
    closest = near(word, accepted)
    return f"did you mean {' or '.join(closest)}?" if closest else f"expected one of {', '.join(accepted)}"


def _add(entries: dict[str, Entry], entry: Entry) -> None:
    if entry.name in entries:
        raise ValueError(f"{entry.name!r} is registered by {entries[entry.name].module} and by {entry.module}")
    entries[entry.name] = entry


def _add_installed(entries: dict[str, Entry], entry: InstalledEntry) -> str:
    """Add the entry of a package; if it is left out, the reason."""
    before = entries.get(entry.name)
    try:
        check_name(entry.name, "its name")
    except CnnbenchError as error:
        return str(error)
    if before is None:
        entries[entry.name] = entry
    elif isinstance(before, InstalledEntry | AmbiguousEntry):
        packages = before.packages if isinstance(before, AmbiguousEntry) else (before.package,)
        entries[entry.name] = AmbiguousEntry(entry.name, "", "", packages=(*packages, entry.package))
    else:
        return f"the name is that of {before.origin}"
    return ""


def _decorated(path: Path, module: str, decorator: str) -> Iterator[Entry]:
    """The functions in the file at `path` decorated with `@decorator(...)`."""
    for node in ast.parse(path.read_text()).body:
        for call in getattr(node, "decorator_list", []):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == decorator:
                assert isinstance(node, ast.FunctionDef)
                declared = _literals(call)
                yield Entry(declared.pop("name", node.name), module, node.name, _summary(node), declared)


def _installed(group: str, kind: str, declarables: Declarables) -> Iterator[InstalledEntry]:
    """The entry points of other installed packages in a group."""
    for point in sorted(_entry_points(group), key=lambda point: (point.name, _package(point))):
        try:
            summary, declared = _described(point, kind)
        except AttributeError:  # Python's, where the value is not package.module:function
            say_left_out(f"{kind} {point.name!r} of the package {_package(point)}", f"its value is {point.value!r}")
            continue
        fault = fault_of(declared, declarables)
        source = f"from {_package(point)}"
        said = fault or summary
        yield InstalledEntry(
            point.name,
            point.module,
            point.attr or "",
            f"{said} ({source})" if said else source,
            {} if fault else declared,
            fault,
            point,
            declarables,
        )


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "?"


def _entry_points(group: str) -> list[EntryPoint]:
    """The entry points of a group; a package whose file of them is malformed is left out with a line."""
    from importlib.metadata import distributions, entry_points  # slow, and not needed where no name is looked up

    try:
        return list(entry_points(group=group))
    except Exception:  # a malformed line of any package ends the reading of all
        pass
    unreadable = unreadable_packages()
    for package, reason in unreadable.items():
        say_left_out(f"the package {package}", reason)
    readable = {found.name: found for found in distributions() if found.name not in unreadable}
    return [point for found in readable.values() for point in found.entry_points if point.group == group]


def unreadable_packages() -> dict[str, str]:
    """Installed packages whose entry_points.txt cannot be read, each with the reason."""
    from importlib.metadata import distributions

    reasons = {}
    for found in distributions():
        try:
            list(found.entry_points)
        except Exception as error:  # Python's parser names no line
            lines = map(str.strip, (found.read_text("entry_points.txt") or "").splitlines())
            bad = next((line for line in lines if line and line[0] not in "#[" and "=" not in line), None)
            reasons[found.name] = f"its entry_points.txt {f'has the line {bad!r}' if bad else first_line(error)}"
    return reasons


@cache
def say_left_out(what: str, reason: str) -> None:
    """Say, once per process, what is left out and why."""
    print(f"note: {what} is left out: {reason}", file=sys.stderr)


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
    return _summary(node), _without_name(declared)  # the entry point's name counts


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


def _module_of(builder: Callable[..., Any]) -> str:
    """The module that a builder is written in; of a partial, that of its function."""
    return _module_of(builder.func) if isinstance(builder, partial) else builder.__module__ or ""


def _declared(builder: Callable[..., Any]) -> dict[str, Any]:
    """What the decorator has kept on a builder."""
    declared = getattr(builder, "declared", {})
    return _without_name(declared) if isinstance(declared, dict) else {}


def _without_name(declared: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in declared.items() if key != "name"}


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
