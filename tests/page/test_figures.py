"""Pictures that hold what the rows say."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnnbench.page.figures import NAMED, accuracy_against_cost
from cnnbench.tables.columns import Column
from cnnbench.tables.rows import Row
from cnnbench.types import CnnbenchError, Exit


def row(arch: str, accuracy: float | None = 0.9, **changes: Any) -> Row:
    cost = {"params": 60_000, "macs": 400_000, "train_seconds": 0.05}
    usual = {"task": f"d_{arch}", "arch": arch, "dataset": "d", "accuracy": accuracy}
    return Row(**{**usual, **cost, **changes})


MACS, SECONDS, ENERGY = Column("macs", "MACs"), Column("train_seconds", "s"), Column("energy_joules", "J")
COSTS = [MACS, SECONDS]
ROWS = [row("lenet5"), row("resnet20", 0.95, macs=40_000_000, accuracy_std=0.01), row("mlp", 0.85, macs=700_000)]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The picture of ROWS against COSTS, drawn once: .svg and .png, alone in their folder."""
    return accuracy_against_cost(ROWS, tmp_path_factory.mktemp("drawn") / "picture.v1", costs=COSTS)


def colours(path: Path) -> int:
    with Image.open(path) as image:
        return len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0))


def test_both_files_are_written_and_open(drawn: list[Path]) -> None:
    folder = drawn[0].parent
    assert drawn == [folder / "picture.v1.svg", folder / "picture.v1.png"]
    assert sorted(folder.iterdir()) == sorted(drawn)
    with Image.open(drawn[1]) as image:
        assert image.format == "PNG"
        assert min(image.size) > 500
    assert ET.parse(drawn[0]).getroot().tag.endswith("svg")


@pytest.mark.slow
def test_every_network_is_named_and_drawn(drawn: list[Path], tmp_path: Path) -> None:
    svg, png = drawn
    assert all(entry.arch in svg.read_text() for entry in ROWS)
    _, fewer = accuracy_against_cost(ROWS[:1], tmp_path / "one", costs=COSTS)
    assert colours(png) > colours(fewer) > 10


@pytest.mark.slow
def test_with_several_datasets_a_disc_is_named_for_its_task(tmp_path: Path) -> None:
    rows = [row("mlp"), row("mlp", 0.5, dataset="e", task="e_mlp")]
    text = accuracy_against_cost(rows, tmp_path / "two", costs=COSTS)[0].read_text()
    assert "d_mlp" in text
    assert "e_mlp" in text


@pytest.mark.slow
def test_what_was_not_measured_is_said(drawn: list[Path], tmp_path: Path) -> None:
    assert "not measured" not in drawn[0].read_text()
    text = accuracy_against_cost(ROWS[:1], tmp_path / "picture", costs=[MACS, ENERGY])[0].read_text()
    assert "not measured" in text


@pytest.mark.slow
def test_names_of_networks_that_score_alike_do_not_overlap(tmp_path: Path) -> None:
    rows = [row(f"network{index}", 0.99, macs=1_000_000 + 10_000 * index) for index in range(5)]
    svg = accuracy_against_cost(rows, tmp_path / "close", costs=[MACS])[0].read_text()
    places = re.findall(r"<!-- network\d -->\s*<g[^>]*transform=\"translate\(([\d.]+) ([\d.]+)\)", svg)
    assert len(places) == 5
    heights = sorted(float(y) for _, y in places)
    lefts = sorted(float(x) for x, _ in places)
    apart = [max(b - a, d - c) for a, b, c, d in zip(heights, heights[1:], lefts, lefts[1:], strict=False)]
    assert min(apart) > 2


@pytest.mark.slow
def test_a_single_network_with_a_spread_draws_without_a_warning(tmp_path: Path) -> None:
    rows = [row("lenet5", 0.925, accuracy_std=0.015, macs=416_520, params=61_706)]
    assert colours(accuracy_against_cost(rows, tmp_path / "picture", costs=COSTS)[1]) > 10


@pytest.mark.parametrize("rows", [[], [row("mlp", None)]], ids=["no rows", "no accuracy"])
def test_nothing_to_draw_is_an_empty_picture(rows: list[Row], tmp_path: Path) -> None:
    assert "not measured" in accuracy_against_cost(rows, tmp_path / "empty", costs=COSTS)[0].read_text()


@pytest.mark.slow
def test_a_task_that_failed_takes_no_disc_and_no_place_in_the_title(drawn: list[Path], tmp_path: Path) -> None:
    failed = Row(task="e_x", arch="failed_net", dataset="other_set")
    text = accuracy_against_cost([*ROWS, failed], tmp_path / "with", costs=COSTS)[0].read_text()
    assert text == drawn[0].read_text()


@pytest.mark.slow
def test_the_same_rows_give_the_same_bytes(drawn: list[Path], tmp_path: Path) -> None:
    again = accuracy_against_cost(ROWS, tmp_path / "again", costs=COSTS)
    assert [path.read_bytes() for path in drawn] == [path.read_bytes() for path in again]


def test_of_many_networks_those_are_named_that_no_other_beats(tmp_path: Path) -> None:
    rows = [row(f"network{index}", 0.5 + index / 1000, macs=1_000 + index) for index in range(3)]
    rows += [row(f"beaten{index}", 0.4, macs=2_000 + index) for index in range(NAMED)]
    text = accuracy_against_cost(rows, tmp_path / "many", costs=[MACS])[0].read_text()
    assert [name in text for name in ("network0", "network2", "beaten0", "beaten9")] == [True, True, False, False]
    assert f"3 of {NAMED + 3} are named" in text


def test_dollars_in_a_name_are_no_formula(tmp_path: Path) -> None:
    assert "$x_{$" in accuracy_against_cost([row("$x_{$")], tmp_path / "odd", costs=[MACS])[0].read_text()


def test_no_figure_is_left_open(tmp_path: Path) -> None:
    from matplotlib import pyplot as plt

    accuracy_against_cost(ROWS[:1], tmp_path / "picture", costs=[MACS])
    assert plt.get_fignums() == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CnnbenchError, match="cannot write") as caught:
        accuracy_against_cost([], tmp_path / "file" / "picture", costs=[MACS])
    assert caught.value.code == Exit.USAGE
