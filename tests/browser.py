"""A browser for the tests of pages, and what they ask of every page."""

import importlib.util
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

Visit = Callable[..., AbstractContextManager[Any]]
PAPER = {"width": 688, "height": 1000}
"""A4 upright within its margins, in CSS pixels."""
AXE = "axe_playwright_python"
"""Has axe-core, which checks a page against WCAG 2.2; the page's own policy keeps any other script out."""
BROKEN = """
    [...document.querySelectorAll("td.r")].flatMap((cell) => [...cell.textContent.matchAll(/\\S+/g)].filter((word) => {
        const range = document.createRange();
        range.setStart(cell.firstChild, word.index);
        range.setEnd(cell.firstChild, word.index + word[0].length);
        return range.getClientRects().length > 1;
    }).map((word) => word[0]))
"""
"""Numbers and words of the figures that are on two lines."""
CUT = """
    [...document.querySelectorAll('.scroll, .drawing')].filter((each) => each.scrollWidth > each.clientWidth + 1)
        .map((each) => each.ariaLabel)
"""
"""Tables and drawings that are wider than their place."""
LEAST_BELOW = 40
"""Points from the top of a heading to the lower margin that leave room for it and a line below."""
LOWER_MARGIN = 14 / 25.4 * 72


@contextmanager
def browsing() -> Iterator[Visit]:
    """Opens a page in one browser; on leaving, it must have been without errors, dialogs and requests."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)

        @contextmanager
        def visiting(path: Path, **context: Any) -> Iterator[Any]:
            page = browser.new_page(**context)
            troubles = watched(page)
            page.goto(path.as_uri())
            yield page
            page.close()
            assert troubles == []

        yield visiting
        browser.close()


def watched(page: Any) -> list[str]:
    """What goes wrong on a page from now on."""
    troubles: list[str] = []

    def dismiss(dialog: Any) -> None:
        troubles.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def asked(request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            troubles.append(f"request: {request.url}")

    page.on("console", lambda told: troubles.append(told.text) if told.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", dismiss)
    page.on("request", asked)
    return troubles


def violations(page: Any) -> dict[str, list[str]]:
    """What axe-core finds wrong, by rule: the elements."""
    spec = importlib.util.find_spec(AXE)
    if spec is None or spec.origin is None:
        pytest.skip(f"{AXE} is not installed (pip install '.[dev]')")
    page.evaluate(Path(spec.origin).with_name("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    return {each["id"]: [node["html"] for node in each["nodes"]] for each in found}


def width(page: Any) -> int:
    """Of all that the page shows, in CSS pixels: more than the window's where it scrolls sideways."""
    shown: int = page.evaluate("document.documentElement.scrollWidth")
    return shown


def stranded(page: Any) -> list[str]:
    """Headings that are printed at the foot of a sheet, with what they head on the next one."""
    printed: bytes = page.pdf(format="A4", outline=True, tagged=True)
    entries = re.findall(rb"/Title \((.*)\)\n/Dest \[\d+ 0 R /XYZ [-\d.]+ ([\d.]+) 0\]", printed)
    assert len(entries) >= page.locator("h2:visible").count() > 0
    return [title.decode("latin-1") for title, top in entries if float(top) - LOWER_MARGIN < LEAST_BELOW]
