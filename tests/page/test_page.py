"""Pages that need nothing but themselves."""

from pathlib import Path

import pytest
from pages import Page, sketch

from cnnbench import pictures
from cnnbench.__main__ import main
from cnnbench.lab import Claim
from cnnbench.page.section import Block, Section, Table, drawing
from cnnbench.page.section import Page as Parts
from cnnbench.page.write import render, write
from cnnbench.tables.columns import Column
from cnnbench.types import CnnbenchError, Exit

NASTY = "<b>&\"'</b><script>alert(1)</script>"


@pytest.fixture(autouse=True)
def _figures_are_sketches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those on the pages of `real` are drawn, all but one verb's."""
    monkeypatch.setattr(pictures, "_save", sketch)


def written(path: Path, sections: list[Section], title: str = "Title", lead: str = "Lead") -> Page:
    write(Parts("verb", title, lead, sections=sections), path)
    return Page(path)


def section(heading: str = "Heading", *, anchor: str = "here", claims: tuple[Claim, ...] = ()) -> Section:
    figure, (axes,) = pictures.new(3, 2)
    axes.plot([0, 1])
    table = Table([Column("a", "A"), Column("b", "B", right=True)], [{"a": "x", "b": 1}, {"a": "y"}], "A table")
    blocks = [
        Block(notes=["A note"], claims=claims),
        Block(pictures=[drawing("What is shown", figure)]),
        Block(table=table),
    ]
    return Section(anchor, heading, "A paragraph", blocks)


@pytest.fixture(scope="module", params=["parts", "explain", "compare", "lab"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A page of each verb that writes one; the pictures of `compare`, which are those of `explain`, are sketches."""
    path = tmp_path_factory.mktemp("pages") / "page.html"
    if request.param == "parts":
        claims = (Claim("so it is", holds=True),)
        return written(path, [section("One", anchor="one", claims=claims), section("Two", anchor="two")])
    arguments = {
        "explain": ["explain", "lenet5"],
        "compare": ["explain", "--compare", "lenet5,mlp"],
        "lab": ["lab", "losses", "--out", str(path.parent)],
    }[request.param]
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "compare":
            patch.setattr(pictures, "_save", sketch)
        assert main([*arguments, "--html", str(path)]) == 0
    return Page(path)


def test_a_page_fetches_nothing(real: Page) -> None:
    assert not [tag for tag, _ in real.tags if tag in ("link", "iframe", "object", "embed", "base")]
    for _, attributes in real.tags:
        for name in ("src", "href", "srcset", "data", "action"):
            assert not (attributes.get(name) or "").startswith(("http:", "https:", "//", "file:"))
    assert all(source.startswith("data:image/") for source in real.all("image", "xlink:href"))
    assert real.all("img", "src") == []
    assert not any(word in text for text in real.under("style") for word in ("@import", "url("))


def test_a_page_without_charts_carries_no_vega(real: Page) -> None:
    assert [tag for tag, _ in real.tags].count("script") == 1
    assert real.all("script", "src") == []
    assert sum(map(len, real.under("script"))) < 10_000


def test_every_page_is_light_and_dark_and_asks_for_nothing(real: Page) -> None:
    policies = [found.get("content") for _, found in real.tags if found.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert str(policies[0]).startswith("default-src 'none';")
    assert "light dark" in real.all("meta", "content")
    assert any("prefers-color-scheme: dark" in style for style in real.under("style"))


def test_its_pictures_are_drawings_with_a_text_instead(real: Page) -> None:
    named = [found.get("aria-label") for _, found in real.tags if found.get("role") == "img"]
    assert len(named) == [tag for tag, _ in real.tags].count("svg") > 0
    assert all(named)


def test_what_stands_between_backticks_is_code(tmp_path: Path) -> None:
    parts = [Section("one", "One", "Run `cnnbench lab <x>`, then go on.", [Block(notes=["a ` alone"])])]
    page = written(tmp_path / "page.html", parts)
    assert page.under("code") == ["cnnbench lab <x>"]
    assert "a ` alone" in page.under("p")


def test_every_section_has_an_anchor_that_is_linked(real: Page) -> None:
    anchors = real.all("section", "id")
    assert len(anchors) == len(set(anchors)) > 0
    assert not any(character.isspace() for anchor in anchors for character in anchor)
    linked = [f"#{anchor}" for anchor in anchors]  # in the list of sections, and at each heading
    assert real.all("a", "href") == (linked if len(anchors) > 1 else []) + linked


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
    path = tmp_path / "page.html"
    assert main(["explain", "--compare", "linear,linear", "--html", str(path)]) == 0
    page = Page(path)
    anchors = page.all("section", "id")
    assert len(set(anchors)) == 4
    assert page.all("a", "href") == 2 * [f"#{anchor}" for anchor in anchors]


def test_what_looks_like_html_is_text(tmp_path: Path) -> None:
    table = Table([Column("a", NASTY)], [{"a": NASTY}], NASTY)
    figure, _ = pictures.new(2, 2)
    claims = [Claim(NASTY, holds=True)]
    blocks = [Block(NASTY, [NASTY], claims, pictures=[drawing(NASTY, figure)]), Block(table=table)]
    plain = written(tmp_path / "plain.html", [section(claims=(Claim("", holds=True),)), section(anchor="other")])
    page = written(tmp_path / "page.html", [Section("one", NASTY, NASTY, blocks), section()], NASTY, NASTY)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert NASTY in page.all("div", "aria-label")
    for tag in ("title", "h1", "h2", "h3", "th", "td", "p", "a"):
        assert NASTY in page.under(tag), tag
    assert any(NASTY in text for text in page.under("li"))


def test_a_claim_that_does_not_hold_is_marked(tmp_path: Path) -> None:
    claims = (Claim("water is wet", holds=True), Claim("two is three", holds=False))
    page = written(tmp_path / "page.html", [section("One", claims=claims)])
    assert page.under("span") == ["holds", "DOES NOT HOLD"]
    assert page.all("span", "class") == ["holds", "fails"]
    assert page.under("li") == [": water is wet", ": two is three"]


def test_a_missing_value_is_a_dash_and_numbers_are_aligned_right(tmp_path: Path) -> None:
    page = written(tmp_path / "page.html", [section()])
    assert page.under("td") == ["x", "1", "y", "-"]
    assert page.all("td", "class") == ["r", "r"]
    assert page.all("td", "data-v") == ["1"]


def test_the_same_parts_give_the_same_page() -> None:
    one, other = (
        render(Parts("verb", "Title", sections=[section("One"), section("Two", anchor="two")])) for _ in range(2)
    )
    assert one == other


def test_a_page_that_cannot_be_rendered_leaves_the_one_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write(Parts("verb", "First", sections=[section()]), path)
    before = path.read_bytes()

    def broken(value: object) -> str:
        raise ZeroDivisionError

    table = Table([Column("a", "A", broken)], [{"a": 1}])
    with pytest.raises(ZeroDivisionError):
        write(Parts("verb", "Second", sections=[Section("here", "Heading", "", [Block(table=table)])]), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_is_not_utf_8_is_shown_escaped(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write(Parts("verb", "\ud800"), path)
    assert Page(path).under("h1") == ["\\ud800"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CnnbenchError, match="cannot write") as caught:
        write(Parts("verb", "Title", sections=[section()]), tmp_path / "file" / "page.html")
    assert caught.value.code == Exit.USAGE
