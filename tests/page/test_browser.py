"""The page in a browser: it sorts, filters and tells on hovering, asks for nothing, and reads without its script."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import builders
import pages as made
import pytest
from browser import Visit

from cnnbench.page.material import Material
from cnnbench.page.report import report_page
from cnnbench.page.write import write
from cnnbench.tables.gather import Records, Run

PHONE = {"width": 390, "height": 844}
TABLE = "#table .block:first-of-type table"
FIRST = "#table .block:first-of-type"
SEARCH = f"{FIRST} input[type=search]"
TABLES = 12
"""On the page of all records."""
MARKS = ".mark-symbol.role-mark path"


@pytest.fixture(scope="module")
def path(world: Path) -> Path:
    """The page of everything."""
    return world / "report.html"


def column(page: Any, key: str) -> list[str]:
    """Texts of a column of the large table, down the page."""
    found: list[str] = page.evaluate(
        """([table, key]) => {
            const place = [...document.querySelectorAll(`${table} th`)].findIndex((head) => head.dataset.key === key);
            return [...document.querySelectorAll(`${table} tbody tr`)].map((row) => row.cells[place].textContent);
        }""",
        [TABLE, key],
    )
    return found


def head(page: Any, key: str) -> Any:
    return page.locator(f"{TABLE} th[data-key={key}]")


def enlivened(page: Any) -> int:
    """Scroll past every chart, so that each is drawn by the script; how many there are."""
    charts = page.locator(".chart")
    for place in range(charts.count()):
        charts.nth(place).scroll_into_view_if_needed()
    page.wait_for_function(
        "() => document.querySelectorAll('.chart .vega-embed svg').length == document.querySelectorAll('.chart').length"
    )
    count: int = charts.count()
    return count


def luminance(colour: str) -> float:
    """Relative luminance of a CSS colour `rgb(r, g, b)` (WCAG 2.2)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def style(page: Any, selector: str, name: str) -> str:
    found: str = page.locator(selector).first.evaluate("(element, name) => getComputedStyle(element)[name]", name)
    return found


# --- the table ---


@pytest.fixture(scope="module")
def opened(visit: Visit, path: Path) -> Iterator[Any]:
    with visit(path) as page:
        yield page


@pytest.fixture
def sheet(opened: Any) -> Any:
    """The page, opened once for all: every row there, sorted by the one column that no test sorts by."""
    opened.locator(SEARCH).fill("")
    opened.get_by_role("combobox").select_option("")
    head(opened, "seeds").get_by_role("button").click()
    return opened


@pytest.mark.slow
def test_figures_are_sorted_by_value_and_again_the_other_way(sheet: Any) -> None:
    button = head(sheet, "macs").get_by_role("button")
    assert head(sheet, "macs").get_attribute("aria-sort") is None
    button.click()
    down = column(sheet, "macs")
    assert head(sheet, "macs").get_attribute("aria-sort") == "descending"
    # by their letters 9 k would come first, and 1.2 M after 20 k
    assert list(dict.fromkeys(down)) == ["1,200,000", "500,000", "20,000", "9,000"]
    button.click()
    assert head(sheet, "macs").get_attribute("aria-sort") == "ascending"
    assert column(sheet, "macs") == down[::-1]


@pytest.mark.slow
def test_words_are_sorted_from_a_to_z_and_one_column_at_a_time(sheet: Any) -> None:
    head(sheet, "macs").get_by_role("button").click()
    head(sheet, "name").get_by_role("button").click()
    names = column(sheet, "name")
    assert head(sheet, "name").get_attribute("aria-sort") == "ascending"
    assert head(sheet, "macs").get_attribute("aria-sort") is None
    plain = [name for name in names if name != made.NASTY]
    assert plain == sorted(plain)
    assert plain.count("small") == 2


@pytest.mark.slow
def test_rows_without_a_figure_stay_last_either_way(sheet: Any) -> None:
    for _ in range(2):
        head(sheet, "accuracy").get_by_role("button").click()
        told = column(sheet, "accuracy")
        assert told[-1] == "-"
        assert "-" not in told[:-1]


@pytest.mark.parametrize("key", ["Enter", "Space"])
@pytest.mark.slow
def test_headings_work_by_keyboard(sheet: Any, key: str) -> None:
    head(sheet, "accuracy").get_by_role("button").focus()
    sheet.keyboard.press(key)
    told = [float(text) for text in column(sheet, "accuracy") if text != "-"]
    assert head(sheet, "accuracy").get_attribute("aria-sort") == "descending"
    assert told == sorted(told, reverse=True)
    sheet.keyboard.press("Tab")
    assert sheet.evaluate("document.activeElement.closest('th').dataset.key") != "accuracy"


@pytest.mark.slow
def test_the_filter_keeps_rows_that_have_every_word(sheet: Any) -> None:
    everything = column(sheet, "name")
    search = sheet.locator(SEARCH)
    search.fill("SMALL")
    assert column(sheet, "name") == ["small", "small", "small (d_few)"]
    assert "3" in sheet.locator("#table").get_by_role("status").inner_text()
    search.fill("small 75.00")
    assert column(sheet, "dataset") == ["e"]
    search.fill("no such row")
    assert column(sheet, "name") == []
    search.fill("")
    assert column(sheet, "name") == everything


