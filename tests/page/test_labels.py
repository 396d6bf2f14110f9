"""Names beside marks: every one is there, in its own place, and those of one place stand together."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.page.charts.base import Point, accuracy_y, log_x
from cnnbench.page.charts.labels import LimitLine, Spot, names

SIZE = (400, 300)


def layers(points: list[Point], limits: tuple[LimitLine, ...] = (), most: int = 14) -> list[dict[str, Any]]:
    x = log_x("cost", [point["cost"] for point in points], title="cost")
    y = accuracy_y([point["error"] for point in points])
    return [layer.to_dict() for layer in names(points, x=x, y=y, size=SIZE, limits=limits, most=most)]


def written(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The mark of each text, by its words."""
    return {
        row["name"]: {**layer["mark"], **row}
        for layer in found
        for row in (layer["data"].get("values") or layer["datasets"][layer["data"]["name"]])
    }


def test_a_name_alone_stands_at_the_right_of_its_mark() -> None:
    (mark,) = written(layers([{"name": "a", "cost": 10, "error": 0.12}])).values()
    assert (mark["align"], mark["dx"], mark["dy"], mark["cost"]) == ("left", 9, 0, 10)


def test_two_networks_side_by_side_are_named_on_different_sides() -> None:
    """The name at the right would lie on the other mark, and the name of the other on the bar of the first."""
    found = written(
        layers(
            [
                {"name": "inception", "cost": 20, "error": 0.1, "low_error": 0.2, "high_error": 0.05},
                {"name": "a", "cost": 400, "error": 0.01},
                {"name": "b", "cost": 1, "error": 0.01},
                {"name": "lenet", "cost": 24, "error": 0.1},
            ]
        )
    )
    assert found["inception"]["align"] == "right"
    assert found["lenet"]["align"] == "left"


def test_marks_in_one_place_share_a_name() -> None:
    points: list[Point] = [{"name": f"lenet5 {end}", "cost": 10, "error": 0.1} for end in ("fp32", "fp16")]
    points.append({"name": "mlp", "cost": 10, "error": 0.1})
    points.append({"name": "other", "cost": 90, "error": 0.01})
    assert set(written(layers(points))) == {"lenet5 fp32, fp16; mlp", "other"}


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 20)), min_size=1, max_size=12, unique=True),
)
def test_every_mark_is_named_exactly_once(places: list[tuple[int, int]]) -> None:
    points: list[Point] = [{"name": f"n{i}", "cost": x, "error": y / 40} for i, (x, y) in enumerate(places)]
    texts = written(layers(points))
    assert sorted(name for text in texts for name in text.split("; ")) == sorted(point["name"] for point in points)


def test_of_many_the_first_are_named() -> None:
    points: list[Point] = [{"name": f"n{i}", "cost": 10.0**i, "error": 0.1} for i in range(8)]
    assert set(written(layers(points, most=3))) == {"n0", "n1", "n2"}


def test_a_limit_has_its_words_at_an_end_of_its_line() -> None:
    points: list[Point] = [{"name": "a", "cost": 10, "error": 0.1}, {"name": "b", "cost": 90, "error": 0.01}]
    found = written(layers(points, (LimitLine("at least", error=0.05), LimitLine("at most", cost=50.0))))
    assert found["at least"]["error"] == 0.05
    assert found["at least"]["cost"] in (10 / 1.6, 90 * 1.6)
    assert found["at most"]["cost"] == 50


def test_the_texts_of_marks_that_stand_apart_do_not_cover_each_other() -> None:
    """Three rows of three: their boxes are disjoint, in the pixels of the chart."""
    grid = list(itertools.product((1, 10, 100), (0.4, 0.1, 0.02)))
    points: list[Point] = [{"name": f"network {i}", "cost": x, "error": y} for i, (x, y) in enumerate(grid)]
    found = written(layers(points))
    across = {1.0: 80.0, 10.0: 210.0, 100.0: 340.0}
    down = {0.4: 230.0, 0.1: 140.0, 0.02: 50.0}
    boxes = [
        Spot(mark["align"], mark["dx"], mark["dy"]).box(across[mark["cost"]], down[mark["error"]], text=name)
        for name, mark in found.items()
    ]
    assert len(boxes) == 9
    assert [one.overlap(other) for one, other in itertools.combinations(boxes, 2)] == pytest.approx([0.0] * 36)
