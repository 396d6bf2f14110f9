"""Every lesson: found, complete, and right."""

import json
from functools import cache

import pytest

from cnnbench import pictures
from cnnbench.lab import Lesson, lesson

TRAINS = [name for name, entry in lesson.entries.items() if entry.declared.get("trains")]

each = pytest.mark.parametrize("name", list(lesson))
each_run = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in TRAINS)) for name in lesson]
)


@cache
def found(name: str) -> Lesson:
    """What a lesson finds; each runs once for all tests."""
    result: Lesson = lesson[name].load()()
    return result


def test_orders_are_one_two_three_and_on() -> None:
    orders = [entry.declared["order"] for entry in lesson.entries.values()]
    assert sorted(orders) == list(range(1, len(orders) + 1))


def test_those_that_train_are_known() -> None:
    assert TRAINS == ["depth", "translation"]


@each
def test_the_file_and_the_function_are_named_for_the_lesson(name: str) -> None:
    entry = lesson[name]
    assert entry.module == f"cnnbench.lab.{name.replace('-', '_')}"
    assert entry.function == name.replace("-", "_")
    assert "_" not in name


@each
def test_a_lesson_says_in_one_sentence_what_it_shows(name: str) -> None:
    assert 30 < len(lesson[name].summary) < 120
    assert lesson[name].summary.endswith(".")


@each_run
def test_every_claim_holds(name: str) -> None:
    claims = found(name).claims
    assert len(claims) >= 3
    assert [claim for claim, held in claims if not held] == []
    assert all(held is True for _, held in claims), "yes or no, and not another type's"
    assert len({claim for claim, _ in claims}) == len(claims)


@each_run
def test_a_figure_is_drawn(name: str) -> None:
    result = found(name)
    drawn = [axes for axes in result.figure.axes if axes.has_data()]
    assert drawn
    assert result.shown
    assert pictures.inline(result.figure).startswith("data:image/svg+xml")


@each_run
def test_there_are_numbers(name: str) -> None:
    result = found(name)
    assert result.numbers
    for numbers in result.numbers:
        assert numbers.title
        assert numbers.rows
        assert json.loads(json.dumps(numbers.rows, allow_nan=False)) == numbers.rows
    assert result.title
    assert len(result.text) > 30


@pytest.mark.parametrize("name", ["backprop", "losses", "one-by-one", "pooling"])
def test_a_lesson_finds_the_same_again(name: str) -> None:
    result = lesson[name].load()()
    assert result.claims == found(name).claims
    assert result.numbers == found(name).numbers
