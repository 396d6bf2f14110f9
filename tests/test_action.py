"""The action for GitHub: verifies bundles, compares latency and keeps limits, with the verbs' own exit codes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import cnnbench

ROOT = Path(cnnbench.__file__).parents[1]
ACTION = yaml.safe_load((ROOT / ".github/actions/cnnbench/action.yml").read_text())
STEPS: dict[str, dict[str, Any]] = {step["name"]: step for step in ACTION["runs"]["steps"]}


def test_its_steps_get_inputs_as_variables_alone() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert list(STEPS) == ["install", "verify", "bench", "limits"]
    used = {value for step in STEPS.values() for value in step.get("env", {}).values()}
    assert used == {f"${{{{ inputs.{name} }}}}" for name in ACTION["inputs"]}
    for step in STEPS.values():
        assert step["shell"] == "bash"
        assert "${{" not in step["run"]  # what an input says is never code


def test_what_is_required_is_the_bundles() -> None:
    assert [name for name, declared in ACTION["inputs"].items() if declared.get("required")] == ["bundles"]
    assert all("default" in declared for name, declared in ACTION["inputs"].items() if name != "bundles")


def run(step: str, folder: Path, **inputs: str) -> tuple[int, str, str]:
    """What a step exits with, prints and adds to the summary, run as a runner does."""
    given = {name: declared.get("default", "") for name, declared in ACTION["inputs"].items()} | inputs
    variables = {key: given[value.split(".")[1].split(" ")[0]] for key, value in STEPS[step].get("env", {}).items()}
    summary = folder / f"{step}.md"
    summary.touch()
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[step]["run"]],
        cwd=folder,
        env={
            **os.environ,
            **variables,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RUNNER_TEMP": str(folder),
            "GITHUB_STEP_SUMMARY": str(summary),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr, summary.read_text()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_a_bundle_passes_and_one_that_was_edited_fails(tmp_path: Path) -> None:
    bundle, edited = ROOT / "exports/mnist_lenet5", tmp_path / "edited"
    shutil.copytree(bundle, edited)
    (edited / "README.md").write_text((edited / "README.md").read_text() + "More accurate than any other.\n")
    code, said, summary = run("verify", tmp_path, bundles=str(bundle))
    assert code == 0, said
    assert f"### cnnbench verify {bundle}: exit 0" in summary
    assert f"{bundle} is verified on cpu" in summary
    code, said, summary = run("verify", tmp_path, bundles=f"{bundle} {edited}")
    assert code == 4, said
    assert f"### cnnbench verify {edited}: exit 4" in summary


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_latency_is_compared_and_limits_are_kept(tmp_path: Path) -> None:
    bundle = str(ROOT / "exports/mnist_lenet5")
    assert run("bench", tmp_path, bundles=bundle) == (0, "", "")  # nothing to compare with
    code, said, summary = run("bench", tmp_path, bundles=bundle, against=bundle, seconds="0.5")
    assert code in (0, 5), said  # the same file; what a busy machine measures is not the point
    assert f"### cnnbench bench --against {bundle}: exit {code}" in summary
    code, said, summary = run("limits", tmp_path, bundles=bundle, limits="--max-latency 1s", seconds="0.5")
    assert code == 0, said
    code, said, summary = run(
        "limits", tmp_path, bundles=bundle, limits="--max-latency 1ms --max-bytes 1", seconds="0.5"
    )
    assert code == 8, said
    assert "### cnnbench choose --max-latency 1ms --max-bytes 1: exit 8" in summary
