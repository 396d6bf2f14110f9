"""Draw docs/report.png: the first screen of the page that `make demo` writes. Needs playwright and Chromium.

python docs/report.py demo/report.html
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

SIZE = {"width": 1280, "height": 900}


def main(page: Path) -> None:
    """Take the picture once every chart of the first screen is drawn."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport=SIZE)
        tab.goto(page.resolve().as_uri())
        tab.wait_for_selector("#answer .chart .vega-embed svg")
        tab.screenshot(path=Path(__file__).with_suffix(".png"))
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
