import importlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench import pictures
from cnnbench.architectures import architecture

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SIZES = [2**power for power in range(4, 12)]
exponents = st.floats(-2, 2)


@pytest.fixture(scope="module")
def scaling() -> Iterator[ModuleType]:
    """The script: its folder is no package, and is on the path as it is where one runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("scaling")


def power(sizes: list[int], exponent: float, scale: float = 1.0) -> list[float]:
    return [scale * size**exponent for size in sizes]


def bent(sizes: list[int], bend: int, first: float, second: float) -> list[float]:
    return [(size / bend) ** (first if size <= bend else second) for size in sizes]


def point(scaling: ModuleType, size: int, *values: float) -> Any:
    return {quantity: (size, value) for quantity, value in zip(scaling.QUANTITIES, values, strict=True)}


def points(scaling: ModuleType, sizes: list[int], images_per_second: list[float]) -> dict[str, list[Any]]:
    """Three rounds a size, of which the middle one is as given; training memory 1000 x size, process memory fixed."""
    return {
        str(size): [point(scaling, size, factor * speed, 1000 * size, 1e9) for factor in (0.5, 1, 3)]
        for size, speed in zip(sizes, images_per_second, strict=True)
    }


def axis_of(scaling: ModuleType, sizes: list[int]) -> Any:
    chosen = [scaling.Setting(str(size), size, ()) for size in sizes]
    return scaling.Axis("one series", "batch size", "pixels", chosen)


@settings(deadline=None)
@given(exponents, st.floats(1e-3, 1e6))
def test_one_exponent_is_recovered(scaling: ModuleType, exponent: float, scale: float) -> None:
    values = power(SIZES, exponent, scale)
    law = scaling.power_law(SIZES, values)
    assert law.exponents == pytest.approx([exponent], abs=1e-9)
    assert law.corners == (pytest.approx((16, values[0])), pytest.approx((2048, values[-1])))


@settings(deadline=None)
@given(exponents, st.floats(0.3, 2), st.sampled_from([-1, 1]), st.sampled_from(SIZES[1:-1]), st.randoms())
def test_a_bend_and_both_exponents_are_recovered(
    scaling: ModuleType, first: float, turn: float, sign: int, bend: int, order: Any
) -> None:
    second = first + sign * turn
    pairs = list(zip(SIZES, bent(SIZES, bend, first, second), strict=True))
    order.shuffle(pairs)
    law = scaling.power_law(*zip(*pairs, strict=True))
    assert law.exponents == pytest.approx([first, second], abs=1e-9)
    assert law.corners[1] == pytest.approx((bend, 1))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_straight_line_is_the_least_squares_of_numpy(scaling: ModuleType, seed: int) -> None:
    sizes, values = [1, 2, 3, 5], np.exp(np.random.default_rng(seed).normal(size=4)).tolist()
    slope, _ = np.polyfit(np.log(sizes), np.log(values), 1)
    assert scaling.power_law(sizes, values).exponents == pytest.approx([slope])  # four points are too few to bend


@pytest.mark.parametrize("seed", range(5))
def test_one_percent_of_noise_makes_no_bend(scaling: ModuleType, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.01, len(SIZES))
    law = scaling.power_law(SIZES, np.array(power(SIZES, 0.5)) * np.exp(noise))
    # the standard error of a slope: noise over the root of the sum of squares of logarithms about their mean
    error = 0.01 / math.sqrt(np.var(np.log(SIZES)) * len(SIZES))
    assert law.exponents == pytest.approx([0.5], abs=4 * error)


def test_what_has_no_logarithm_is_left_out(scaling: ModuleType) -> None:
    assert scaling.power_law([1, 2, 4, 8], [0, 2, math.nan, 8]).exponents == pytest.approx([1])
    assert scaling.power_law([1, 2, 4], [0, 0, 4]) is None
    assert scaling.power_law([2, 2, 2], [1, 2, 3]) is None


@pytest.mark.parametrize(
    ("exponents", "bend", "said"),
    [
        ((0.45,), None, "grows with batch size to the power 0.45"),
        ((-1.0,), None, "falls with batch size to the power -1.00"),
        ((-1e-9,), None, "is flat in batch size (0.00)"),
        ((-0.049,), None, "is flat in batch size (-0.05)"),
        ((0.051,), None, "grows with batch size to the power 0.05"),
        ((0.45, 0.03), 256, "grows with batch size to the power 0.45 up to 256 and is flat (0.03) above"),
        ((0.02, -0.5), 31_000, "is flat in batch size (0.02) up to 31,000 and falls to the power -0.50 above"),
    ],
)
def test_words_say_the_exponents_and_the_bend(
    scaling: ModuleType, exponents: tuple[float, ...], bend: int | None, said: str
) -> None:
    corners = [(16.0, 1.0), *([(float(bend), 2.0)] if bend else []), (1e6, 3.0)]
    assert (
        scaling.words(scaling.Curve("speed", "batch size", [], [], scaling.Law(exponents, tuple(corners))))
        == f"speed {said}"
    )


def test_words_say_that_too_little_was_measured(scaling: ModuleType) -> None:
    assert scaling.words(scaling.Curve("memory", "batch size", [], [], None)) == "memory was not measured at two sizes"


def test_the_sentence_is_of_the_medians(scaling: ModuleType) -> None:
    axis = axis_of(scaling, SIZES)
    found = scaling.curves(axis, points(scaling, SIZES, bent(SIZES, 256, 0.6, 0)))
    assert "; ".join(map(scaling.words, found)) == (
        "images/s grows with batch size to the power 0.60 up to 256 and is flat (0.00) above; "
        "training memory grows with pixels to the power 1.00; process memory is flat in pixels (0.00)"
    )


def test_the_sentence_names_each_series(scaling: ModuleType) -> None:
    chosen = [scaling.Setting(f"{arch} {count}", count, (), arch) for arch in "ab" for count in (1, 2)]
    speeds = {"a 1": 10, "a 2": 20, "b 1": 10, "b 2": 5}
    measured = {name: [point(scaling, int(name[-1]), speed, 1, 1)] for name, speed in speeds.items()}
    axis = scaling.Axis("two series", "processes", "processes", chosen)
    parts = [scaling.words(curve) for curve in scaling.curves(axis, measured)]
    assert parts[0] == "a images/s grows with processes to the power 1.00"
    assert parts[3] == "b images/s falls with processes to the power -1.00"


@pytest.mark.slow
def test_a_report_is_a_table_a_sentence_and_one_readable_svg(
    scaling: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = points(scaling, SIZES, power(SIZES, 1))
    scaling.report("batch", axis_of(scaling, SIZES), measured, tmp_path)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:3] == [
        "| batch | images/s | training memory, MB | process memory, MB |",
        "| --- | --- | --- | --- |",
        "| 16 | 16 | 0.0 | 1,000.0 |",
    ]
    assert any(line.startswith("images/s grows with batch size") for line in printed)
    (svg,) = tmp_path.iterdir()
    assert svg.name == "scaling_batch.svg"
    written = svg.read_text()
    ElementTree.fromstring(written)
    for label in ("one series", "batch size", "images/s", "pixels", "peak memory, bytes", scaling.machine()):
        assert f"<!-- {label}" in written  # how matplotlib notes the text that it draws as outlines
    scaling.report("batch", axis_of(scaling, SIZES), measured, tmp_path)
    assert svg.read_text() == written


def test_the_drawing_has_every_run_the_medians_and_the_law(scaling: ModuleType) -> None:
    axis = axis_of(scaling, SIZES)
    found = scaling.curves(axis, points(scaling, SIZES, power(SIZES, 0.5)))
    left, right = scaling.draw(axis, found, "a machine").axes
    drawn = np.concatenate([np.asarray(part.get_offsets()) for part in left.collections])
    runs = [(size, factor * size**0.5) for size in SIZES for factor in (0.5, 1, 3)]
    medians = [(size, size**0.5) for size in SIZES]
    assert np.sort(drawn, axis=0) == pytest.approx(np.sort(runs + medians, axis=0))
    assert left.lines[0].get_xydata() == pytest.approx(np.array([medians[0], medians[-1]]))
    assert [line.get_label() for line in right.lines] == ["to the power 1.00", "to the power 0.00"]
    for axes in (left, right):
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_a_run_that_took_no_memory_is_drawn_past(scaling: ModuleType) -> None:
    axis = axis_of(scaling, [1, 2])
    measured = {"1": [point(scaling, 1, 5, 0, 1000)], "2": [point(scaling, 2, 6, math.nan, 4000)]}
    _, right = scaling.draw(axis, scaling.curves(axis, measured), "a machine").axes
    assert right.get_ylim() == pytest.approx((1000 / 1.6, 4000 * 1.6))
    assert [line.get_label() for line in right.lines] == ["to the power 2.00"]


def test_the_axes_are_what_was_asked_for(scaling: ModuleType) -> None:
    axes = scaling.axes()
    assert [setting.size for setting in axes["batch"].settings] == SIZES
    data = [setting.size for setting in axes["data"].settings]
    assert (data[0], data[-1]) == (1000, 54_000)
    assert {(setting.series, setting.processes) for setting in axes["processes"].settings} == {
        ("lenet5", 1),
        ("lenet5", 2),
        ("resnet20", 1),
        ("resnet20", 2),
    }
    names = [setting.name for setting in axes["model"].settings]
    assert len(names) >= 8
    assert {"linear", "resnet18"} <= set(names) <= set(architecture)
    macs = [architecture[name].declared["macs"] for name in names]
    assert macs == sorted(macs)
    for axis in axes.values():
        series = {setting.series for setting in axis.settings}
        assert len(series) * len(scaling.QUANTITIES) <= len(pictures.COLOURS)


def test_only_known_axes_are_measured(scaling: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["scaling.py", "--only", "batch,colour"])
    with pytest.raises(SystemExit, match="colour: expected some of batch, data, processes, model"):
        scaling.main()


@pytest.mark.slow
def test_a_real_run_is_measured(scaling: ModuleType) -> None:
    setting = scaling.Setting("linear", None, scaling.arguments("linear", 128, "--data.dataset", "mnist5k", steps=4))
    axis = replace(scaling.axes()["model"], settings=[setting])
    (taken,) = scaling.measured(axis, rounds=1)["linear"]
    (macs, rate), (activations, training_bytes), (_, process_bytes) = (taken[name] for name in scaling.QUANTITIES)
    assert (macs, activations) == (28 * 28 * 10, 10)
    assert rate > 0
    assert 100e6 < process_bytes < 100e9  # torch alone takes more than a hundred megabytes
    assert 0 <= training_bytes < process_bytes
