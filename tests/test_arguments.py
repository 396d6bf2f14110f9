"""Arguments of another type than the annotations name are refused in one line, before anything is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec
import numpy as np
import pytest

from cnnbench.arguments import check_fields, checked, fits, near, several, shown, words
from cnnbench.types import CnnbenchError, Exit

if TYPE_CHECKING:
    from fractions import Fraction

FITTING: list[tuple[Any, Any]] = [
    (int, 3),
    (int, np.int64(3)),
    (float, 3),
    (float, np.float32(0.5)),
    (bool, True),
    (str, "x"),
    (str, Path("x")),
    (Path, "x"),
    (int | None, None),
    (Literal["a", "b"], "b"),
    (Sequence[str], ["a", "b"]),
    (Sequence[int], range(3)),
    (tuple[str, ...], ["a"]),
    (tuple[str, ...], ()),
    (str | Sequence[str | Path], [Path("a"), "b"]),
    (Mapping[str, int], {"a": 1}),
    (Callable[[int], None], print),
    (Any, ...),
]
OTHERS: list[tuple[Any, Any]] = [
    (int, "3"),
    (int, 2.5),
    (int, True),
    (float, "2ms"),
    (float, None),
    (bool, 1),
    (str | Path, 3),
    (Literal["a", "b"], "c"),
    (Literal["a", "b"], ["a"]),
    (Literal[1], True),
    (Sequence[str], "ab"),
    (Sequence[str], Path("ab")),
    (Sequence[int], [1, "2"]),
    (tuple[Literal["a"], ...], ("b",)),
    (Mapping[str, int], [1]),
    (Mapping[str, int], {"a": "1"}),
    (Callable[[int], None], 3),
]


@pytest.mark.parametrize(("kind", "value"), FITTING, ids=str)
def test_a_value_of_the_type_fits(kind: Any, value: Any) -> None:
    assert fits(value, kind)


@pytest.mark.parametrize(("kind", "value"), OTHERS, ids=str)
def test_a_value_of_another_type_does_not(kind: Any, value: Any) -> None:
    assert not fits(value, kind)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (int, "a whole number"),
        (int | float | None, "a whole number or a number"),
        (str | None, "text"),
        (list[int] | str, "a list or text"),
        (dict[str, int] | None, "keys with values"),
        (Sequence[str | Path], "a list, each text or a path"),
        (tuple[Literal["a", "b"], ...], "a list, each one of a, b"),
        (Exit, "an Exit"),
    ],
)
def test_types_in_words(kind: Any, expected: str) -> None:
    assert words(kind) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", "'a'"),
        (2.5, "2.5"),
        (["a"], "['a']"),
        ("x" * 100, f"'{'x' * 59}..."),
        ([0] * 100, "a list"),
        (Exit, "the class Exit"),
        (fits, "the function fits"),
        (np.zeros((9, 9)), "a ndarray"),
        (object(), "an object"),
    ],
    ids=range(9),
)
def test_a_value_is_shown_in_one_short_line(value: object, expected: str) -> None:
    assert shown(value) == expected


@checked
def called(names: Sequence[str], *, share: float = 0.5, exact: Fraction | None = None, **options: int) -> str:
    return f"{names} {share} {exact} {options}"


def test_a_checked_function_names_the_argument_and_what_it_takes() -> None:
    assert called(["a"], share=1, exact="any", more=2) == "['a'] 1 any {'more': 2}"  # type: ignore[arg-type]
    with pytest.raises(CnnbenchError) as refused:
        called("ab")
    assert str(refused.value) == "called: names is 'ab': expected a list, each text"
    assert refused.value.code == Exit.USAGE
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'names'"):
        called()  # type: ignore[call-arg]
    assert called.__name__ == "called"


def test_one_path_is_a_list_of_one() -> None:
    assert [several("ab"), several(Path("ab")), several(["a", Path("b")])] == [["ab"], [Path("ab")], ["a", Path("b")]]


@dataclass(frozen=True)
class Options:
    sizes: tuple[int, ...] = (1,)
    usual: ClassVar[int] = 3


@dataclass(frozen=True)
class MoreOptions(Options):
    name: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)


class Recorded(msgspec.Struct, frozen=True):
    count: int = 1


def test_fields_are_held_to_their_types_also_those_of_a_base() -> None:
    check_fields(MoreOptions(name="a", sizes=(1, 2)))
    check_fields(Recorded(3))
    for wrong, said in (
        (lambda: MoreOptions(sizes="12"), "sizes is '12': expected a list, each a whole number"),  # type: ignore[arg-type]
        (lambda: MoreOptions(name=3), "name is 3: expected text"),  # type: ignore[arg-type]
        (lambda: check_fields(Recorded("3")), "count is '3': expected a whole number"),  # type: ignore[arg-type]
    ):
        with pytest.raises(CnnbenchError) as refused:
            wrong()
        assert str(refused.value) == said


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("lenet-5", ["lenet5"]),
        ("LeNet5", ["lenet5"]),
        ("resnet21", ["resnet20"]),
        ("resnet81", ["resnet18"]),
        ("resnet500", ["resnet152"]),
        ("mpl", ["mlp"]),
        ("transformer", []),
    ],
)
def test_the_nearest_words_are_the_same_letters_the_next_number_or_a_slip(word: str, expected: list[str]) -> None:
    assert near(word, ["lenet5", "mlp", "resnet18", "resnet20", "resnet32", "resnet152"]) == expected
