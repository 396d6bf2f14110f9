"""The charts: what stands on their axes and where, and that text from records stays text."""

import json
import math
import re
import xml.etree.ElementTree as ET
from typing import Any

import altair as alt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import HOSTILE

from cnnbench.architectures import architecture
from cnnbench.page.charts import accuracy, base, behaviour
from cnnbench.page.charts.base import Point
from cnnbench.page.charts.still import FONT
from cnnbench.page.section import Picture
from cnnbench.tables import text

NASTY = '</script><script>alert(1)</script>&"'
errors = st.lists(st.floats(1e-5, 1), min_size=1, max_size=20)
SVG = "{http://www.w3.org/2000/svg}"
positive = st.floats(1e-3, 1e12)


def point(name: str, cost: float, error: float, **more: Any) -> Point:
    return {"name": name, "group": name, "cost": cost, "error": error, "accuracy": "", "figure": "", **more}


def pareto(points: list[Point]) -> Picture:
    return accuracy.pareto(
        points, base.palette(each["name"] for each in points), axis="MACs", title="Title", caption="Caption"
    )


def texts(picture: Picture) -> list[str]:
    """What the still picture writes."""
    return ["".join(node.itertext()) for node in ET.fromstring(picture.svg).iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (7, "7"),
        (850, "850"),
        (999.4, "999"),
        (999.6, "1 k"),
        (61_706, "61.7 k"),
        (416_520, "417 k"),
        (999_499, "999 k"),
        (999_500, "1 M"),
        (40_551_040, "40.6 M"),
        (3_722_137_600, "3.72 G"),
        (2.5e15, "2500 T"),
    ],
)
def test_three_digits_and_a_prefix(value: float, told: str) -> None:
    assert text.short(value) == told


@given(st.floats(1, 1e14))
def test_a_short_figure_is_its_value_to_three_digits(value: float) -> None:
    digits, _, prefix = text.short(value).partition(" ")
    assert float(digits) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[prefix] == pytest.approx(value, rel=5.1e-3)


@given(errors)
def test_the_accuracy_axis_spans_every_error_and_has_labels_enough(found: list[float]) -> None:
    labels = base.ladder(found)
    assert labels == sorted(set(labels))
    assert labels[0] < min(found)
    assert labels[-1] >= max(found)
    assert len(labels) >= 2


@given(positive, st.floats(1.21, 1e9))
def test_ticks_of_a_logarithmic_axis_are_round_few_and_inside(low: float, times: float) -> None:
    ticks = base.decades(low, low * times)
    assert 1 <= len(ticks) <= 7
    assert all(low <= tick <= low * times for tick in ticks)
    assert ticks == sorted(set(ticks))
    for tick in ticks:
        assert tick == pytest.approx(float(f"{tick:.1e}"))


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12))
def test_the_front_is_what_no_other_dominates(pairs: list[tuple[int, int]]) -> None:
    points = [point(str(place), cost, error / 10) for place, (cost, error) in enumerate(pairs)]
    front = {(each["cost"], each["error"]) for each in accuracy.front(points)}

    def dominated(one: Point) -> bool:
        return any(
            other["cost"] <= one["cost"]
            and other["error"] <= one["error"]
            and (other["cost"], other["error"]) != (one["cost"], one["error"])
            for other in points
        )

    assert front == {(each["cost"], each["error"]) for each in points if not dominated(each)}
    costs = [each["cost"] for each in accuracy.front(points)]
    assert costs == sorted(set(costs))


def test_accuracy_is_labelled_where_its_error_stands() -> None:
    picture = pareto([point("a", 1e5, 0.05), point("b", 1e6, 0.01)])
    spec = json.loads(picture.spec)
    y = spec["layer"][2]["encoding"]["y"]
    assert y["scale"]["type"] == "log"
    assert y["scale"]["domain"] == [0.05, 0.005]  # the larger error at the bottom
    written = texts(picture)
    assert {"95", "98", "99", "99.5", "test accuracy, %", "MACs"} <= set(written)


