"""What a caller passes, held to the annotations of what takes it: another type is one line, not an error further in."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from cnnbench.extras import told
from cnnbench.types import CnnbenchError

P = ParamSpec("P")
Result = TypeVar("Result")

LONGEST = 60
"""Characters of a value that are shown."""


def checked(function: Callable[P, Result], *, name: str | None = None) -> Callable[P, Result]:
    """The function, which first refuses arguments of other types than its annotations name.

    Annotations that only type checkers can resolve are not held to.

    Args:
        function: Any.
        name: What errors call it; by default its own name.

    Raises:
        CnnbenchError: An argument is of another type (exit 2), or a package that an extra brings is missing (exit 6).
    """
    called = name or function.__name__

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Result:
        signature = inspect.signature(function)
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:  # Python's own words for a missing or unknown argument follow
            given = {}
        for key, kind in kinds_of(function).items():
            single = key in given and signature.parameters[key].kind is not inspect.Parameter.VAR_KEYWORD
            if single and not fits(given[key], kind):
                raise CnnbenchError(f"{called}: {refusal(key, given[key], kind=kind)}")
        with told(called):
            return function(*args, **kwargs)

    return call


def check_fields(instance: Any) -> None:
    """Refuse values in a dataclass or a Struct that are not of the types of its fields.

    Raises:
        CnnbenchError: A value is of another type (exit 2).
    """
    for kind in reversed(type(instance).__mro__):
        for name, accepted in kinds_of(kind).items():
            if not fits(getattr(instance, name), accepted):
                raise CnnbenchError(refusal(name, getattr(instance, name), kind=accepted))


def refusal(name: str, value: object, *, kind: Any) -> str:
    """What is wrong with a value, in words."""
    return f"{name} is {shown(value)}: expected {words(kind)}"


def require_fraction(what: str, value: float | None) -> None:
    """Raises CnnbenchError for an accuracy that is not above 0 and up to 1, such as one in percent (exit 2)."""
    if value is not None and not 0 < value <= 1:
        raise CnnbenchError(f"{what} {value:g}: expected a fraction such as 0.98")


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type.

    Numbers of numpy are numbers, any sequence but text is a list or a tuple, and a path may be given as text or text
    that is a path as a `Path`.
    """
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return any(value is part or (type(value) is type(part) and value == part) for part in parts)
    if origin in (int, float):
        return isinstance(value, Integral if origin is int else Real) and not isinstance(value, bool)
    if origin in (str, Path):
        return isinstance(value, str | Path)
    if origin in (list, tuple, Sequence):
        listed = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return listed and all(fits(item, part) for part in parts[:1] for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(fits(item, parts[1]) for item in value.values() if parts)
    if origin is Callable:
        return callable(value)
    if origin in (None, NoneType):
        return value is None
    return origin is Any or not isinstance(origin, type) or isinstance(value, origin)


WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    NoneType: "null",
    Path: "a path",
    list: "a list",
    tuple: "a list",
    Sequence: "a list",
    dict: "keys with values",
    Mapping: "keys with values",
    Callable: "a function",
}


def several(paths: str | Path | Sequence[str | Path]) -> list[str | Path]:
    """Paths of which a caller may give one alone: the characters of a text are none."""
    return [paths] if isinstance(paths, str | Path) else list(paths)


def words(kind: Any) -> str:
    """A type in words, such as "a whole number or a number"."""
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(words(part) for part in parts if part is not NoneType))
    if origin in (tuple, Sequence) and parts:
        return f"a list, each {words(parts[0])}"
    return WORDS.get(origin) or _a(origin)


def shown(value: object) -> str:
    """A value in one short line: its text where that is short, else what it is."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    text = repr(value)
    if len(text) <= LONGEST and text.isprintable() and not text.startswith("<"):
        return text
    if isinstance(value, str):
        return f"{text[:LONGEST]}..."
    return f"the function {value.__name__}" if callable(value) and hasattr(value, "__name__") else _a(type(value))


def _a(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'aeiouAEIOU' else 'a'} {kind.__name__}"


@functools.cache
def kinds_of(annotated: Any) -> dict[str, Any]:
    """The types that the annotations of a function or of a class itself name; without those that only checkers know."""
    kinds = {}
    namespace = {**vars(collections.abc), **vars(sys.modules[annotated.__module__])}  # many import those for checkers
    for name, text in inspect.get_annotations(annotated).items():
        if name == "return" or "ClassVar" in str(text):
            continue
        try:
            kinds[name] = eval(text, namespace) if isinstance(text, str) else text
        except NameError:  # imported for type checkers alone
            continue
    return kinds


def near(word: str, accepted: Iterable[str]) -> list[str]:
    """The accepted words nearest to one that is not, at most three; empty where none is near.

    `lenet-5` is lenet5, and `resnet21` is nearest to the resnet with the next number.
    """
    import difflib  # only where something was mistyped

    words = list(accepted)
    plain = _letters(word)
    same = [other for other in words if _letters(other) == plain]
    stem, number = _numbered(plain)
    family = [other for other in words if number is not None and _numbered(other)[0] == stem]

    def distance(other: str) -> tuple[bool, int]:
        its = _numbered(other)[1] or 0
        return sorted(str(its)) != sorted(str(number)), abs(its - (number or 0))

    closest = [other for other in sorted(family, key=distance) if _numbered(other)[1] is not None]
    return same or closest[:1] or difflib.get_close_matches(word, words)


def _letters(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum())


def _numbered(word: str) -> tuple[str, int | None]:
    """A word without the number at its end, and the number."""
    stem = word.rstrip("0123456789")
    digits = word[len(stem) :]
    return stem, int(digits) if digits and stem else None
