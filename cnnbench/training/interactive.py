"""The source of a builder that a script or a notebook has registered, with all that it uses from there."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import CellType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np


class InteractiveSource(NamedTuple):
    """What a builder computes with."""

    text: str
    """The functions, classes and values of its own module that it uses."""
    modules: tuple[str, ...]
    """Other modules that it uses something of."""


def interactive_source(builder: Callable[..., Any]) -> InteractiveSource:
    """The source of `builder` and of all that it uses.

    A notebook has no file: its functions are found where Python keeps them for tracebacks. Where even that is missing,
    as after `exec`, the byte code stands for the source. A value that cannot be described makes the text unique, so
    that a network is trained again rather than taken for another.
    """
    reader = _Reader(builder.__module__)
    reader.describe("the builder", builder)
    while reader.waiting:
        name, value = reader.waiting.popitem()
        reader.describe(name, value)
    text = "\n".join(f"{name}: {reader.texts[name]}" for name in sorted(reader.texts))
    return InteractiveSource(text, tuple(sorted(reader.modules)))


class _Reader:
    """Describes values by name; what they use of the same module waits."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.texts: dict[str, str] = {}
        self.waiting: dict[str, Any] = {}
        self.modules: set[str] = set()
        self.defined: set[int] = set()
        """Functions and classes that were described: a method that calls `super()` holds its own class."""

    def describe(self, name: str, value: Any) -> None:
        self.texts[name] = ""  # it may use itself
        self.texts[name] = self._text(value, depth=0)

    def _text(self, value: Any, *, depth: int) -> str:
        """A value in words that are the same in every process."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return repr(value)
        if depth > 20:
            return _unique()
        parts = _parts(value)
        if parts is not None:
            return f"{type(value).__name__}({', '.join(self._text(part, depth=depth + 1) for part in parts)})"
        if isinstance(value, ModuleType):
            self.modules.add(value.__name__)
            return value.__name__
        if isinstance(value, FunctionType | type):
            return self._definition(value, depth)
        return self._instance(value, depth)

    def _definition(self, value: FunctionType | type, depth: int) -> str:
        if value.__module__ != self.module:
            self.modules.add(value.__module__)
            return f"{value.__module__}.{value.__qualname__}"
        if id(value) in self.defined:
            return value.__qualname__
        self.defined.add(id(value))
        return self._function(value, depth) if isinstance(value, FunctionType) else self._class(value, depth)

    def _function(self, function: FunctionType, depth: int) -> str:
        for used in sorted(_names(function)):  # in the same order in every process
            if used in function.__globals__ and used not in self.texts:
                self.waiting[used] = function.__globals__[used]
        cells = [_content(cell) for cell in function.__closure__ or ()]
        kept = [*cells, function.__defaults__, function.__kwdefaults__]
        values = [self._text(value, depth=depth + 1) for value in kept]
        return f"{_source(function) or _byte_code(function)} {values}"

    def _class(self, kind: type, depth: int) -> str:
        bases = [self._text(base, depth=depth + 1) for base in kind.__bases__ if base is not object]
        members = {
            name: self._text(member, depth=depth + 1)
            for name, member in sorted(vars(kind).items())
            if not _is_made_by_python(name, member)
        }
        return f"class {kind.__qualname__}({', '.join(bases)}): {members}"

    def _instance(self, value: Any, depth: int) -> str:
        """An object by its class and its attributes."""
        described = f"{type(value).__module__}.{type(value).__qualname__}"
        if type(value).__module__ == self.module:
            described = self._definition(type(value), depth)
        attributes = getattr(value, "__dict__", None)
        if attributes:
            return f"{described} {self._text(dict(attributes), depth=depth + 1)}"
        plain = repr(value)
        return _unique() if " at 0x" in plain else f"{described} {plain}"


def _parts(value: Any) -> Iterable[Any] | None:
    """What a container, a wrapper or an array is made of; None for anything else."""
    if isinstance(value, type | FunctionType | ModuleType):
        return None
    if isinstance(value, Mapping):
        return [part for item in value.items() for part in item]
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, staticmethod | classmethod):
        return [value.__func__]
    if isinstance(value, property):
        return [value.fget, value.fset]
    if callable(value) and hasattr(value, "__wrapped__"):
        return [value.__wrapped__]  # lru_cache
    array = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    if isinstance(array, np.ndarray):
        return [str(array.dtype), array.shape, hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()]
    return None


def _content(cell: CellType) -> Any:
    """What a closure holds; None where it is not filled yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _is_made_by_python(name: str, member: Any) -> bool:
    """Whether nobody wrote a member of a class: `__dict__`, and what dataclasses generate from the other members."""
    special = name.startswith("__") and name.endswith("__")
    return special and not (isinstance(member, FunctionType) and _source(member))


def _unique() -> str:
    return uuid.uuid4().hex


def _source(function: FunctionType) -> str | None:
    try:
        return textwrap.dedent(inspect.getsource(function))
    except OSError:
        return None


def _byte_code(function: FunctionType) -> str:
    return f"{function.__code__.co_code.hex()} {function.__code__.co_consts!r}"


def _names(function: FunctionType) -> set[str]:
    """The global names that a function uses, its inner functions included."""
    try:
        tree = ast.parse(_source(function) or "")
    except SyntaxError:  # a lambda in the middle of an expression
        tree = ast.Module([], [])
    names = set(function.__code__.co_names)
    return names | {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
