"""Every lesson is registered and complete, and its claims hold."""

import json
from functools import cache

import pytest

from cnnbench import pictures
from cnnbench.lab import Lesson, course, lesson, run_lesson
from cnnbench.types import CnnbenchError

TRAINS = [name for name, entry in lesson.entries.items() if entry.declared.get("trains")]

LONG = [*TRAINS, "receptive-field"]
"""Those that train, and the one that measures the fields of six networks at full size."""

each = pytest.mark.parametrize("name", list(lesson))
each_run = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in lesson]
)


@cache
def result_of(name: str) -> Lesson:
    """The result of a lesson; each runs once for all tests."""
    return run_lesson(name)


def test_orders_are_one_two_three_and_on() -> None:
    orders = [entry.declared["order"] for entry in lesson.entries.values()]
    assert sorted(orders) == list(range(1, len(orders) + 1))


def test_the_course_has_every_lesson_in_its_order() -> None:
    names = [entry.name for entry in course()]
    assert sorted(names) == list(lesson)
    assert names[:3] == ["fc-to-conv", "shapes", "receptive-field"]
    assert {*names[-2:]} == {*TRAINS}, "those that train networks come last"


def test_an_unknown_lesson_is_refused() -> None:
    with pytest.raises(CnnbenchError, match="unknown lesson 'receptive_field': did you mean receptive-field"):
        run_lesson("receptive_field")


@each
def test_the_file_and_the_function_are_named_for_the_lesson(name: str) -> None:
    entry = lesson[name]
    assert entry.module == f"cnnbench.lab.{name.replace('-', '_')}"
    assert entry.function == name.replace("-", "_")
    assert "_" not in name


@each
def test_a_lesson_has_a_summary_of_one_sentence(name: str) -> None:
    assert 30 < len(lesson[name].summary) < 120
    assert lesson[name].summary.endswith(".")


@each_run
def test_every_claim_holds(name: str) -> None:
    claims = result_of(name).claims
    assert len(claims) >= 3
    assert [claim.text for claim in claims if not claim.holds] == []
    assert all(claim.holds is True for claim in claims), "a bool, not a tensor or an array"
    assert result_of(name).holds is True
    assert len({claim.text for claim in claims}) == len(claims)


@each_run
@pytest.mark.slow
def test_a_figure_is_drawn(name: str) -> None:
    result = result_of(name)
    assert [axes for axes in result.figure.axes if axes.has_data()]
    assert result.alt_text
    assert pictures.inline(result.figure).startswith("data:image/svg+xml")


def test_claims_on_receptive_fields_hold_for_small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnbench.lab.receptive_field.NETWORKS", (("lenet5", 32), ("resnet20", 32)))
    result = run_lesson("receptive-field")
    assert [claim.holds for claim in result.claims] == [True] * 4
    assert pictures.inline(result.figure).startswith("data:image/svg+xml")


@each_run
def test_there_are_numbers(name: str) -> None:
    result = result_of(name)
    assert result.numbers
    for numbers in result.numbers:
        assert numbers.title
        assert numbers.rows
        assert json.loads(json.dumps(numbers.rows, allow_nan=False)) == numbers.rows
    assert result.title
    assert len(result.text) > 30


@pytest.mark.parametrize("name", ["backprop", "losses", "one-by-one", "pooling"])
def test_a_lesson_is_deterministic(name: str) -> None:
    result = run_lesson(name)
    assert result.claims == result_of(name).claims
    assert result.numbers == result_of(name).numbers
