"""The source of a builder that a script or a notebook has registered, with all that it uses from there."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

CONSTANTS = (bool, int, float, str, bytes, tuple, type(None))


class InteractiveSource(NamedTuple):
    """What a builder computes with."""

    text: str
    """The functions, classes and constants of its own module that it uses."""
    modules: tuple[str, ...]
    """Other modules that it uses something of."""


def interactive_source(builder: Callable[..., Any]) -> InteractiveSource:
    """The source of `builder` and of all that it uses.

    A notebook has no file: its functions are found where Python keeps them for tracebacks. Where even that is missing,
    as after `exec`, the byte code stands for the source.
    """
    known = getattr(builder, "__globals__", {})
    module = builder.__module__
    texts: dict[str, str] = {}
    modules: set[str] = set()
    waiting: list[tuple[str, Any]] = [(builder.__qualname__, builder)]
    while waiting:
        name, value = waiting.pop()
        if name in texts:
            continue
        if isinstance(value, CONSTANTS):
            texts[name] = repr(value)
            continue
        if isinstance(value, ModuleType) or getattr(value, "__module__", None) != module:
            modules.add(value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", "")))
            continue
        functions = list(_functions(value))
        texts[name] = "\n".join(_text(function) for function in functions)
        used = sorted({used for function in functions for used in _names(function)})
        waiting += [(used, known[used]) for used in used if used in known]
        if isinstance(value, type):
            waiting += [(base.__qualname__, base) for base in value.__mro__[1:-1]]
    return InteractiveSource("\n".join(f"{name}:\n{texts[name]}" for name in sorted(texts)), tuple(sorted(modules)))


def _functions(value: Any) -> Iterable[FunctionType]:
    """The function itself, or those of a class."""
    if isinstance(value, FunctionType):
        return [value]
    if not isinstance(value, type):
        return []
    members = [getattr(member, "__func__", member) for _, member in sorted(vars(value).items())]
    members += [member.fget for member in members if isinstance(member, property)]
    return [member for member in members if isinstance(member, FunctionType)]


def _text(function: FunctionType) -> str:
    return _source(function) or f"{function.__code__.co_code.hex()} {function.__code__.co_consts!r}"


def _source(function: FunctionType) -> str | None:
    try:
        return textwrap.dedent(inspect.getsource(function))
    except OSError:
        return None


def _names(function: FunctionType) -> set[str]:
    """The global names that a function uses, its inner functions included."""
    try:
        tree = ast.parse(_source(function) or "")
    except SyntaxError:  # a lambda in the middle of an expression
        tree = ast.Module([], [])
    names = set(function.__code__.co_names)
    return names | {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
