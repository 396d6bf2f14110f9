"""The source of a builder that a script or a notebook has registered, with all that it uses from there."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import logging
import textwrap
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np

INTERACTIVE = "__main__"
"""The module of a script or a notebook, whose builders are known by what they use of it, not by its file."""

UNKNOWN = "?"
"""In the place of a value that cannot be described."""


class InteractiveSource(NamedTuple):
    """What a builder computes with."""

    described: str
    """The functions, classes and values of its own module that it uses."""
    modules: tuple[str, ...]
    """Other modules that it uses something of."""
    complete: bool
    """Whether all of them can be described."""

    @property
    def text(self) -> str:
        """What is described; where something cannot be, like no other text.

        A network is trained again rather than taken for another.
        """
        return self.described if self.complete else f"{self.described} {uuid.uuid4().hex}"


def interactive_source(builder: Callable[..., Any]) -> InteractiveSource:
    """The source of `builder` and of all that it uses.

    A notebook has no file: its functions are found where Python keeps them for tracebacks. Where even that is missing,
    as after `exec`, the byte code stands for the source. A partial's arguments and a method's object count too.
    """
    reader = _Reader(INTERACTIVE)
    reader.describe("the builder", builder)
    while reader.waiting:
        name, value = reader.waiting.popitem()
        reader.describe(name, value)
    text = "\n".join(f"{name}: {reader.texts[name]}" for name in sorted(reader.texts))
    return InteractiveSource(text, tuple(sorted(reader.modules)), reader.complete)


class _Reader:
    """Describes values by name; what they use of the same module waits."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.texts: dict[str, str] = {}
        self.waiting: dict[str, Any] = {}
        self.modules: set[str] = set()
        self.complete = True
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
            return self._unknown()
        parts = _parts(value)
        if parts is not None:
            return f"{type(value).__name__}({', '.join(self._text(part, depth=depth + 1) for part in parts)})"
        if isinstance(value, ModuleType):
            self.modules.add(value.__name__)
            return value.__name__
        if isinstance(value, FunctionType | type):
            return self._definition(value, depth)
        if isinstance(value, logging.Logger):
            return f"the logger {value.name}"  # it holds all others, whichever there are
        return self._instance(value, depth)

    def _unknown(self) -> str:
        self.complete = False
        return UNKNOWN

    def _definition(self, value: FunctionType | type, depth: int) -> str:
        if value.__module__ != self.module:
            self.modules.add(value.__module__)
            return f"{value.__module__}.{value.__qualname__}"
        if id(value) in self.defined:
            return value.__qualname__
        self.defined.add(id(value))
        return self._function(value, depth) if isinstance(value, FunctionType) else self._class(value, depth)

    def _function(self, function: FunctionType, depth: int) -> str:
        self.modules.update(_imported(function))
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
        elif type(value).__module__ != "builtins":
            self.modules.add(type(value).__module__)
        attributes = getattr(value, "__dict__", None)
        if attributes:
            return f"{described} {self._text(dict(attributes), depth=depth + 1)}"
        plain = repr(value)
        return self._unknown() if " at 0x" in plain else f"{described} {plain}"


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
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, staticmethod | classmethod):
        return [value.__func__]
    if isinstance(value, property):
        return [value.fget, value.fset]
    if callable(value) and hasattr(value, "__wrapped__"):
        return [value.__wrapped__]  # lru_cache
    tensor = hasattr(value, "detach") and hasattr(value, "cpu")  # a stream of text can be detached too
    array = value.detach().cpu().numpy() if tensor else value
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


def _source(function: FunctionType) -> str | None:
    try:
        return textwrap.dedent(inspect.getsource(function))
    except OSError:
        return None


def _byte_code(function: FunctionType) -> str:
    return _code(function.__code__)


def _code(code: CodeType) -> str:
    """Byte code, constants and names, without the addresses and files that the `repr` of code has."""
    constants = [_code(value) if isinstance(value, CodeType) else repr(value) for value in code.co_consts]
    return f"{code.co_code.hex()} {constants} {code.co_names}"


def _imported(function: FunctionType) -> set[str]:
    """The modules that a function imports when it is called."""
    return {*imports(_tree(function), function.__globals__.get("__package__") or "")}


def _names(function: FunctionType) -> set[str]:
    """The global names that a function uses, its inner functions included."""
    names = set(function.__code__.co_names)
    return names | {node.id for node in ast.walk(_tree(function)) if isinstance(node, ast.Name)}


def _tree(function: FunctionType) -> ast.Module:
    try:
        return ast.parse(_source(function) or "")
    except SyntaxError:  # a lambda in the middle of an expression
        return ast.Module([], [])


def imports(tree: ast.AST, package: str) -> Iterable[str]:
    """Absolute names of the modules that a source imports, and of what it imports from them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (package or not node.level):
            relative = "." * node.level + (node.module or "")
            module = importlib.util.resolve_name(relative, package) if node.level else relative
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
