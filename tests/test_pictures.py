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


def test_both_files_are_written_and_open(tmp_path: Path) -> None:
    paths = pictures.write(drawn(), tmp_path / "new" / "picture.v1")
    assert paths == [tmp_path / "new" / "picture.v1.svg", tmp_path / "new" / "picture.v1.png"]
    assert sorted((tmp_path / "new").iterdir()) == sorted(paths)
    assert ET.parse(paths[0]).getroot().tag.endswith("svg")
    with Image.open(paths[1]) as image:
        assert (image.format, image.size) == ("PNG", (750, 450))


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    first, again = (pictures.write(drawn(), tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert pictures.inline(drawn()) == pictures.inline(drawn())


def test_another_process_draws_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cnnbench import pictures; figure, (axes,) = pictures.new(3, 2);"
        "axes.plot([0, 1]); pictures.write(figure, Path(sys.argv[1]))"
    )
    for name in ("a", "b"):
        subprocess.run([sys.executable, "-c", code, tmp_path / name], check=True, timeout=120)
    for suffix in (".svg", ".png"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_another_figure_gives_others(tmp_path: Path) -> None:
    first, other = (pictures.write(drawn(slope), tmp_path / str(slope)) for slope in (1, -1))
    for one, two in zip(first, other, strict=True):
        assert one.read_bytes() != two.read_bytes()


def test_inline_is_the_drawing_that_is_written(tmp_path: Path) -> None:
    kind, _, content = pictures.inline(drawn()).partition(",")
    assert kind == "data:image/svg+xml;base64"
    decoded = base64.b64decode(content, validate=True)
    assert ET.fromstring(decoded).tag == "{http://www.w3.org/2000/svg}svg"
    assert decoded == pictures.write(drawn(), tmp_path / "picture")[0].read_bytes()


@pytest.mark.parametrize(("panels", "rows"), [(1, 1), (3, 1), (3, 2), (5, 2)])
def test_as_many_panels_as_asked_for_are_to_be_filled(panels: int, rows: int) -> None:
    figure, axes = pictures.new(panels=panels, rows=rows)
    assert len(axes) == panels
    assert sum(each.axison for each in figure.axes) == panels


def test_no_figure_is_left_open() -> None:
    from matplotlib import pyplot as plt

    pictures.inline(drawn())
    assert plt.get_fignums() == []


def test_colours_differ() -> None:
    assert len(set(pictures.COLOURS)) == len(pictures.COLOURS)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CnnbenchError, match="cannot write") as caught:
        pictures.write(drawn(), tmp_path / "file" / "picture")
    assert caught.value.code == Exit.USAGE
