"""`verify`: what it prints, and that it needs no torch."""

import errno
import json
import os
import subprocess
import sys
import tempfile
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
    assert "nowhere does not exist: expected a bundle, " in verify_fails(capsys, 3, tmp_path / "nowhere")
    assert "is not a bundle" in verify_fails(capsys, 3, tmp_path)


def test_a_name_with_a_line_end_is_no_line_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert r"nowhere\nit is verified on cpu does not exist" in verify_fails(
        capsys, 3, tmp_path / "nowhere\nit is verified on cpu"
    )


def test_a_manifest_that_is_a_pipe_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    assert "is a link, a pipe, a device or a folder" in verify_fails(capsys, 3, tmp_path)


def test_a_full_disk_under_stdout_is_one_line(bundle: Path) -> None:
    command = [sys.executable, "-m", "cnnbench", "verify", "--quick", str(bundle)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "cnnbench: cannot write: No space left on device\n")


def test_no_temporary_folder_is_one_line(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nowhere(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    assert "set TMPDIR" in verify_fails(capsys, 6, bundle)


def test_a_verifier_out_of_memory_names_no_batch_size(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def out_of_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("cnnbench.bundles.verify.inventory.take", out_of_memory)
    assert verify_fails(capsys, 6, bundle) == "cnnbench: out of memory\n"


def test_an_unknown_provider_is_refused_by_name(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected cpu or cuda" in verify_fails(capsys, 2, bundle, "--provider", "tpu")
