"""Pictures of a network that show its layers as they are."""

from functools import cache
from typing import Literal

import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cnnbench import pictures
from cnnbench.analysis.description import describe_network
from cnnbench.page import portrait
from cnnbench.page.section import drawing
from cnnbench.types import COST_SPEC, ImageSpec

GRAY = ImageSpec(28, 28, 1, 10)
SMALL = ImageSpec(16, 16, 3, 10)
OBLONG = ImageSpec(24, 40, 3, 5)
CASES = [
    ("mlp", COST_SPEC),
    ("linear", GRAY),
    ("lenet5", GRAY),
    ("resnet20", SMALL),
    ("inception_small", COST_SPEC),
    ("resnet20", OBLONG),
    ("linear", ImageSpec(1, 1, 1, 1)),
]

each = pytest.mark.parametrize(("name", "spec"), CASES, ids=lambda value: str(value))


described = cache(describe_network)


def squares(figure: Figure) -> list[Rectangle]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


@each
@pytest.mark.slow
def test_fields_are_drawn_without_a_warning(name: str, spec: ImageSpec) -> None:
    figure = portrait.receptive_fields(described(name, spec))
    figure.draw_without_rendering()
    assert len(squares(figure)) <= portrait.SQUARES


@each
@pytest.mark.parametrize("key", ["params", pytest.param("macs", marks=pytest.mark.slow)])
def test_each_layer_with_weights_has_a_bar_as_high_as_they_are_many(
    name: str, spec: ImageSpec, key: Literal["params", "macs"]
) -> None:
    description = described(name, spec)
    figure = portrait.by_layer(description, key)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    found = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in axes.patches}
    figures = [getattr(each.layer, key) for each in description.layers]
    assert found == {place: value for place, value in enumerate(figures, 1) if value}
    assert len(axes.patches) == len(found)
    assert sum(bar.get_height() for bar in axes.patches) == getattr(description.cost, key)


@pytest.mark.parametrize("name", ["linear", "mlp", "mlp_deep"])
def test_a_fully_connected_network_has_no_window_and_says_so(name: str) -> None:
    figure = portrait.receptive_fields(described(name, COST_SPEC))
    assert squares(figure) == []
    assert "every unit sees the whole image" in [text.get_text() for text in figure.axes[1].texts]


@pytest.mark.parametrize("spec", [COST_SPEC, OBLONG], ids=str)
def test_fields_are_those_of_the_layers_in_the_middle_of_the_image(spec: ImageSpec) -> None:
    description = described("resnet20", spec)
    fields = {each.layer.field for each in description.layers if isinstance(each.layer.field, tuple)}
    drawn = squares(portrait.receptive_fields(description))
    assert len(drawn) == portrait.SQUARES
    for square in drawn:
        assert (square.get_height(), square.get_width()) in fields
        assert square.get_center() == pytest.approx((spec.width / 2, spec.height / 2))
    heights = [square.get_height() for square in drawn]
    assert heights == sorted(set(heights))
    assert heights[-1] == max(rows for rows, _ in fields)


def test_a_field_larger_than_the_image_leaves_the_image_to_be_seen() -> None:
    figure = portrait.receptive_fields(described("resnet20", SMALL))
    left, right = figure.axes[0].get_xlim()
    assert right - left <= 3.2 * SMALL.width
    assert left < 0 < SMALL.width < right
    assert all(left <= square.get_x() and square.get_x() + square.get_width() <= right for square in squares(figure))
    assert figure.axes[0].get_title().startswith("larger than shown, up to 81x81: ")


def test_the_line_of_the_field_has_no_dips_at_shortcuts() -> None:
    axes = portrait.receptive_fields(described("resnet20", COST_SPEC)).axes[1]
    lines = {str(line.get_label()): line.get_ydata() for line in axes.lines}
    assert list(lines["by formula"]) == sorted(lines["by formula"])
    assert list(lines["on a shorter path beside it"]) == [
        15,
        15,
        37,
        37,
    ]  # the shortcuts of two stages, each in 2 steps


def test_drawings_have_the_colours_of_the_page() -> None:
    figure, (axes,) = pictures.new(2, 2)
    axes.set_title("title", color="#666666")
    shown = drawing("alt", figure).svg
    assert "var(--soft)" in shown
    assert "var(--ink)" in shown
    assert "#000000" not in shown
    assert "#ffffff" not in shown


def test_the_picture_under_the_fields_is_a_real_image() -> None:
    digit = portrait._example(GRAY)
    assert digit.shape == (28, 28, 3)
    assert (digit[..., 0] == digit[..., 2]).all()
    photograph = portrait._example(OBLONG)
    assert photograph.shape == (24, 40, 3)
    assert (photograph[..., 0] != photograph[..., 2]).any()


def test_what_was_measured_lies_on_the_formula() -> None:
    axes = portrait.receptive_fields(described("lenet5", GRAY)).axes[1]
    lines = {line.get_label(): line for line in axes.lines}
    formula = dict(zip(*lines["by formula"].get_data(), strict=True))
    measured = dict(zip(*lines["measured by gradient"].get_data(), strict=True))
    assert measured == {2: 5, 3: 6, 4: 14, 5: 16}
    assert formula == {1: 1, **measured}
    assert any(line.get_xdata()[0] == 6 for line in axes.lines if "whole image" in str(line.get_label()))


def test_parameters_stand_beside_a_fully_connected_layer_s() -> None:
    layers = [each.layer for each in described("lenet5", GRAY).layers]
    (axes,) = portrait.by_layer(described("lenet5", GRAY), "params").axes
    assert axes.get_yscale() == "log"
    assert axes.get_title() == "parameters by layer: 61,706 in all"
    (line,) = axes.lines
    assert list(line.get_ydata()) == [layer.fully_connected for layer in layers if layer.weights]
    assert line.get_ydata()[0] == 32 * 32 * 28 * 28 * 6


def test_kinds_of_layers_have_colours_of_their_own() -> None:
    (axes,) = portrait.by_layer(described("lenet5", GRAY), "macs").axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["convolution", "linear"]
    assert len({bar.get_facecolor() for bar in axes.patches}) == 2
