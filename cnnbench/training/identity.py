"""When two runs have the same outcome: the hash by which a sweep recognises a finished run.

It covers the fields of `Identity`: the configuration, the images, the seed, versions, and the sources that training
reads: the classifier, the data module, checkpoints and precision, the files of this architecture and of this dataset
(also where they are a plug-in's), and whatever those import from the same package. A commit that touches none of these
leaves the hash as it is.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cnnbench import records
from cnnbench.architectures import architecture
from cnnbench.datasets import dataset
from cnnbench.records.schema import DataConfig, DataRecord, ModelConfig, RunConfig, TrainerOption
from cnnbench.registry import LocalEntry
from cnnbench.training.config import DECIDED_TRAINER_OPTIONS, TRAINER, TRAINER_FLAGS, run_flags
from cnnbench.training.interactive import interactive_source
from cnnbench.types import Augment, Dataset

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnnbench.registry import Registry

OURS = "cnnbench"
INTERACTIVE = "__main__"
"""The module of a script or a notebook, whose builders are known by what they use of it, not by its file."""
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
WITHOUT_EFFECT = frozenset(
    {
        "accelerator",
        "benchmark",
        "detect_anomaly",
        "deterministic",
        "enable_model_summary",
        "enable_progress_bar",
        "fast_dev_run",
        "limit_predict_batches",
        "limit_test_batches",
        "log_every_n_steps",
        "num_sanity_val_steps",
        "profiler",
    }
    | DECIDED_TRAINER_OPTIONS
)
"""Trainer options that change how fast a run is, how it rounds, or what is printed; all others count."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run's outcome depends on, the machine's rounding apart."""

    model: ModelConfig
    data: DataConfig
    """Without the options that say where images lie: their hash says which they are."""
    trainer: dict[str, TrainerOption]
    seed: int
    images_sha256: str
    """Of the decoded images and labels."""
    augment: Augment
    background: str | None = None
    """The colour under transparent pixels; None until own data can set one."""
    depth: int | None = None
    """Bits per channel of the decoded images, where it is not 8."""
    class_weights: tuple[float, ...] | None = None
    """Weights of the classes in the loss; None weighs all images alike."""
    versions: dict[str, str]
    """Of torch, and of the distribution that an architecture or dataset comes from, where it is not ours."""
    sources: dict[str, str]
    """SHA-256 by module."""


def identity(config: RunConfig, data: Dataset | DataRecord) -> str:
    """SHA-256, in hexadecimal, of the run's `Identity`.

    Args:
        config: The resolved configuration of `fit`.
        data: The images, or the record of them.
    """
    content = describe(config, data)
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def describe(config: RunConfig, data: Dataset | DataRecord) -> Identity:
    """What the outcome of a run depends on; see `identity`."""
    arch, name = config.model.arch, config.data.dataset
    return Identity(
        model=config.model,
        data=_data_options(config),
        trainer=_trainer_options(config),
        seed=config.seed_everything,
        images_sha256=data.sha256,
        augment=data.augment,
        versions={
            "torch": metadata.version("torch"),
            **versions_of(arch),
            **_distribution(dataset, name),
        },
        sources=sources(arch, name),
    )


def first_difference(before: RunConfig, now: RunConfig) -> tuple[str, object, object] | None:
    """The first option on which the outcome depends and that two configurations set differently.

    Returns:
        Its name, such as model.lr, and its two values; None where there is none.
    """
    values, others = _options(before), _options(now)
    return next(
        (
            (name, values.get(name), others.get(name))
            for name in others | values
            if values.get(name) != others.get(name)
        ),
        None,
    )


def _options(config: RunConfig) -> dict[str, object]:
    """Every option on which the outcome depends, by its dotted name."""
    parts = {"model": config.model, "data": _data_options(config), "trainer": _trainer_options(config)}
    options = {
        f"{part}.{key}": value for part, values in parts.items() for key, value in msgspec.to_builtins(values).items()
    }
    return {**options, "seed_everything": config.seed_everything}


def _data_options(config: RunConfig) -> DataConfig:
    """Without those that say where the images lie."""
    return records.replace(config.data, root=None, folder=None, download=False)


def _trainer_options(config: RunConfig) -> dict[str, TrainerOption]:
    """Those that count and are set: a version of Lightning with one more option leaves the hash as it is."""
    ours = {flag.name.removeprefix("trainer."): flag.default for flag in TRAINER_FLAGS}
    usual = {flag.name.removeprefix("trainer."): flag.default for flag in run_flags() if flag.group == TRAINER}
    options = {**ours, **config.trainer}
    return {
        key: value
        for key, value in sorted(options.items())
        if key not in WITHOUT_EFFECT and (key in ours or value != usual.get(key))
    }


def versions_of(arch: str) -> dict[str, str]:
    """Name and version of the distribution that an architecture comes from; none for ours."""
    return _distribution(architecture, arch)


def sources(arch: str, data: str | None = None) -> dict[str, str]:
    """SHA-256 of every source that training `arch` on `data`, if given, reads, by module.

    A file counts as a whole; of the modules in `BY_DEFINITION` only what the others import counts.
    """
    entries = [architecture[arch], *([dataset[data]] if data else [])]
    builders = [entry.module for entry in entries]
    packages = {OURS, *(name for module in builders for name in _packages_with(module))} - {*LIBRARIES}
    hashes: dict[str, str] = {}
    imported: set[str] = set()
    waiting = [*ROOTS, *builders]
    for entry in entries:
        if isinstance(entry, LocalEntry) and entry.module == INTERACTIVE:
            source = interactive_source(entry.load())
            hashes[f"{INTERACTIVE}.{entry.name}"] = hashlib.sha256(source.text.encode()).hexdigest()
            waiting += source.modules
    while waiting:
        module = waiting.pop()
        path = _file(module, packages)
        if path is None or module in hashes:
            continue
        hashes[module], names = _read(path, module, *_stamp(path))
        imported.update(names)
        waiting += names
    for module in BY_DEFINITION:
        hashes[module], names = _definitions(module, imported)
        imported.update(names)
    return hashes


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


def _distribution(registry: Registry, name: str) -> dict[str, str]:
    """Name and version of the distribution that registers a builder, or whose network it is; none for ours."""
    package = registry[name].module.partition(".")[0]
    if package == OURS:
        return {}
    if package in LIBRARIES:
        return {package: metadata.version(package)}
    distributions = (point.dist for point in metadata.entry_points(group=registry.package, name=name))
    return {distribution.name: distribution.version for distribution in distributions if distribution}


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
    return Path(spec.origin) if spec and spec.origin else None


def _stamp(path: Path) -> tuple[int, int]:
    """What changes where a file is edited."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@cache
def _read(path: Path, module: str, *_: int) -> tuple[str, tuple[str, ...]]:
    """A file's hash, and what it imports at the top or in a function."""
    content = path.read_bytes()
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    return hashlib.sha256(content).hexdigest(), tuple(_imports(ast.parse(content), package))


def _imports(tree: ast.AST, package: str) -> Iterable[str]:
    """Absolute names of the modules that a source imports, and of what it imports from them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            module = importlib.util.resolve_name(relative, package) if node.level else relative
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _definitions(module: str, imported: set[str]) -> tuple[str, tuple[str, ...]]:
    """The hash of the definitions of `module` that are imported, with those that they use; and what these import."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = _without_text(Path(spec.origin), *_stamp(Path(spec.origin)))
    defined = {name: node for node in tree.body for name in _defines(node)}
    names = {name.rpartition(".")[2]: name for name in _imports(tree, module.rpartition(".")[0])}
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