@pytest.mark.slow
def test_one_dataset_can_be_chosen_and_filtered_and_sorted(sheet: Any) -> None:
    chooser = sheet.get_by_role("combobox")
    assert chooser.locator("option").all_inner_texts()[1:] == ["d", "e"]
    chooser.select_option("e")
    assert sorted(column(sheet, "name")) == [made.NASTY, "small"]
    head(sheet, "accuracy").get_by_role("button").click()
    assert column(sheet, "accuracy") == ["80.00", "75.00"]
    sheet.locator(SEARCH).fill("small")
    assert column(sheet, "accuracy") == ["75.00"]
    sheet.locator(SEARCH).fill("")
    chooser.select_option("")
    assert set(column(sheet, "dataset")) == {"d", "e"}


# --- charts ---


@pytest.fixture(scope="module")
def alive(visit: Visit, path: Path) -> Iterator[Any]:
    """The page, opened once, with every chart drawn by the script."""
    with visit(path) as page:
        enlivened(page)
        yield page


@pytest.fixture
def lively(alive: Any) -> Iterator[Any]:
    """The page with its charts, which is left as it was: light, on a screen, the mouse beside the charts."""
    yield alive
    alive.emulate_media(color_scheme="light", media="screen")
    alive.mouse.move(0, 0)


@pytest.mark.slow
def test_every_chart_is_drawn_by_the_script_in_place_of_its_still(lively: Any) -> None:
    assert lively.locator(".chart").count() == lively.locator("main .chart svg.marks:visible").count() > 10
    assert lively.locator(".still").count() == 0


@pytest.mark.slow
def test_hovering_tells_the_network_and_its_figures(lively: Any) -> None:
    told = []
    for mark in lively.locator("#cost .chart").first.locator(MARKS).all():
        mark.hover(force=True)
        tooltip = lively.locator("#vg-tooltip-element.visible")
        tooltip.wait_for()
        told.append(tooltip.inner_text())
        lively.mouse.move(0, 0)
        tooltip.wait_for(state="hidden")
    assert len(told) == 3
    for name, accuracy, macs in (
        ("small", "89.00 %", "9,000"),
        ("middle", "94.00 %", "20,000"),
        ("large", "96.00 %", "1,200,000"),
    ):
        assert len([text for text in told if name in text and accuracy in text and macs in text]) == 1


@pytest.mark.slow
def test_a_name_that_is_markup_is_shown_as_text_everywhere(lively: Any) -> None:
    assert made.NASTY in column(lively, "name")
    assert lively.locator("#failures td", has_text=made.NASTY).count() == 1
    mark = lively.locator(f'#cost .chart .mark-symbol [aria-label*="{made.NASTY}"]').first
    mark.scroll_into_view_if_needed()
    mark.hover(force=True)
    tooltip = lively.locator("#vg-tooltip-element.visible", has_text=made.NASTY)
    tooltip.wait_for()
    assert lively.locator("#vg-tooltip-element script").count() == 0


# --- other readers ---


@pytest.mark.slow
def test_without_scripts_tables_and_pictures_are_there_and_nothing_that_does_nothing(visit: Visit, path: Path) -> None:
    with visit(path, java_script_enabled=False) as page:
        assert page.locator("main table:visible").count() == TABLES
        assert page.locator(f"{TABLE} tbody tr:visible").count() == 7
        assert page.locator(".still svg:visible").count() == page.locator(".chart").count() > 10
        assert page.locator("button, input, select").count() == 0


@pytest.mark.slow
def test_a_phone_shows_the_page_without_scrolling_aside(visit: Visit, path: Path) -> None:
    with visit(path, viewport=PHONE) as page:
        assert browser.width(page) <= PHONE["width"]


@pytest.mark.slow
def test_a_phone_shows_every_chart_without_scrolling_aside(visit: Visit, path: Path) -> None:
    with visit(path, viewport=PHONE) as page:
        enlivened(page)
        assert browser.width(page) <= PHONE["width"]


@pytest.mark.slow
def test_the_page_is_dark_where_that_is_asked_for_and_its_words_stand_out(lively: Any) -> None:
    """Text has a contrast of 4.5 at least (WCAG 2.2, success criterion 1.4.3), in charts too, which are drawn once."""
    for scheme in ("light", "dark"):
        lively.emulate_media(color_scheme=scheme)
        ground, card = style(lively, "body", "backgroundColor"), style(lively, ".pictures figure", "backgroundColor")
        assert (luminance(ground) < 0.1) == (luminance(card) < 0.1) == (scheme == "dark")
        written = [(style(lively, selector, "color"), ground) for selector in ("body", ".lead", ".answer h2")]
        written += [(style(lively, f".chart .vega-embed {text}", "fill"), card) for text in ("text", ".role-mark text")]
        for colour, behind in written:
            low, high = sorted((luminance(colour), luminance(behind)))
            assert (high + 0.05) / (low + 0.05) >= 4.5


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.slow
def test_axe_finds_no_violation(visit: Visit, path: Path, scheme: str, width: int) -> None:
    with visit(path, color_scheme=scheme, viewport={"width": width, "height": 900}) as page:
        enlivened(page)
        assert browser.violations(page) == {}


