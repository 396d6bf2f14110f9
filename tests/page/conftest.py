"""What the tests of the pages share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pages
import pytest
from browser import Visit, browsing


@pytest.fixture(scope="session")
def world(once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Folder of records of everything that a report can show, and of their page, report.html. Not to be changed."""
    return once("world", pages.tell_everything)


@pytest.fixture(scope="module")
def visit() -> Iterator[Visit]:
    """Opens a page in the module's one browser; see `browser.browsing`."""
    with browsing() as visiting:
        yield visiting
