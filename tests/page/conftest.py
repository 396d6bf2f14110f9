"""What the tests of the pages share."""

from collections.abc import Callable
from pathlib import Path

import pages
import pytest


@pytest.fixture(scope="session")
def world(once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Folder of records of everything that a report can show, and of their page, report.html. Not to be changed."""
    return once("world", pages.tell_everything)
