"""Several processes that train together, started as a user starts them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]


def start(*arguments: str, code: str = "") -> subprocess.Popen[str]:
    """`cnnbench ARGUMENTS` in a process of its own, after some lines of Python in each of its processes."""
    command = [sys.executable, "-m", "cnnbench", *arguments]
    if code:
        script = Path("changed.py")
        script.write_text(f"{code}\nimport sys\nfrom cnnbench.__main__ import main\nsys.exit(main())\n")
        command = [sys.executable, str(script), *arguments]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)


def wait_for(
    happened: Callable[[], object], seconds: float = 120, *, of: "subprocess.Popen[str] | None" = None
) -> None:
    """Wait until something is so; fail when the process `of` which it would come has ended."""
    until = time.monotonic() + seconds
    while not happened():
        assert of is None or of.poll() is None, of and of.communicate()[1]
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """The processes that a process has started (Linux)."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(number) for path in found for number in path.read_text().split()]


def is_running(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
