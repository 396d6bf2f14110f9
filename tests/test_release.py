"""A release is built, installed and tried by one script, here and in the workflow."""

import os
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import cnnbench

ROOT = Path(cnnbench.__file__).parents[1]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
DEV = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]


def test_the_workflow_runs_the_script_before_it_publishes() -> None:
    build, publish = WORKFLOW["jobs"]["build"], WORKFLOW["jobs"]["publish"]
    assert "LOCKED=1 make release" in [step.get("run") for step in build["steps"]]
    assert ".ci/release" in (ROOT / "Makefile").read_text()
    assert publish["needs"] == "build"
    assert publish["if"] == "github.ref_type == 'tag' && vars.PUBLISH == 'true'"
    assert "run" not in {key for step in publish["steps"] for key in step}  # it has the right to publish


def test_only_publishing_may_ask_for_a_token() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert [name for name, job in WORKFLOW["jobs"].items() if "permissions" in job] == ["publish"]


@pytest.mark.parametrize("tool", ["ruff", "mypy"])
def test_one_version_of_a_tool_checks_everywhere(tool: str) -> None:
    (pin,) = (line for line in DEV if line.startswith(tool))
    assert pin.startswith(f"{tool}==")
    assert f"\n{pin} \\\n" in (ROOT / "requirements-lock.txt").read_text()
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]  # `make check`, so the pinned ones; no version of its own


def offline() -> bool:
    asked = [sys.executable, "-m", "pip", "index", "versions", "msgspec"]
    return subprocess.run(asked, capture_output=True, check=False).returncode != 0


@pytest.mark.slow
def test_the_wheel_alone_verifies_and_predicts(tmp_path: Path) -> None:
    if not [*metadata.distributions(name="build")]:
        pytest.skip("the package build is not installed (pip install '.[dev]')")
    if offline():
        pytest.skip("PyPI cannot be reached")
    copy = tmp_path / "copy"
    listed = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    environ = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", ".ci/release", "core"], cwd=copy, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exports/mnist_lenet5 is verified on cpu" in done.stdout
    assert "fit needs lightning: pip install 'cnnbench[train]'" in done.stderr