@pytest.mark.slow
def test_no_column_is_cut_in_print_and_no_figure_broken(visit: Visit, path: Path) -> None:
    with visit(path, viewport=browser.PAPER) as page:
        page.emulate_media(media="print")
        assert page.evaluate(browser.CUT) == []
        assert page.evaluate(browser.BROKEN) == []
        assert browser.width(page) <= browser.PAPER["width"]


@pytest.mark.slow
def test_no_heading_is_printed_without_what_it_heads(visit: Visit, path: Path) -> None:
    with visit(path) as page:
        enlivened(page)
        assert browser.stranded(page) == []


@pytest.mark.slow
def test_every_section_is_linked_and_none_of_the_links_is_hidden(visit: Visit, path: Path) -> None:
    for width in (1280, 390):
        with visit(path, viewport={"width": width, "height": 900}) as page:
            links = page.locator("nav a").evaluate_all(
                "(links) => links.map((link) => [link.getBoundingClientRect().right, link.getAttribute('href')])"
            )
            assert len(links) == page.locator("section").count()
            assert max(right for right, _ in links) <= width
            assert all(page.locator(target).count() == 1 for _, target in links)


@pytest.mark.slow
def test_the_tables_need_no_scrolling_aside_on_a_wide_screen(visit: Visit, path: Path) -> None:
    with visit(path, viewport={"width": 1280, "height": 900}) as page:
        wide = page.evaluate(
            "[...document.querySelectorAll('#table .scroll')].filter((each) => each.scrollWidth > each.clientWidth)"
            ".map((each) => each.ariaLabel)"
        )
        assert wide == []


@pytest.mark.slow
def test_text_of_charts_has_one_size_whatever_their_place(lively: Any) -> None:
    """11 CSS pixels on the screen, to a tenth; the size of an SVG may differ from what it is drawn for."""
    heights = lively.evaluate(
        "[...document.querySelectorAll('.chart .role-axis-label text')].map((text) => text.getScreenCTM())"
        ".map((shown) => 11 * Math.hypot(shown.a, shown.b))"
    )
    assert len(heights) > 50
    assert max(heights) - min(heights) < 0.6
    assert min(heights) > 10.4


@pytest.mark.slow
def test_the_page_prints(lively: Any) -> None:
    lively.emulate_media(media="print")
    assert lively.locator("input:visible").count() == 0
    assert lively.locator("main table:visible").count() == TABLES
    printed = lively.pdf()
    assert printed.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 1


# --- little and much ---


def page_of(found: Records, folder: Path) -> Path:
    path = folder / "report.html"
    write(report_page(Material(found)), path)
    return path


def test_failures_alone_and_nothing_at_all_are_pages_too(visit: Visit, tmp_path: Path) -> None:
    failure = builders.Failure("d_a", "a", "d", 1, "i", 6, "out of memory", 1.0)
    with visit(page_of(Records(failures=[failure]), tmp_path)) as page:
        assert page.locator("#failures td", has_text="out of memory").is_visible()
        assert page.locator("#table").count() == page.locator(".chart").count() == 0
    with visit(page_of(Records(), tmp_path)) as page:
        assert page.locator("main").inner_text().strip()


COUNT = 10_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 10,000 networks; no two are equally costly."""
    macs = [1_000 + place * 7_919 % 10_007 for place in range(COUNT)]
    assert len(set(macs)) == COUNT
    cost = [builders.Cost(params=10, macs=count, activations=1, depth=1) for count in macs]
    runs = [
        Run(made.network("a", right=place % 100, task=f"d_{place}", cost=cost[place]), Path()) for place in range(COUNT)
    ]
    return page_of(Records(runs), tmp_path_factory.mktemp("large"))


@pytest.mark.slow
def test_ten_thousand_networks_are_sorted_filtered_and_drawn(visit: Visit, large: Path) -> None:
    with visit(large) as page:
        assert len(column(page, "name")) == 500
        head(page, "macs").get_by_role("button").click()
        by_cost = sorted(range(COUNT), key=lambda place: -(place * 7_919 % 10_007))
        assert column(page, "name") == [f"a (d_{place})" for place in by_cost[:500]]
        page.locator(SEARCH).fill("d_9999")
        assert column(page, "name") == ["a (d_9999)"]
        page.locator(SEARCH).fill("")
        page.locator(FIRST).get_by_role("button", name="show all").click()
        assert column(page, "name") == [f"a (d_{place})" for place in by_cost]
        assert enlivened(page) == page.locator(".chart").count() > 0


@pytest.mark.slow
def test_ten_thousand_networks_are_all_there_without_scripts(visit: Visit, large: Path) -> None:
    with visit(large, java_script_enabled=False) as page:
        assert page.locator(f"{TABLE} tbody tr").count() == COUNT
