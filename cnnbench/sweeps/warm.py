"""Processes of runs as forks of one that has imported torch and Lightning and has computed nothing yet.

The imports take seconds, a fork milliseconds, and a fork that is made before any operator of torch has run computes
what a new interpreter computes, bit for bit. It is safe while the forked process has no threads but idle ones whose
libraries start them again in the child (`busy_threads`). Where that does not hold, where CUDA can be used, and for runs
that start further processes, a new interpreter is started instead; `forked` in the record of a run says which.

Run as a module this is the process that is forked.
"""

from __future__ import annotations

import array
import importlib
import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, NoReturn, Protocol, runtime_checkable

from cnnbench.sweeps.environ import data_root, environment, threads_per_run
from cnnbench.training import process
from cnnbench.types import ERROR_FILE, Exit

MODULES = (
    "cnnbench.__main__",
    "cnnbench.api",
    "cnnbench.cli.fit",
    "cnnbench.cli.parser",
    "cnnbench.cli.test",
    "cnnbench.training.run",
    "attrs",
    "docstring_parser",
    "jsonargparse",
    "pandas",  # by pyarrow
    "pyarrow.compute",
    "pyarrow.pandas_compat",
    "pyarrow.parquet",
    "tensorboard.plugins.hparams.api_pb2",
    "torch._dynamo",
    "torch.utils.tensorboard",
)
"""What `fit` and `test` import, most of them when they first need it."""

ALLOCATOR = "jemalloc_bg_thd"
"""The thread of pyarrow's allocator."""

VOLATILE = (ERROR_FILE, "ORT_DISABLE_TELEMETRY", "PYTORCH_NVML_BASED_CUDA_CHECK", "TORCHINDUCTOR_CACHE_DIR")
"""Variables that may differ from run to run, or be set later: no library reads them when it is imported, or imports
set them themselves, here as in the process that is forked."""


class Process(Protocol):
    """What a run needs of its process; `subprocess.Popen` is one."""

    @property
    def pid(self) -> int:
        """Its number."""

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, negative for a signal, once it has ended; raises subprocess.TimeoutExpired."""

    def poll(self) -> int | None:
        """The exit code, where it has ended."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it."""


@runtime_checkable
class Start(Protocol):
    """How a process is started."""

    def __call__(self, arguments: Sequence[str], *, output: IO[bytes], environ: Mapping[str, str]) -> Process:
        """`cnnbench ARGUMENTS`, its output and errors in a file, in an environment."""


def start(arguments: Sequence[str], *, output: IO[bytes], environ: Mapping[str, str]) -> Process:
    """`cnnbench ARGUMENTS` in a new interpreter, its output and errors in a file."""
    command = [sys.executable, "-m", "cnnbench", *arguments]
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environ)


class Forked:
    """A process that another one has forked and waits for."""

    def __init__(self, status: socket.socket, pid: int, pidfd: int) -> None:
        self._status, self.pid, self._pidfd = status, pid, pidfd
        self._code: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, negative for a signal; that of SIGKILL where the process that forked it was killed."""
        if self._code is None:
            if timeout is not None and not self._has_answer(timeout):
                raise subprocess.TimeoutExpired("cnnbench", timeout)
            answer = self._status.recv(64)
            self._code = int(answer) if answer else -signal.SIGKILL
            self._status.close()
            os.close(self._pidfd)
        return self._code

    def poll(self) -> int | None:
        """The exit code, where it has ended."""
        if self._code is None and self._has_answer(0):
            return self.wait()
        return self._code

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(signal.SIGKILL)

    def _has_answer(self, timeout: float) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self._status, selectors.EVENT_READ)
            return bool(selector.select(timeout))

    def _send(self, signum: signal.Signals) -> None:
        if self._code is None:
            with suppress(OSError):  # it has ended, or another thread has just waited for it
                signal.pidfd_send_signal(self._pidfd, signum)


class WarmParent:
    """A process that is forked for each run. It starts with the first one, or before. A context manager, which ends it.

    Args:
        modules: What it imports.
    """

    def __init__(self, modules: Sequence[str] = MODULES) -> None:
        self._modules = modules
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._environ: dict[str, str] = {}
        self._has_forked = False

    def __enter__(self) -> WarmParent:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def prepare(self, jobs: int) -> None:
        """Start the process that is forked, for `jobs` runs at a time on this machine: it imports meanwhile."""
        if can_fork() and jobs > 0:
            with self._lock, suppress(OSError):
                self._connect(environment(threads_per_run(jobs), data_root()))

    def start(self, arguments: Sequence[str], *, output: IO[bytes], environ: Mapping[str, str]) -> Process:
        """As `start`, forked where that can be done."""
        with self._lock:
            forked = self._fork(arguments, output, dict(environ)) if can_fork() else None
        return forked or start(arguments, output=output, environ=environ)

    def _fork(self, arguments: Sequence[str], output: IO[bytes], environ: dict[str, str]) -> Forked | None:
        """None where the process that would be forked does not answer."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ExitStack() as stack:
            stack.enter_context(there)
            stack.callback(here.close)
            request = stack.enter_context(tempfile.TemporaryFile())
            wanted = {"arguments": list(arguments), "environ": environ, "folder": str(Path.cwd())}
            request.write(json.dumps(wanted).encode())
            request.flush()
            request.seek(0)
            try:
                channel = self._connect(environ)
                socket.send_fds(channel, [b"fork"], [request.fileno(), output.fileno(), there.fileno()])
                pid, (pidfd, *_), *_ = socket.recv_fds(channel, 64, 1)
                self._has_forked = True
            except (OSError, ValueError):  # it has ended; no descriptor came
                self._end()
                return None
            stack.pop_all()
            there.close()
            request.close()
            return Forked(here, int(pid), pidfd)

    def _connect(self, environ: dict[str, str]) -> socket.socket:
        """The channel to a process that was started with this environment: libraries read theirs at import."""
        settled = {name: value for name, value in environ.items() if name not in VOLATILE}
        if self._channel is not None and settled == self._environ:
            return self._channel
        self._end()
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(there.fileno()), *self._modules],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                env=settled,
            )
        self._channel, self._environ = here, settled
        return here

    def _end(self) -> None:
        if self._channel is not None and self._process is not None:
            self._channel.close()
            if not self._has_forked:  # it may still import, and nobody waits for anything of it
                self._process.kill()
            self._process.wait()
            self._channel, self._process, self._has_forked = None, None, False


