"""The changelog: a section for the version, and a promise that names what the code has."""

import re
import tomllib
from pathlib import Path

import cnnbench
from cnnbench.types import Exit

ROOT = Path(cnnbench.__file__).parents[1]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
PROMISE = CHANGELOG.partition("## What stays compatible\n")[2].partition("\n## ")[0]


def test_the_newest_section_is_of_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    sections = re.findall(r"^## (\d\S*)(?: \((?:unreleased|\d{4}-\d\d-\d\d)\))?$", CHANGELOG, re.MULTILINE)
    assert sections[0] == version
    headings = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert len(headings) == 1 + len(sections)  # the promise; nothing else is between releases
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_promise_names_every_schema_and_every_exit_code() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "cnnbench").rglob("*.py"))
    schemas = set(re.findall(r'"(cnnbench\.[a-z]+/\d+)"', sources))
    assert "cnnbench.bundle/3" in schemas
    assert schemas == set(re.findall(r"`(cnnbench\.[a-z]+/\d+)`", PROMISE))
    codes = re.search(r"exit codes ([\d, and]+)\.", PROMISE)
    assert codes
    assert {int(code) for code in re.findall(r"\d+", codes[1])} == {*Exit, 129, 138}
