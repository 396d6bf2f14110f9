"""`verify`: what it prints, and that it needs no torch."""

import json
from pathlib import Path

import pytest
from export_helpers import verify_fails
from isolated import TORCH, cnnbench_without

from cnnbench.__main__ import main

CHECKS = ["hashes", "manifest", "card", "confined", "graph", "proof", "golden", "reference"]


def test_a_good_bundle_is_verified(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == CHECKS
    assert lines[-1] == f"{bundle} is verified on cpu"


@pytest.mark.slow
def test_json_is_one_document_and_needs_no_torch(bundle: Path) -> None:
    done = cnnbench_without(TORCH, "verify", bundle, "--rescore", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert {key: document[key] for key in ("bundle", "provider", "verdict")} == {
        "bundle": str(bundle),
        "provider": "cpu",
        "verdict": "verified",
    }
    assert list(document["checks"]) == [*CHECKS, "rescore"]


@pytest.mark.slow
def test_the_blocker_of_the_test_above_does_block(run: Path) -> None:
    assert "imported torch" in cnnbench_without(TORCH, "export", run).stderr


def test_a_folder_without_a_bundle_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not a bundle" in verify_fails(capsys, 3, tmp_path / "nowhere")
    assert "is not a bundle" in verify_fails(capsys, 3, tmp_path)


def test_an_unknown_provider_is_refused_by_name(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected cpu or cuda" in verify_fails(capsys, 2, bundle, "--provider", "tpu")
