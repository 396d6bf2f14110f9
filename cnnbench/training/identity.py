"""When two runs must come out alike: the hash by which a sweep knows a finished run again.

It covers the configuration, the images, the seed, torch's version, and the sources that training reads: the
classifier, the data module, the files of this architecture and of this dataset, and whatever those import. A commit
that touches nothing of these leaves the hash as it is.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from functools import cache
from importlib import metadata
from pathlib import Path

import msgspec

from cnnbench.architectures import architecture
from cnnbench.datasets import dataset
from cnnbench.records.schema import RunConfig

ROOTS = ("cnnbench.training.classifier", "cnnbench.training.data")
TYPES = "cnnbench.types"
PLACE = ("root", "download", "folder")
"""Options of the data that say where images lie; their hash says which they are."""
TRAINER = (
    "max_epochs",
    "max_steps",
    "precision",
    "limit_train_batches",
    "check_val_every_n_epoch",
    "limit_val_batches",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "overfit_batches",
    "min_epochs",
)
"""Flags of the trainer that change what comes out; the others change how fast, or what is printed."""


def identity(config: RunConfig, seed: int, images_sha256: str) -> str:
    """SHA-256 of all that a run's outcome depends on, the machine's rounding apart.

    Args:
        config: The resolved configuration of `fit`.
        seed: Of the run.
        images_sha256: Of the decoded images and labels.
    """
    content = {
        "model": msgspec.to_builtins(config.model),
        "data": {key: value for key, value in msgspec.to_builtins(config.data).items() if key not in PLACE},
        "trainer": {key: config.trainer.get(key) for key in TRAINER},
        "seed": seed,
        "images": images_sha256,
        "torch": metadata.version("torch"),
        "sources": sources(config.model.arch, config.data.dataset),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sources(arch: str, data: str) -> dict[str, str]:
    """SHA-256 of every source of this package that training `arch` on `data` reads, by module.

    A file counts whole; of `types`, which holds the records of every verb, only what the others import counts.
    """
    found: dict[str, str] = {}
    types: set[str] = set()
    waiting = [*ROOTS, architecture[arch].module, dataset[data].module]
    while waiting:
        module = waiting.pop()
        path = _file(module)
        if path is None or module in found:
            continue
        found[module], imported = _read(path)
        types |= {name.removeprefix(f"{TYPES}.") for name in imported if name.startswith(f"{TYPES}.")}
        waiting += imported
    return {**found, TYPES: _definitions(types)}


def _file(module: str) -> Path | None:
    """The source of a module of ours; None for other packages, for names that are not modules, and for `types`."""
    if not module.startswith("cnnbench.") or module == TYPES:  # the package itself is its public face, no more
        return None
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # a function or a class
        return None
    return Path(spec.origin) if spec and spec.origin else None


@cache
def _read(path: Path) -> tuple[str, tuple[str, ...]]:
    """A file's hash, and what it imports at the top or in a function."""
    content = path.read_bytes()
    names = []
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return hashlib.sha256(content).hexdigest(), tuple(names)


def _definitions(names: set[str]) -> str:
    """The hash of some definitions of `types`, and of those that they use."""
    spec = importlib.util.find_spec(TYPES)
    assert spec is not None
    assert spec.origin is not None
    defined = {name: node for node in ast.parse(Path(spec.origin).read_bytes()).body for name in _defines(node)}
    waiting, used = [*names], set()
    while waiting:
        name = waiting.pop()
        if name in defined and name not in used:
            used.add(name)
            waiting += [node.id for node in ast.walk(defined[name]) if isinstance(node, ast.Name)]
    text = "".join(ast.dump(defined[name]) for name in sorted(used))
    return hashlib.sha256(text.encode()).hexdigest()


def _defines(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
