"""What the process that reads a stranger's file must not be able to do: each is tried, in the sandbox or beside it.

tests/runtime/test_confine.py holds the answers, benchmarks/confinement.py prints them. All that is needed is imported
here: as another user than the one that runs this, Python's own files may not be readable.
"""

import ctypes
import errno
import mmap
import os
import pwd  # noqa: F401
import resource  # noqa: F401
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from cnnbench.runtime import confine, sandbox

NOBODY = 65534
VARIABLE = "CNNBENCH_TEST_SECRET"
PROCESSES = 30
"""The limit on processes and threads where it is tried: fewer than a child of users may have."""

CHILD = """
import os, sys
import forbidden
from cnnbench.runtime import confine, sandbox, seccomp
if {uid} != os.geteuid():
    os.setgroups([]), os.setgid({uid}), os.setuid({uid})
confine.PROCESSES = forbidden.PROCESSES
confine.LAYERS = tuple(layer for layer in confine.LAYERS if layer.__name__ in {layers})
{more}
sandbox._serve(sys.argv[1])
"""


class Targets(msgspec.Struct, frozen=True, kw_only=True):
    """What is tried to be reached: files outside, addresses of sockets, and a process of the same user."""

    file: str
    folder: str
    tcp: int
    udp: int
    unix: str
    abstract: str
    process: int


@contextmanager
def targets(uid: int) -> Iterator[Targets]:
    """All of them, ready; the files are the user's."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forbidden-")))
        (folder / "mine").write_text("secret")
        listeners = []
        for kind, address in (
            (socket.SOCK_STREAM, ("127.0.0.1", 0)),
            (socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            (socket.SOCK_STREAM, str(folder / "socket")),
            (socket.SOCK_STREAM, f"\0forbidden-{os.getpid()}"),
        ):
            family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
            listener = stack.enter_context(socket.socket(family, kind))
            listener.bind(address)
            if kind == socket.SOCK_STREAM:
                listener.listen()
            listeners.append(listener)
        for path in (folder, *folder.iterdir()):
            os.chown(path, uid, -1)
        user: dict[str, Any] = {"user": uid, "group": uid, "extra_groups": []} if os.geteuid() == 0 else {}
        process = stack.enter_context(subprocess.Popen(["/bin/sleep", "600"], **user))
        stack.callback(process.kill)
        yield Targets(
            file=str(folder / "mine"),
            folder=str(folder),
            tcp=listeners[0].getsockname()[1],
            udp=listeners[1].getsockname()[1],
            unix=str(folder / "socket"),
            abstract=f"\0forbidden-{os.getpid()}",
            process=process.pid,
        )


def spawner(uid: int, layers: tuple[str, ...] | None = None, more: str = "") -> Callable[..., object]:
    """Stands for `sandbox._spawn`: the child of a user, with some layers of `confine` alone; `more` is run first."""
    names = [layer.__name__ for layer in confine.LAYERS] if layers is None else layers

    def spawn(
        target: str, text: str, *, folder: str, environment: dict[str, str], seconds: float | None
    ) -> subprocess.CompletedProcess[str]:
        os.chown(folder, uid, -1)
        code = CHILD.format(uid=uid, layers=names, more=more)
        command = [sys.executable, "-P", "-c", code, target]
        return subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            timeout=seconds,
            cwd=folder,
            env=environment,
            check=False,
        )

    return spawn


def connect(family: int, kind: int, address: object) -> None:
    with socket.socket(family, kind) as client:
        client.settimeout(5)
        if kind == socket.SOCK_DGRAM:
            client.sendto(b"hello", address)  # type: ignore[call-overload]
        else:
            client.connect(address)  # type: ignore[arg-type]


def called(function: str, *arguments: object) -> None:
    """A function of the C library; its error as an OSError."""
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), function)


def fork_many() -> None:
    started = []
    try:
        for _ in range(2 * PROCESSES):
            if not (pid := os.fork()):
                signal.pause()
            started.append(pid)
    finally:
        for pid in started:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def start_many_threads() -> None:
    end = threading.Event()
    threads = [threading.Thread(target=end.wait) for _ in range(2 * PROCESSES)]
    started = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
    except RuntimeError as error:  # can't start new thread
        raise BlockingIOError(errno.EAGAIN, "thread") from error
    finally:
        end.set()
        for thread in started:
            thread.join()


def open_many() -> None:
    with ExitStack() as stack:
        for _ in range(confine.FILES + 1):
            stack.enter_context(open("/dev/null"))  # noqa: PTH123


def write_much() -> None:
    with Path("large").open("wb") as file:
        file.truncate(confine.FILE_BYTES + 1)  # sparse: takes no room
    Path("large").unlink()


def environment_of_the_caller() -> None:
    if VARIABLE not in os.environ:
        raise OSError(errno.ENODATA, "not there")


def ptrace(process: int) -> None:
    called("ptrace", 0x4206, process, None, None)  # PTRACE_SEIZE


def kill_and_pause(process: int) -> None:
    os.kill(process, signal.SIGSTOP)
    os.kill(process, signal.SIGCONT)


PROBES: dict[str, Callable[[Targets], object]] = {
    "read a file of the user": lambda to: Path(to.file).read_text(),
    "read /etc/passwd": lambda _: Path("/etc/passwd").read_text(),
    "list the folder /": lambda _: os.listdir("/"),  # noqa: PTH208
    "create a file elsewhere": lambda to: Path(to.folder, "new").write_text(""),
    "overwrite a file of the user": lambda to: Path(to.file).write_text("other"),
    "truncate a file of the user": lambda to: os.truncate(to.file, 0),
    "rename a file of the user": lambda to: Path(to.file).rename(Path(to.folder, "mine")),
    "change the mode of a file of the user": lambda to: Path(to.file).chmod(0o600),
    "change the times of a file of the user": lambda to: os.utime(to.file),
    "connect by TCP": lambda to: connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", to.tcp)),
    "send by UDP": lambda to: connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", to.udp)),
    "connect to a Unix socket": lambda to: connect(socket.AF_UNIX, socket.SOCK_STREAM, to.unix),
    "connect to an abstract socket": lambda to: connect(socket.AF_UNIX, socket.SOCK_STREAM, to.abstract),
    "start a command": lambda _: subprocess.run(["/bin/true"], check=True),
    "read a variable of the caller": lambda _: environment_of_the_caller(),
    "read another process's environment": lambda to: Path(f"/proc/{to.process}/environ").read_bytes(),
    "signal another process": lambda to: kill_and_pause(to.process),
    "trace another process": lambda to: ptrace(to.process),
    "raise its priority, as root may": lambda _: os.nice(-1),
    "enter a new user namespace": lambda _: called("unshare", 0x10000000),
    "start more processes than the limit": lambda _: fork_many(),
    "start more threads than the limit": lambda _: start_many_threads(),
    "write a file over the limit": lambda _: write_much(),
    "open more files than the limit": lambda _: open_many(),
    "take more memory than the limit": lambda _: mmap.mmap(-1, sandbox.MEMORY + 1, mmap.MAP_PRIVATE | 0x4000).close(),
}


def try_all(to: Targets) -> dict[str, str]:
    """What came of each: "done", or the name of the error."""
    outcomes = {}
    for name, probe in PROBES.items():
        try:
            probe(to)
            outcomes[name] = "done"
        except OSError as error:
            outcomes[name] = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return outcomes


def burn(_: None) -> None:
    while True:
        pass