def can_fork() -> bool:
    """Whether this system has what it takes."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


def busy_threads() -> list[str]:
    """Names of the threads of this process, beside the calling one, that are not known to be idle.

    Known are those of OpenBLAS, of numpy and scipy, which have the name of the process, and the allocator's.
    """
    found = [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
    idle = {Path("/proc/self/comm").read_text().strip(), ALLOCATOR}
    for task in Path("/proc/self/task").iterdir():
        if int(task.name) != threading.get_native_id():
            name, state = (task / "comm").read_text().strip(), (task / "stat").read_text().rpartition(")")[2].split()[0]
            if name not in idle or state != "S":
                found.append(name)
    return found


def serve(channel: socket.socket) -> None:
    """Fork for each message until the other side is closed, and all forks have ended."""
    children: dict[int, socket.socket] = {}
    woken, wakes = socket.socketpair()
    woken.setblocking(False)
    wakes.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks gets it too, and then closes the channel
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        open_ = True
        while open_ or children:
            for key, _ in selector.select():
                if key.fileobj is woken:
                    with suppress(BlockingIOError):
                        woken.recv(4096)
                    _report(children)
                    continue
                message, descriptors, *_ = socket.recv_fds(channel, 64, 3)
                if not message:
                    open_ = False
                    selector.unregister(channel)
                    continue
                request, output, status = descriptors
                alone = not busy_threads()
                pid = os.fork()
                if not pid:
                    signal.set_wakeup_fd(-1)
                    for held in (channel, woken, wakes, *children.values()):
                        held.close()
                    os.close(status)
                    _become(request, output, alone=alone)
                children[pid] = socket.socket(fileno=status)
                os.close(request)
                os.close(output)
                pidfd = os.pidfd_open(pid)
                channel.sendmsg(
                    [str(pid).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [pidfd]))]
                )
                os.close(pidfd)


def _report(children: dict[int, socket.socket]) -> None:
    """Send the exit code of each child that has ended."""
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with children.pop(pid) as waiting, suppress(OSError):
                waiting.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(request: int, output: int, *, alone: bool) -> NoReturn:
    """Be `python -m cnnbench ARGUMENTS`, in this process, or in a new interpreter in its place.

    Args:
        request: File of the arguments, the environment and the folder, as JSON.
        output: File for what it prints.
        alone: Whether no thread was at work when this process was forked.
    """
    code: int = Exit.BUG
    try:
        with open(request, "rb") as stream:
            wanted = json.load(stream)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        os.chdir(wanted["folder"])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        arguments: list[str] = wanted["arguments"]
        torch = sys.modules.get("torch")
        if not alone or (torch and torch.cuda.is_available()):  # CUDA does not outlive it
            os.execve(sys.executable, [sys.executable, "-m", "cnnbench", *arguments], wanted["environ"])
        os.environ.clear()
        os.environ.update(wanted["environ"])
        process.forked = True
        command = importlib.import_module("cnnbench.__main__")
        sys.modules["__main__"] = command
        sys.argv = [str(command.__file__), *arguments]
        code = command.main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        # as multiprocessing ends its forks: to free all that was imported would copy every page of it, for seconds
        with suppress(OSError, ValueError):
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """The process that is forked."""
    process.prepare()
    for name in sys.argv[2:]:
        importlib.import_module(name)
    if (training := sys.modules.get("cnnbench.training.sources")) is not None:
        training.sources("linear")  # reads and keeps the sources that the identity of every run is made from
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
