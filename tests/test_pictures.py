"""Pictures as files and inline."""

import base64
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from cnnbench import pictures
from cnnbench.types import CnnbenchError, Exit


def drawn(slope: int = 1) -> Figure:
    figure, panels = pictures.new(5, 3, panels=3, rows=2)
    figure.suptitle("A title")
    for axes in panels:
        axes.plot([0, slope], label="a line")
        axes.set_ylabel("values")
        axes.legend()
    panels[0].imshow([[0, 1], [1, 0]])
    return figure


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The files of `drawn()`, written once, in a folder that was not there."""
    return pictures.write(drawn(), tmp_path_factory.mktemp("first") / "new" / "picture.v1")


def test_both_files_are_written_and_open(first: list[Path]) -> None:
    folder = first[0].parent
    assert first == [folder / "picture.v1.svg", folder / "picture.v1.png"]
    assert sorted(folder.iterdir()) == sorted(first)
    assert ET.parse(first[0]).getroot().tag.endswith("svg")
    with Image.open(first[1]) as image:
        assert (image.format, image.size) == ("PNG", (750, 450))


def test_the_same_figure_gives_the_same_bytes(first: list[Path], tmp_path: Path) -> None:
    again = pictures.write(drawn(), tmp_path / "again")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


@pytest.mark.slow
def test_another_process_draws_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cnnbench import pictures; figure, (axes,) = pictures.new(3, 2);"
        "axes.plot([0, 1]); pictures.write(figure, Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "there"], check=True, timeout=120)
    figure, (axes,) = pictures.new(3, 2)
    axes.plot([0, 1])
    for here, suffix in zip(pictures.write(figure, tmp_path / "here"), (".svg", ".png"), strict=True):
        assert here.read_bytes() == (tmp_path / f"there{suffix}").read_bytes()


@pytest.mark.slow
def test_another_figure_gives_others(first: list[Path], tmp_path: Path) -> None:
    for one, two in zip(first, pictures.write(drawn(-1), tmp_path / "other"), strict=True):
        assert one.read_bytes() != two.read_bytes()


def test_inline_is_the_drawing_that_is_written(first: list[Path]) -> None:
    kind, _, content = pictures.inline(drawn()).partition(",")
    assert kind == "data:image/svg+xml;base64"
    decoded = base64.b64decode(content, validate=True)
    assert ET.fromstring(decoded).tag == "{http://www.w3.org/2000/svg}svg"
    assert decoded == first[0].read_bytes()


@pytest.mark.parametrize(("panels", "rows"), [(1, 1), (3, 1), (3, 2), (5, 2)])
def test_as_many_panels_as_asked_for_are_to_be_filled(panels: int, rows: int) -> None:
    figure, axes = pictures.new(panels=panels, rows=rows)
    assert len(axes) == panels
    assert sum(each.axison for each in figure.axes) == panels


def test_no_figure_is_left_open() -> None:
    from matplotlib import pyplot as plt

    pictures.inline(pictures.new(2, 2)[0])
    assert plt.get_fignums() == []


def test_colours_differ() -> None:
    assert len(set(pictures.COLOURS)) == len(pictures.COLOURS)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CnnbenchError, match="cannot write") as caught:
        pictures.write(pictures.new(2, 2)[0], tmp_path / "file" / "picture")
    assert caught.value.code == Exit.USAGE


def test_labels_of_a_logarithmic_axis_are_numbers() -> None:
    figure, (axes,) = pictures.new(3, 2)
    axes.plot([0, 1], [1e-3, 1e5])
    axes.set_yscale("log")
    drawn = pictures.svg(figure)
    assert "mathdefault" not in drawn
    assert all(f">{label}</text>" in drawn for label in ("100 k", "1 k", "10", "0.1"))
