"""The last line of a verb is a command that the command line accepts."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from commands import accept

from cnnbench.__main__ import main
from cnnbench.cli.hints import say_next

SHORT = ["fit", "linear", "--epochs", "1", "--trainer.limit_train_batches", "1"]


@pytest.mark.parametrize("format", ["text", "table", "csv", "json", "markdown"])
def test_a_command_is_named_on_stderr_for_people_alone(format: str, capsys: pytest.CaptureFixture[str]) -> None:
    say_next("bench", Path("my exports/x"), format=format)
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err == ("next: cnnbench bench 'my exports/x'\n" if format in ("text", "table") else "")


def next_command(capsys: pytest.CaptureFixture[str]) -> list[str]:
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("next: cnnbench ")
    return shlex.split(last.removeprefix("next: cnnbench "))


def test_what_comes_next_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SHORT) == 0
    command = next_command(capsys)
    assert command == ["test", "runs/mnist5k_linear/seed1"]
    assert main(command) == 0
    assert next_command(capsys) == ["export", "runs/mnist5k_linear/seed1"]
    for line in (["compare", "runs"], ["list", "datasets"], ["list", "tasks"], ["explain", "linear"]):
        assert main(line) == 0
        accept(shlex.join(next_command(capsys)))


def test_a_page_is_followed_by_a_choice_with_its_limit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "--test"]) == 0
    assert main(["report", "runs", "--out", "page.html", "--min-accuracy", "97.5%"]) == 0
    command = next_command(capsys)
    assert command == ["choose", "runs", "--min-accuracy", "97.5%"]
    accept(shlex.join(command))
