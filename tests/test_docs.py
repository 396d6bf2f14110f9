"""The documentation builds without a warning, and its reference has every verb and every public name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cnnbench
from cnnbench.cli import front

DOCS = Path(cnnbench.__file__).parents[1] / "docs"


@pytest.mark.slow
def test_it_builds_without_a_warning_and_has_every_verb_and_name(tmp_path: Path) -> None:
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(tmp_path / "built")]
    done = subprocess.run([*command, "-d", str(tmp_path / "read")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    verbs = (tmp_path / "built/reference/cli.html").read_text()
    assert [verb for verb in front.verbs() if f'<section id="{verb}">' not in verbs] == []
    names = (tmp_path / "built/reference/python.html").read_text()
    assert [name for name in cnnbench.__all__ if f'id="cnnbench.{name}"' not in names] == []
