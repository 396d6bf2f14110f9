"""What other systems lack, taken away here: modules and signals of POSIX, fork, affinity, fsync of what is read."""

import ast
import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import cnnbench
from cnnbench import environment, records
from cnnbench.bench import backends, plan
from cnnbench.sweeps import warm
from cnnbench.training.precision import resolve_accelerator
from cnnbench.types import CnnbenchError

PACKAGE = Path(cnnbench.__file__).parent
POSIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix", "crypt"}
EVERYWHERE = {"SIGINT", "SIGTERM", "SIGABRT", "SIGFPE", "SIGILL", "SIGSEGV", "SIG_DFL", "SIG_IGN"}
"""Signals that Windows has too."""
POSIX_CALLS = {"fork", "getuid", "geteuid", "getpgid", "setsid", "killpg", "pidfd_open", "sched_getaffinity", "nice"}


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported: all but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from at_import(child)


def posix_only(source: str) -> list[str]:
    """What a module needs of POSIX before anything of it is called."""
    found = []
    for node in at_import(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in POSIX_MODULES]
        if isinstance(node, ast.ImportFrom) and node.module in POSIX_MODULES:
            found.append(str(node.module))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner, name = node.value.id, node.attr
            signals = owner == "signal" and name.startswith("SIG") and name not in EVERYWHERE
            if signals or (owner == "os" and name in POSIX_CALLS):
                found.append(f"{owner}.{name}")
    return found


def test_no_module_needs_posix_to_be_imported() -> None:
    assert posix_only("import fcntl\nX = signal.SIGKILL\ndef f(): return os.fork()") == ["fcntl", "signal.SIGKILL"]
    needy = {str(path.relative_to(PACKAGE)): posix_only(path.read_text()) for path in PACKAGE.rglob("*.py")}
    assert {name: needs for name, needs in needy.items() if needs} == {}


WITHOUT_POSIX = """
import sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None  # what is imported says that there is no such module
from cnnbench.__main__ import main
sys.exit(main(["list", "--format", "json"]) or main(["choose", "--help"]))
"""


def test_verbs_start_without_the_modules_of_posix() -> None:
    # filelock's warning, which it gives on no system that has locks of its own, Windows included
    command = [sys.executable, "-W", "ignore:only soft file lock:UserWarning", "-c", WITHOUT_POSIX]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "lenet5" in done.stdout


def test_without_resource_there_is_no_limit_on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert environment.address_space() is None


@pytest.fixture
def windows_fsync(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """`os.fsync` as Windows has it: a handle that only reads is a bad descriptor. Its calls."""
    calls: list[int] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        calls.append(handle)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return calls


def test_files_are_flushed_by_handles_that_may_write(windows_fsync: list[int], tmp_path: Path) -> None:
    target = tmp_path / "record.json"
    target.write_text("{}")
    with target.open("rb") as read, pytest.raises(OSError, match="Bad file"):
        os.fsync(read.fileno())  # else the test could not fail
    with records.replacing(target) as partial:
        partial.write_text("{1}")
    assert target.read_text() == "{1}"
    assert len(windows_fsync) == 1


def test_nothing_is_forked_where_there_is_no_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    assert warm.can_fork() == hasattr(os, "pidfd_open")
    monkeypatch.delattr(os, "fork")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(warm.WarmParent, "_fork", lambda *_: pytest.fail("forked"))
    with warm.WarmParent() as parent, Path("out").open("wb") as output:
        process = parent.start(["--version"], output=output, environ=os.environ)
        assert process.wait() == 0
    assert Path("out").read_text().startswith("cnnbench ")


def test_cores_are_counted_where_a_process_has_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert backends._pin(1) is False
    plan._require_cores(3)
    with pytest.raises(CnnbenchError, match="may use 3 core"):
        plan._require_cores(4)


@pytest.mark.parametrize(
    ("asked", "cuda", "given"),
    [("auto", False, "cpu"), ("auto", True, "auto"), ("mps", False, "mps"), ("gpu", True, "gpu"), ("cpu", True, "cpu")],
)
def test_auto_is_no_gpu_of_apple(monkeypatch: pytest.MonkeyPatch, asked: str, cuda: bool, given: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_accelerator(asked) == given
