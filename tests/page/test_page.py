"""Pages that need nothing but themselves."""

import base64
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from pages import Page

from cnnbench import pictures
from cnnbench.__main__ import main
from cnnbench.page.page import Section, Table, write
from cnnbench.tables.columns import Column
from cnnbench.types import CnnbenchError, Exit

NASTY = "<b>&\"'</b><script>alert(1)</script>"


def made(path: Path, sections: list[Section], title: str = "Title", subtitle: str = "Subtitle") -> Page:
    write(path, title, subtitle, sections)
    return Page(path)


def section(heading: str = "Heading", claims: list[tuple[str, bool]] | None = None) -> Section:
    figure, (axes,) = pictures.new(3, 2)
    axes.plot([0, 1])
    table = Table("A table", [Column("a", "A"), Column("b", "B", right=True)], [{"a": "x", "b": 1}, {"a": "y"}])
    return Section(heading, ["A paragraph"], claims or [], {"What is shown": figure}, [table])


@pytest.fixture(scope="module", params=["made", "explain", "compare", "lab"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A page of each verb that writes one."""
    path = tmp_path_factory.mktemp("pages") / "page.html"
    if request.param == "made":
        return made(path, [section("One", [("so it is", True)]), section("Two")])
    arguments = {
        "explain": ["explain", "lenet5"],
        "compare": ["explain", "--compare", "lenet5", "mlp"],
        "lab": ["lab", "losses", "--out", str(path.parent)],
    }[request.param]
    assert main([*arguments, "--html", str(path)]) == 0
    return Page(path)


def test_a_page_fetches_nothing(real: Page) -> None:
    assert not [tag for tag, _ in real.tags if tag in ("link", "script", "iframe", "object", "embed", "base")]
    for _, attributes in real.tags:
        for name in ("src", "href", "srcset", "data", "action"):
            assert not (attributes.get(name) or "").startswith(("http:", "https:", "//", "file:"))
    assert all(source.startswith("data:image/svg+xml;base64,") for source in real.all("img", "src"))
    assert not any(word in text for text in real.under("style") for word in ("@import", "url("))


def test_its_pictures_are_drawings_with_a_text_instead(real: Page) -> None:
    sources = real.all("img", "src")
    assert sources
    for source in sources:
        assert ET.fromstring(base64.b64decode(source.partition(",")[2], validate=True)).tag.endswith("svg")
    assert all(real.all("img", "alt"))
    assert len(real.all("img", "alt")) == len(sources)


def test_every_section_has_an_anchor_that_is_linked(real: Page) -> None:
    anchors = real.all("section", "id")
    assert len(anchors) == len(set(anchors)) > 0
    assert not any(character.isspace() for anchor in anchors for character in anchor)
    assert real.all("a", "href") == ([f"#{anchor}" for anchor in anchors] if len(anchors) > 1 else [])


def test_a_page_has_one_title_and_a_heading_a_section(real: Page) -> None:
    assert real.under("title") == real.under("h1")
    assert len(real.under("h1")) == 1
    assert len(real.under("h2")) == len(real.all("section", "id"))
    assert real.tags[0][1] == {"lang": "en"}
    assert "utf-8" in real.all("meta", "charset")


def test_every_row_has_a_cell_a_column(real: Page) -> None:
    heads = rows = cells = 0
    widths: list[tuple[int, int]] = []
    for tag in [tag for tag, _ in real.tags] + ["table"]:
        if tag in ("table", "tr") and cells:
            widths.append((heads, cells))
        if tag == "table":
            heads = cells = 0
        elif tag == "th":
            heads += 1
        elif tag == "tr":
            cells, rows = 0, rows + 1
        elif tag == "td":
            cells += 1
    assert rows > 1
    assert widths
    assert all(head == cell for head, cell in widths)


def test_sections_with_one_heading_have_two_anchors(tmp_path: Path) -> None:
    page = made(tmp_path / "page.html", [section("lenet5"), section("lenet5")])
    anchors = page.all("section", "id")
    assert len(set(anchors)) == 2
    assert page.all("a", "href") == [f"#{anchor}" for anchor in anchors]


def test_what_looks_like_html_is_text(tmp_path: Path) -> None:
    table = Table(NASTY, [Column("a", NASTY)], [{"a": NASTY}])
    figure, _ = pictures.new(2, 2)
    nasty = Section(NASTY, [NASTY], [(NASTY, True)], {NASTY: figure}, [table])
    page = made(tmp_path / "page.html", [nasty, section()], NASTY, NASTY)
    assert not {"b", "script"} & {tag for tag, _ in page.tags}
    assert page.all("img", "alt")[0] == NASTY
    for tag in ("title", "h1", "h2", "caption", "th", "td", "p", "a"):
        assert NASTY in page.under(tag), tag
    assert any(NASTY in text for text in page.under("li"))


def test_a_claim_that_does_not_hold_is_marked(tmp_path: Path) -> None:
    page = made(tmp_path / "page.html", [section("One", [("water is wet", True), ("two is three", False)])])
    assert page.under("span") == ["holds", "DOES NOT HOLD"]
    assert page.all("span", "class") == ["holds", "fails"]
    assert page.under("li") == [": water is wet", ": two is three"]


def test_a_missing_value_is_a_dash_and_numbers_stand_right(tmp_path: Path) -> None:
    page = made(tmp_path / "page.html", [section()])
    assert page.under("td") == ["x", "1", "y", "-"]
    assert page.all("td", "class") == ["right", "right"]


def test_the_same_sections_give_the_same_page(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, "Title", "Subtitle", [section("One"), section("Two")])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_page_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write(path, "First", "", [section()])
    before = path.read_bytes()

    def broken(value: object) -> str:
        raise ZeroDivisionError

    failing = Section("Heading", tables=[Table("", [Column("a", "A", broken)], [{"a": 1}])])
    with pytest.raises(ZeroDivisionError):
        write(path, "Second", "", [failing])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CnnbenchError, match="cannot write") as caught:
        write(tmp_path / "file" / "page.html", "Title", "", [section()])
    assert caught.value.code == Exit.USAGE
