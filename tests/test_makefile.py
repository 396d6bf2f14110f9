"""`make quick` runs the tests of what changed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import cnnbench

MAKEFILE = Path(cnnbench.__file__).parents[1] / "Makefile"
COMMITTED = (
    *("cnnbench/types.py", "cnnbench/old.py", "cnnbench/records/io.py", "cnnbench/records/schema.py"),
    *("cnnbench/page/style.css", "cnnbench/page/charts/base.py", "docs/words.md"),
    *("tests/test_types.py", "tests/test_api.py", "tests/records/test_io.py", "tests/page/test_page.py"),
    "tests/builders.py",
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the Makefile, and a pytest that prints what it is given."""
    for name in COMMITTED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    shutil.copy(MAKEFILE, tmp_path / "Makefile")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/pytest").write_text("#!/bin/sh\necho $*\n")
    (tmp_path / "bin/pytest").chmod(0o755)
    (tmp_path / ".gitignore").write_text("bin\n")
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize(
    ("changed", "tests"),
    [
        (["cnnbench/records/io.py"], "tests/records/test_io.py"),
        (["cnnbench/records/schema.py"], "tests/records"),
        (["cnnbench/types.py"], "tests/test_types.py"),
        (["cnnbench/old.py"], "tests/test_api.py tests/test_types.py"),
        (["cnnbench/page/charts/base.py", "cnnbench/page/style.css"], "tests/page"),
        (["cnnbench/records/new.py", "tests/test_api.py"], "tests/records tests/test_api.py"),
        (["docs/words.md", "tests/builders.py"], "nothing changed that has tests"),
        ([], "nothing changed that has tests"),
    ],
)
def test_quick_runs_the_tests_of_what_changed(repository: Path, changed: list[str], tests: str) -> None:
    for name in changed:
        (repository / name).write_text("# changed\n")
    command = ["make", "--no-print-directory", "--old-file=.venv/ready", "quick", "BIN=bin"]
    outside = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    printed = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True, env=outside)
    assert " ".join(printed.stdout.split()) == tests
