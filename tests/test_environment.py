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
from cnnbench.types import Finding


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


MODULE = ("onnxruntime/__init__.py", "onnxruntime/capi/_state.py")


def installed(folder: Path, *wheels: str, files: tuple[str, ...] = MODULE) -> list[Finding]:
    """What is wrong in a folder with the metadata of these wheels, each of which lists `MODULE`, and these files."""
    for wheel in wheels:
        metadata_folder = folder / f"{wheel.replace('-', '_')}-1.2.dist-info"
        metadata_folder.mkdir(parents=True)
        (metadata_folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {wheel}\nVersion: 1.2\n")
        (metadata_folder / "RECORD").write_text("".join(f"{name},,\n" for name in (*MODULE, "../bin/onnxruntime_test")))
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    return environment.check_onnxruntime([str(folder)])


@pytest.mark.parametrize("wheel", environment.ONNXRUNTIME)
def test_one_wheel_of_onnxruntime_is_right(wheel: str, tmp_path: Path) -> None:
    assert installed(tmp_path, wheel) == []


@pytest.mark.parametrize("other", [name for name in environment.ONNXRUNTIME if name != "onnxruntime-gpu"])
def test_two_wheels_in_one_folder_are_wrong(other: str, tmp_path: Path) -> None:
    (found,) = installed(tmp_path, "onnxruntime-gpu", other)
    both = " ".join(sorted([other, "onnxruntime-gpu"]))
    assert found.fact == f"{both.replace(' ', ' 1.2 and ')} 1.2 are installed together"
    assert f"pip uninstall -y {both}, then pip install --force-reinstall --no-deps 'onnxruntime" in found.wrong


def test_wheels_in_two_folders_do_not_clash(tmp_path: Path) -> None:
    installed(tmp_path / "environment", "onnxruntime-gpu")
    installed(tmp_path / "system", "onnxruntime")
    assert environment.check_onnxruntime([str(tmp_path / "environment"), str(tmp_path / "system")]) == []


@pytest.mark.parametrize("left", [(), MODULE[1:]], ids=["nothing left", "a file left"])
def test_a_wheel_without_its_files_is_half_removed(left: tuple[str, ...], tmp_path: Path) -> None:
    (found,) = installed(tmp_path, "onnxruntime-openvino", files=left)
    gone = 2 - len(left)
    assert found.fact == f"onnxruntime-openvino 1.2: {gone} of its 2 files are gone, such as onnxruntime/__init__.py"
    assert "half removed: pip uninstall -y onnxruntime-openvino, then pip install --force-reinstall" in found.wrong


@pytest.mark.parametrize("left", [MODULE, MODULE[1:]], ids=["the whole module", "a part of it"])
def test_a_module_without_a_wheel_is_half_removed(left: tuple[str, ...], tmp_path: Path) -> None:
    (found,) = installed(tmp_path, files=left)
    assert found.fact == f"{tmp_path / 'onnxruntime'} belongs to no installed package"
    assert f"delete {tmp_path / 'onnxruntime'}, which no package owns, then pip install" in found.wrong


def test_no_onnxruntime_at_all_is_wrong(tmp_path: Path) -> None:
    (found,) = installed(tmp_path, files=())
    assert found.fact == "not installed"
    assert found.wrong.startswith("pip install 'onnxruntime")


def test_the_wheels_are_named_in_the_versions_that_cnnbench_requires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        metadata, "requires", lambda name: ["numpy>=2", "onnxruntime<2,>=1.31", "torch==2; extra == 'train'"]
    )
    assert environment._required_wheel() == "onnxruntime<2,>=1.31"
    assert environment.cuda_wheel() == "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu<2,>=1.31'"
