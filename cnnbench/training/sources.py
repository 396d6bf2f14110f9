"""The sources that training reads: those of the recipe, and those that a network or a data set is built from.

They are the classifier, the data module, checkpoints and precision, the files of this architecture and of this dataset
(also where they are a plug-in's), and whatever those import from the same package.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING

from cnnbench.architectures import architecture
from cnnbench.datasets import dataset
from cnnbench.registry import Entry, LocalEntry
from cnnbench.training.interactive import INTERACTIVE, imports, interactive_source
from cnnbench.types import CnnbenchError, Exit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnnbench.registry import Registry

OURS = "cnnbench"
ROOTS = tuple(f"cnnbench.training.{name}" for name in ("classifier", "data", "checkpoints", "precision"))
BY_DEFINITION = (
    "cnnbench.training.folder",
    "cnnbench.records.io",
    "cnnbench.registry",
    "cnnbench.records.schema",
    "cnnbench.types",
)
"""Modules with what every verb uses: of these only the definitions that training imports count, without docstrings and
messages of errors. A module may import from those that follow it."""
LIBRARIES = ("torch", "torchvision", "timm")
"""Packages that are known by their version, not by their sources."""


def sources(arch: str, data: str | None = None) -> dict[str, str]:
    """SHA-256 of every source that training `arch` on `data`, if given, reads, by module.

    A file counts as a whole; of the modules in `BY_DEFINITION` only what the others import counts.
    """
    entries = [architecture[arch], *([dataset[data]] if data else [])]
    hashes: dict[str, str] = {}
    beginning = [*ROOTS]
    for entry in entries:
        own, modules = _beginning(entry)
        hashes |= own
        beginning += modules
    imported = _follow(beginning, {OURS, *_packages(entries)}, hashes)
    for module in BY_DEFINITION:
        hashes[module], names = _definitions(module, imported)
        imported.update(names)
    return hashes


def built_from(arch: str) -> dict[str, str]:
    """What a network that is not ours is built from: SHA-256 of each source, or the version of the library it is of.

    Empty for a network of ours, whose sources change with the versions of this package.
    """
    entry = architecture[arch]
    hashes, modules = _beginning(entry, unique=False)
    _follow(modules, _packages([entry]) - {OURS}, hashes)
    library = entry.module.partition(".")[0] in LIBRARIES
    return {**hashes, **(version_of(architecture, arch) if library else {})}


def check_unchanged(arch: str, before: dict[str, str]) -> None:
    """Refuse weights of a network that is built from something else now: they may fit, and mean nothing.

    Args:
        arch: The architecture.
        before: What `built_from` said when it was trained.

    Raises:
        CnnbenchError: A source, or the version of a library, has changed (exit 3).
    """
    now = built_from(arch)
    changed = next((name for name in before | now if before.get(name) != now.get(name)), None)
    if changed in LIBRARIES:
        raise CnnbenchError(
            f"{arch} was trained with {changed} {before.get(changed, '?')}, and this is {now.get(changed, '?')}, whose "
            "network may be another: train it again, or install that version",
            Exit.DATA,
        )
    if changed is not None:
        raise CnnbenchError(
            f"the source of {arch} has changed since this run was trained ({changed}): train it again, or restore it",
            Exit.DATA,
        )


def version_of(registry: Registry, name: str) -> dict[str, str]:
    """Name and version of the distribution that registers a builder, or whose network it is; none for ours."""
    package = registry[name].module.partition(".")[0]
    if package == OURS:
        return {}
    if package in LIBRARIES:
        return {package: metadata.version(package)}
    distributions = (point.dist for point in metadata.entry_points(group=registry.package, name=name))
    return {distribution.name: distribution.version for distribution in distributions if distribution}


def _beginning(entry: Entry, *, unique: bool = True) -> tuple[dict[str, str], list[str]]:
    """Where the sources of a builder begin: the hash of what no file holds, and the modules.

    Args:
        entry: Of the builder.
        unique: Whether a builder that uses a value that cannot be described is like no other, itself included.
    """
    builder = entry.load() if isinstance(entry, LocalEntry) else None
    if builder is None or (entry.module != INTERACTIVE and isinstance(builder, FunctionType | type)):
        return {}, [entry.module]
    source = interactive_source(builder)
    text = source.text if unique else source.described
    return {f"{INTERACTIVE}.{entry.name}": hashlib.sha256(text.encode()).hexdigest()}, [*source.modules]


def _follow(modules: Iterable[str], packages: set[str], hashes: dict[str, str]) -> set[str]:
    """Add the hashes of the files of modules, and of those that these import from `packages`; returns all imports."""
    imported: set[str] = set()
    waiting = [*modules]
    while waiting:
        module = waiting.pop()
        path = _file(module, packages)
        if path is None or module in hashes:
            continue
        hashes[module], names = _read(path, module, *_stamp(path))
        imported.update(names)
        waiting += names
    return imported


def _packages(entries: Iterable[Entry]) -> set[str]:
    return {name for entry in entries for name in _packages_with(entry.module)} - {*LIBRARIES}


def _packages_with(module: str) -> list[str]:
    """The package of a module, and where it lies among files of the user, those beside it."""
    package = module.partition(".")[0]
    if package == OURS:
        return [package]
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None and package != INTERACTIVE:
        spec = importlib.util.find_spec(package)
        file = spec.origin if spec else None
    beside = Path(file).resolve().parent if file else Path.cwd()
    if file and Path(file).name == "__init__.py":
        beside = beside.parent
    if beside.name in ("site-packages", "dist-packages") or not beside.is_dir():
        return [package]
    try:
        return [package, *(path.stem for path in beside.iterdir() if _is_module(path))]
    except OSError:
        return [package]


def _is_module(path: Path) -> bool:
    try:
        return path.suffix == ".py" or (path / "__init__.py").is_file()
    except OSError:  # a folder of another user
        return False


def _file(module: str, packages: Iterable[str]) -> Path | None:
    """The source of a module of these packages; None for others, and for names that are not modules.

    Our package itself is its public face, and does not count.
    """
    if module == OURS or module in BY_DEFINITION or module.partition(".")[0] not in packages:
        return None
    try:
        spec = importlib.util.find_spec(module)
    except Exception:  # a function or a class; a notebook; or a package that raises, as loading its builder will say
        return None
    path = Path(spec.origin) if spec and spec.origin else None
    return path if path and path.is_file() else None  # not where the origin is "built-in" or "frozen"


def _stamp(path: Path) -> tuple[int, int]:
    """What changes where a file is edited."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@cache
