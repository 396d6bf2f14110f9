"""What a result depends on is recorded, without the machine's host, user or folders."""

import getpass
import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import msgspec
import pytest
import torch

import cnnbench
from cnnbench import environment
from cnnbench.records.schema import Commit


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that takes the place of cnnbench's checkout."""
    (tmp_path / "cnnbench").mkdir()
    (tmp_path / "cnnbench" / "environment.py").write_text("")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "cnnbench" / "environment.py"))
    return tmp_path


def test_versions_are_those_installed() -> None:
    found = environment.versions()
    assert {"torch", "torchvision", "lightning", "onnx", "numpy"} <= set(found)
    assert all(metadata.version(name) == version for name, version in found.items())


def written() -> str:
    """The description as records hold it."""
    return json.dumps(msgspec.to_builtins(environment.describe()), allow_nan=False)


def test_the_description_is_json_and_has_python_threads_and_machine() -> None:
    about = json.loads(written())
    assert about["python"] == platform.python_version()
    assert about["threads"] == torch.get_num_threads()
    assert about["platform"] == f"{platform.system()} {platform.machine()}"
    assert len(about["gpus"]) == torch.cuda.device_count()


def test_the_description_names_no_host_user_or_folder() -> None:
    words = set(written().replace('"', " ").replace(",", " ").split())
    assert not words & {platform.node(), getpass.getuser()}
    text = written()
    assert not any(str(place) in text for place in (Path.home(), Path.cwd(), Path(cnnbench.__file__).parents[1]))


def test_without_a_processor_name_the_architecture_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(self: Path) -> str:
        raise OSError(2, "No such file or directory")

    monkeypatch.setattr(Path, "read_text", unreadable)
    assert environment.cpu_name() == platform.machine()


def test_the_commit_and_whether_the_tree_was_dirty(checkout: Path) -> None:
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "first")
    head = git(checkout, "rev-parse", "HEAD")
    assert environment.commit() == Commit(head, dirty=False)
    (checkout / "new").write_text("")
    assert environment.commit() == Commit(head, dirty=True)


def test_an_installed_package_has_no_commit(checkout: Path) -> None:
    assert environment.commit() is None


def test_a_checkout_without_a_commit_or_without_git_has_none(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(checkout, "init", "-q")
    assert environment.commit() is None
    monkeypatch.setenv("PATH", str(checkout))
    assert environment.commit() is None
