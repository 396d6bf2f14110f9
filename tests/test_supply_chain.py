"""What is installed and run in CI: known versions with known hashes, and never the releases that were malware."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import cnnbench

ROOT = Path(cnnbench.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements-lock.txt").read_text()
MALWARE = ("2.6.2", "2.6.3")
"""Releases of lightning (GHSA-w37p-236h-pfx3)."""


def wanted() -> list[Requirement]:
    """What pyproject.toml asks for, the extras and the tools of development included."""
    lines = [*PROJECT["dependencies"], *(line for lines in PROJECT["optional-dependencies"].values() for line in lines)]
    return [Requirement(line) for line in lines if not line.startswith("cnnbench[")]


def locked() -> dict[str, list[Requirement]]:
    """The pins of the lock by name; one name may have several, for different platforms."""
    pins: dict[str, list[Requirement]] = {}
    for entry in re.split(r"\n(?=[a-z0-9])", LOCK.split("\n", 2)[2]):
        pin = Requirement(entry.split(" \\\n")[0])
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), f"{pin} has no hash"
        pins.setdefault(name_of(pin), []).append(pin)
    return pins


def name_of(requirement: Requirement) -> str:
    return re.sub(r"[-_.]+", "-", requirement.name).lower()


@pytest.mark.parametrize("release", MALWARE)
def test_the_releases_of_lightning_that_were_malware_are_refused(release: str) -> None:
    asked = [requirement for requirement in wanted() if name_of(requirement) in ("lightning", "pytorch-lightning")]
    assert [requirement.name for requirement in asked] == ["lightning"]
    assert release not in asked[0].specifier
    assert "2.6.6" in asked[0].specifier  # else the line above could not fail
    for name in ("lightning", "pytorch-lightning"):
        assert all(release not in pin.specifier for pin in locked().get(name, []))


def test_the_lock_is_of_what_pyproject_asks_for() -> None:
    pins = locked()
    for requirement in wanted():
        found = pins.get(name_of(requirement))
        assert found, f"requirements-lock.txt lacks {requirement}: run `make lock`"
        for pin in found:
            (version,) = pin.specifier
            assert version.operator == "=="
            assert Version(version.version) in requirement.specifier, f"{pin} is not {requirement}: run `make lock`"


def test_every_action_is_pinned_and_ci_installs_from_the_lock() -> None:
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        for line in re.findall(r"uses:.*", workflow.read_text()):
            assert re.fullmatch(r"uses: [\w/-]+@[0-9a-f]{40} # v[\d.]+", line), f"{workflow.name}: {line}"
    ci = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert ci["env"]["LOCKED"] == "1"
    assert "ifdef LOCKED" in (ROOT / "Makefile").read_text()
    steps = [step.get("run", "") for step in ci["jobs"]["elsewhere"]["steps"]]
    assert any("--require-hashes --requirement requirements-lock.txt" in step for step in steps)


def test_classifiers_name_the_python_whose_job_may_not_fail() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    certain = {
        step["with"]["python-version"] for step in jobs["test"]["steps"] if "setup-python" in step.get("uses", "")
    }
    named = {line.rpartition(" :: ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line}
    assert named == certain
    assert jobs["elsewhere"]["continue-on-error"] is True