def test_every_network_is_named_also_off_the_front() -> None:
    written = texts(pareto([point("cheap", 1e5, 0.05), point("beaten", 2e5, 0.06), point("best", 1e6, 0.01)]))
    assert {"cheap", "beaten", "best"} <= set(written)


def test_limits_are_lines_with_their_words_and_the_chosen_file_is_marked() -> None:
    points = [
        point("small fp32", 0.1, 0.02, chosen=True),
        point("large fp32", 1.0, 0.01, chosen=False),
    ]
    picture = accuracy.quadrant(
        points,
        base.palette(["small fp32", "large fp32"]),
        axis="p90, ms",
        min_accuracy=0.97,
        max_cost=0.5,
        limits=["accuracy >= 97.00 %", "p90 <= 0.500 ms"],
        caption="",
    )
    assert {"small fp32", "large fp32", "accuracy >= 97.00 %", "p90 <= 0.500 ms"} <= set(texts(picture))
    layers = json.loads(picture.spec)["layer"]
    data = json.loads(picture.spec)["datasets"] if "datasets" in picture.spec else {}

    def values(layer: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = layer["data"].get("values") or data[layer["data"]["name"]]
        return found

    across, down = [values(layer) for layer in layers if layer["mark"]["type"] == "line"]
    assert {round(end["error"], 9) for end in across} == {0.03}
    assert {end["cost"] for end in down} == {0.5}
    (halo,) = [values(layer) for layer in layers if layer["mark"]["type"] == "circle"]
    assert [each["name"] for each in halo] == ["small fp32"]


def test_an_interval_that_ends_at_no_mistake_does_not_squeeze_the_rest() -> None:
    picture = pareto([point("a", 1e5, 0.03, low_error=0.08, high_error=base.error(1.0)), point("b", 1e6, 0.01)])
    domain = json.loads(picture.spec)["layer"][2]["encoding"]["y"]["scale"]["domain"]
    assert domain[0] >= 0.08
    assert 0.01 >= domain[1] >= 0.001


@pytest.mark.parametrize("accuracy", [0.0, 0.9, 1.0])
def test_the_error_of_an_accuracy_can_stand_on_a_logarithmic_axis(accuracy: float) -> None:
    error = base.error(accuracy)
    assert error > 0
    assert math.isclose(error, 1 - accuracy, abs_tol=1e-5)


def test_up_to_seven_architectures_have_a_colour_each_and_more_share_their_family_s() -> None:
    few = base.palette(["lenet5", "mlp", "lenet5", "resnet20"])
    assert few.names == ["lenet5", "mlp", "resnet20"]
    many = base.palette(architecture.entries)
    assert set(many.names) <= set(base.FAMILIES.values())
    assert many.groups["resnet20"] == many.groups["resnet110"] == "residual"
    assert many.groups["mlp"] == "fully connected"
    for palette in (few, many):
        assert len({entry.colour for entry in palette.legend}) == len(palette.names)
        assert len({entry.shape for entry in palette.legend}) == len(palette.names)


@pytest.mark.parametrize("arch", ["timm/vit_tiny", "nobody_s", NASTY])
def test_architectures_that_are_not_ours_are_others(arch: str) -> None:
    assert base.family(arch) == "others"


def test_a_colour_means_the_same_whatever_a_picture_shows() -> None:
    colours = base.palette(["a", "b"])
    scales = [
        json.loads(accuracy.pareto(points, colours, axis="MACs", title="", caption="").spec)["layer"][2]["encoding"][
            "color"
        ]["scale"]
        for points in ([point("a", 1e5, 0.1), point("b", 1e6, 0.1)], [point("b", 1e5, 0.1)])
    ]
    assert scales[0] == scales[1]


@pytest.mark.parametrize("name", [NASTY, "a" * 300, "", "\u03b1 \u5b57"], ids=["markup", "long", "empty", "not ASCII"])
def test_names_are_text_in_specification_and_picture(name: str) -> None:
    picture = pareto([point(name, 1e5, 0.05), point("other", 1e6, 0.01)])
    assert "<" not in picture.spec
    assert name in [each["name"] for each in json.loads(picture.spec)["datasets"].values() for each in each]
    assert not list(ET.fromstring(picture.svg).iter("{http://www.w3.org/2000/svg}script"))
    assert base.shortened(name) in texts(picture) or not name


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.slow
def test_a_name_adds_no_element_to_the_picture(name: str) -> None:
    plain, other = (
        ET.fromstring(pareto([point(called, 1e5, 0.05), point("other", 1e6, 0.01)]).svg) for called in ("plain", name)
    )
    assert [node.tag for node in other.iter()] == [node.tag for node in plain.iter()]
    assert not [key for node in other.iter() for key in node.attrib if key.startswith("on")]


def test_right_answers_are_muted_and_only_mistakes_are_counted() -> None:
    cells = [
        {"name": "n", "true": "0", "predicted": "0", "count": 97, "share": 0.97, "percent": ""},
        {"name": "n", "true": "0", "predicted": "1", "count": 3, "share": 0.03, "percent": ""},
        {"name": "n", "true": "1", "predicted": "1", "count": 50, "share": 1.0, "percent": ""},
    ]
    written = texts(behaviour.confusion(cells, ["0", "1"], full=0.1, title="", caption=""))
    assert "3" in written
    assert not {"97", "50"} & set(written)


def test_a_matrix_without_mistakes_is_drawn() -> None:
    cells = [{"name": "n", "true": "0", "predicted": "0", "count": 9, "share": 1.0, "percent": ""}]
    assert "9" not in texts(behaviour.confusion(cells, ["0"], full=0.1, title="", caption=""))


def test_a_specification_keeps_to_the_schema_of_vega_lite() -> None:
    """Charts are written without altair's validation."""
    picture = pareto([point("a", 1e5, 0.05, low_error=0.06, high_error=0.04), point("b", 1e6, 0.01)])
    alt.LayerChart.from_dict(json.loads(picture.spec))


def mark(node: ET.Element) -> tuple[float, ...]:
    return tuple(float(node.attrib[key]) for key in ("x", "y"))


def test_the_still_picture_has_marks_where_its_axes_say_and_the_colours_of_the_page() -> None:
    colours = base.palette(["a", "b"])
    picture = accuracy.pareto(
        [point("a", 1e5, 0.05), point("b", 1e6, 0.005)], colours, axis="MACs", title="", caption=""
    )
    drawn = ET.fromstring(picture.svg)
    used = {
        node.attrib["style"].split("fill: ")[1]: mark(node)
        for node in drawn.iter(f"{SVG}use")
        if "fill: #" in str(node.attrib)
    }
    (left, top), (right, bottom) = used[base.COLOURS[1].lower()], used[base.COLOURS[0].lower()]
    assert left > right  # ten times the MACs
    assert top < bottom  # a tenth of the error, which is higher on the page
    labels = {"".join(node.itertext()): mark(node) for node in drawn.iter(f"{SVG}text")}
    assert right == pytest.approx(labels["100k"][0], abs=0.1)
    assert labels["95"][1] == pytest.approx(bottom, abs=FONT / 2)
    assert "var(--grid)" in picture.svg
    assert "#0" not in picture.svg.replace(base.COLOURS[0].lower(), "").replace("#000000", "")


def test_names_in_a_still_picture_refer_to_it() -> None:
    svg = pareto([point("a", 1e5, 0.05), point("b", 1e6, 0.01)]).svg
    assert set(re.findall(r' id="(\w+)"', svg)) == set(re.findall(r"#([mp]\w+)[)\"]", svg))


def test_the_same_chart_is_the_same_twice() -> None:
    one, other = (pareto([point("a", 1e5, 0.05), point("b", 1e6, 0.01)]) for _ in range(2))
    assert one == other
