"""Code of other packages prints no result, is named where it takes long, and ends no process."""

import os
import sys
import time
from types import ModuleType
from typing import Any

import pytest

from cnnbench import packages
from cnnbench.packages import guarded, guarded_call
from cnnbench.types import CnnbenchError, Exit


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "_exit", os._exit)
    monkeypatch.setattr(packages, "_guarded", {})


def module(source: str) -> Any:
    """A module of the package `theirs`."""
    made = ModuleType("theirs.part")
    exec(source, vars(made))
    return made


def test_what_it_prints_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded_call(lambda: print("hello") or 5, "theirs", what="net of theirs")() == 5  # type: ignore[func-returns-value]
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "hello\n")


def test_its_exit_raises_then_and_later() -> None:
    theirs = module("import os\ndef leave():\n    os._exit(0)\n")
    with guarded("theirs.part", "net of theirs"):
        pass
    with pytest.raises(CnnbenchError, match=r"net of theirs ends the process \(os\._exit\(0\)\)") as refused:
        theirs.leave()
    assert refused.value.code == Exit.ENVIRONMENT


def test_the_exit_of_others_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(packages, "_exit", ended.append)
    with guarded("theirs", "net of theirs"):
        os._exit(3)
    assert ended == [3]


def test_a_line_says_what_takes_long(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(packages, "SLOW_SECONDS", 0.01)
    with guarded("theirs", "net of theirs"):
        time.sleep(0.2)
    print("done", file=sys.stderr)
    assert capsys.readouterr().err == "note: net of theirs has been running for 0.01 s; Ctrl-C ends it\ndone\n"
