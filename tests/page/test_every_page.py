"""The pages of `explain` and `lab` in a browser: as the report's, on a wide screen, a phone, in the dark, on paper."""

from pathlib import Path

import browser
import pytest
from browser import Visit

from cnnbench.analysis.description import describe_network
from cnnbench.lab import lesson, run_lesson
from cnnbench.page.course import course_page
from cnnbench.page.explain import explain_page
from cnnbench.page.write import write
from cnnbench.types import COST_SPEC, ImageSpec

pytestmark = pytest.mark.slow
GRAY = ImageSpec(28, 28, 1, 10)
WIDTHS = (1280, 390)
QUICK = [
    name for name, entry in lesson.entries.items() if not entry.declared.get("trains") and name != "receptive-field"
]
"""Lessons that train nothing; they have every kind of block that a lesson has."""


@pytest.fixture(scope="module", params=["network", "comparison", "course"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of one network, of two side by side, and of the course."""
    path: Path = tmp_path_factory.mktemp("pages") / f"{request.param}.html"
    if request.param == "course":
        page = course_page({name: run_lesson(name) for name in QUICK})
    elif request.param == "network":
        page = explain_page([describe_network("inception_small", COST_SPEC)])
    else:
        page = explain_page([describe_network(name, GRAY) for name in ("lenet5", "mlp_lenet")])
    write(page, path)
    return path


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(visit: Visit, path: Path, scheme: str, width: int) -> None:
    with visit(path, color_scheme=scheme, viewport={"width": width, "height": 900}) as page:
        assert browser.violations(page) == {}


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_does_not_scroll_sideways(visit: Visit, path: Path, width: int) -> None:
    with visit(path, viewport={"width": width, "height": 900}) as page:
        assert browser.width(page) <= width


def test_nothing_is_cut_in_print_and_no_heading_stranded(visit: Visit, path: Path) -> None:
    with visit(path, viewport=browser.PAPER) as page:
        page.emulate_media(media="print")
        assert page.evaluate(browser.CUT) == []
        assert page.evaluate(browser.BROKEN) == []
        assert browser.width(page) <= browser.PAPER["width"]
        assert browser.stranded(page) == []


def test_the_lettering_of_drawings_can_be_read_on_a_phone(visit: Visit, path: Path) -> None:
    """At least 6 CSS pixels high; a drawing scrolls within its frame."""
    with visit(path, viewport={"width": 390, "height": 844}) as page:
        heights = page.evaluate(
            "[...document.querySelectorAll('.drawing svg')].map((svg) => svg.getBoundingClientRect().width"
            " / svg.viewBox.baseVal.width)"
        )
    assert heights
    assert min(heights) * 8 >= 6  # the smallest lettering has 8 points


def test_text_between_backticks_is_code(visit: Visit, path: Path) -> None:
    with visit(path) as page:
        assert "`" not in page.locator("body").inner_text()
