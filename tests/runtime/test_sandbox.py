"""A function in a process of its own: results and refusals come back, whatever goes wrong stays there."""

import importlib
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sandboxed
from sandboxed import Shares

from cnnbench.runtime import sandbox
from cnnbench.types import CnnbenchError, Exit


@pytest.fixture(autouse=True, params=["fresh", "forked"])
def _child(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All holds for the fresh process, and for the fork that the other tests have in its stead."""
    if request.param == "fresh":
        request.getfixturevalue("real_sandbox")
    monkeypatch.setenv("PYTHONPATH", str(Path(sandboxed.__file__).parent))


def call(function: Any, request: Any = None, seconds: float | None = 60, memory: int = sandbox.MEMORY) -> Any:
    return sandbox.call(function, request, about="the file", seconds=seconds, memory=memory)


@pytest.mark.parametrize("value", [None, 0.1, "ü “\n”", [1, {"a": [True, None]}], float(np.float32(1) / 3)])
def test_a_result_comes_back_as_it_was(value: Any) -> None:
    assert call(sandboxed.echo, value) == value


def test_request_and_answer_are_typed() -> None:
    shares = Shares({1: (0.5, 0.25), 64: ()})
    assert call(sandboxed.double, shares) == Shares({2: (1.0, 0.5), 128: ()}, (shares,))


def test_an_answer_of_another_type_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="Expected `int`, got `str`"):
        call(sandboxed.unlike_its_annotation)


@pytest.mark.parametrize("code", [Exit.USAGE, Exit.DATA, Exit.VERDICT, Exit.ENVIRONMENT])
def test_a_refusal_comes_back_with_its_words_and_its_code(code: Exit) -> None:
    with pytest.raises(CnnbenchError, match=r"^no, and “why”$") as caught:
        call(sandboxed.refuse, int(code))
    assert caught.value.code == code


def test_what_the_function_prints_does_not_disturb(capfd: pytest.CaptureFixture[str]) -> None:
    assert call(sandboxed.chatter) == {"real": True}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_a_crash_is_a_refusal_that_names_the_signal(name: str) -> None:
    with pytest.raises(CnnbenchError, match=rf"^the file crashed the process that read it \({name}\)$") as caught:
        call(sandboxed.kill, int(signal.Signals[name]))
    assert caught.value.code == Exit.DATA


def test_who_takes_too_long_is_stopped() -> None:
    start = time.monotonic()
    with pytest.raises(CnnbenchError, match=r"^the file was stopped: it ran for more than 0\.5 s$") as caught:
        call(sandboxed.sleep, seconds=0.5)
    assert caught.value.code == Exit.DATA
    assert time.monotonic() - start < 12


def test_who_asks_for_too_much_memory_is_refused() -> None:
    with pytest.raises(CnnbenchError, match="more than 2 GiB of memory") as caught:
        call(sandboxed.allocate, 3, memory=2 * 2**30)
    assert caught.value.code == Exit.DATA
    assert call(sandboxed.allocate, 3, memory=0) == 3 * 2**30


def test_an_exception_that_nobody_expected_is_a_bug_of_ours() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)sandboxed:fail failed on the file: .*ZeroDivisionError: ours to mend"):
        call(sandboxed.fail)


def test_no_answer_is_never_taken_for_one() -> None:
    with pytest.raises(CnnbenchError, match=r"^the file ended the process that read it$") as caught:
        call(sandboxed.leave)
    assert caught.value.code == Exit.DATA


def test_bytes_that_are_no_text_do_not_disturb() -> None:
    """Native code may print a name as it lies in a hostile file."""
    assert call(sandboxed.babble) == 1


def test_it_starts_in_an_empty_folder_that_is_gone_afterwards_and_without_torch(tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    found = call(sandboxed.surroundings)
    assert found.pop("here") != str(tmp_path)
    assert found == {"files": [], "limit": sandbox.MEMORY, "core": 0, "modules": []}
    assert not Path(call(sandboxed.surroundings)["here"]).exists()


@pytest.mark.parametrize("name", ["json", "onnx", "numpy", "cnnbench"])
def test_a_module_in_the_callers_folder_is_not_imported(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'canary')!r}).touch()\n")
    assert call(sandboxed.folder_of, name) == str(Path(str(importlib.import_module(name).__file__)).parent)
    assert not (tmp_path / "canary").exists()


@pytest.mark.usefixtures("real_sandbox")
def test_a_python_that_cannot_be_started_again_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python").write_text("no program")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(CnnbenchError, match=f"^this Python cannot be started again: {tmp_path}/python$") as refused:
        sandbox.call(sandboxed.folder_of, "numpy", about="it")
    assert refused.value.code == Exit.ENVIRONMENT
