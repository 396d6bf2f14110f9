"""Progress is a bar on a terminal, plain lines elsewhere, and nothing where no verb shows it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from cnnbench import progress


def test_steps_are_numbered_lines_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.display(2):
        for name in ("reading", "proving"):
            progress.step(name)
            progress.within(0.5)
    with progress.display(None) as shown:
        shown.step("fetching")
        shown.move("not a line", done=1)
    with progress.display(3, begun=2):
        progress.step("last")
    assert capsys.readouterr().err == "[1/2] reading\n[2/2] proving\nfetching\n[3/3] last\n"


def test_without_a_display_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    progress.step("reading")
    progress.within(0.5)
    assert not progress.is_open()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (165, "2 min 45 s"),
        (599.4, "9 min 59 s"),
        (600, "10 min"),
        (3599, "1 h"),
        (12_600, "3 h 30 min"),
    ],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert progress.in_words(seconds) == words


def test_a_terminal_has_a_bar_below_the_lines_and_stdout_to_itself() -> None:
    code = (
        "import sys, time\nfrom cnnbench import progress\n"
        "with progress.display(4) as shown:\n"
        "    for epoch in range(4):\n"
        "        shown.move(f'epoch {epoch + 1}/4', done=epoch + 0.5)\n"
        "        time.sleep(0.02)\n"
        "        print(f'line {epoch}', file=sys.stderr)\n"
        "print('result')\n"
    )
    ours, theirs = pty.openpty()
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, text=True, check=True)
    os.close(theirs)
    drawn = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.stdout == "result\n"
    assert "epoch 4/4" in drawn
    assert "88 %, 0 s, about " in drawn
    assert [drawn.index(f"line {epoch}") for epoch in range(4)] == sorted(drawn.index(f"line {n}") for n in range(4))