def _read(path: Path, module: str, *_: int) -> tuple[str, tuple[str, ...]]:
    """A file's hash, and what it imports at the top or in a function."""
    content = path.read_bytes()
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    tree = ast.parse(content if path.suffix == ".py" else b"")  # a compiled module imports what it likes
    return hashlib.sha256(content).hexdigest(), tuple(imports(tree, package))


def _definitions(module: str, imported: set[str]) -> tuple[str, tuple[str, ...]]:
    """The hash of the definitions of `module` that are imported, with those that they use; and what these import."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = _without_text(Path(spec.origin), *_stamp(Path(spec.origin)))
    defined = {name: node for node in tree.body for name in _defines(node)}
    names = {name.rpartition(".")[2]: name for name in imports(tree, module.rpartition(".")[0])}
    waiting = [name.removeprefix(f"{module}.") for name in imported if name.startswith(f"{module}.")]
    used: set[str] = set()
    foreign: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in defined and name not in used:
            used.add(name)
            waiting += [node.id for node in ast.walk(defined[name]) if isinstance(node, ast.Name)]
        elif name in names:
            foreign.add(names[name])
    text = "".join(ast.dump(defined[name]) for name in sorted(used))
    return hashlib.sha256(text.encode()).hexdigest(), tuple(foreign)


@cache
def _without_text(path: Path, *_: int) -> ast.Module:
    tree: ast.Module = _WithoutText().visit(ast.parse(path.read_bytes()))
    return tree


class _WithoutText(ast.NodeTransformer):
    """Removes docstrings and other bare strings, and what is raised: none of them changes an outcome."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return ast.Expr(ast.Constant(...)) if text else node

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        return ast.Raise(exc=None, cause=None)


def _defines(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
