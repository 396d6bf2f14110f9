"""The sandbox's child as a fork of a process that has imported numpy, onnx and onnxruntime, which takes half a second.

The fork is a process of its own as the real child is, with the same streams, folder, environment, limits and exit code,
and confined as it is, but for the namespaces, which take longer than a small file to check.
Run as a script this is the process that is forked.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[1]
MODULES = ("cnnbench.bundles.parity.child", "cnnbench.bundles.parity.exact", "cnnbench.runtime.sandbox")
LARGEST = 2**17
"""Bytes of a message: the environment is the largest part."""


class Preloaded:
    """Stands for `sandbox._spawn`. The process that it forks starts at the first call."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._owner = 0

    def spawn(
        self, target: str, text: str, *, folder: str, environment: dict[str, str], seconds: float | None
    ) -> subprocess.CompletedProcess[str]:
        """See `sandbox._spawn`."""
        channel = self._connect()
        message = json.dumps({"target": target, "folder": folder, "environment": environment}).encode()
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            stdin.write(text.encode())
            stdin.seek(0)
            socket.send_fds(channel, [message], [file.fileno() for file in (stdin, stdout, stderr)])
            pid = int(channel.recv(LARGEST))
            channel.settimeout(seconds)
            try:
                code = int(channel.recv(LARGEST))
            except BaseException as error:
                os.kill(pid, signal.SIGKILL)  # it is not waited for yet, so that no other has its number
                channel.settimeout(None)
                channel.recv(LARGEST)
                if isinstance(error, TimeoutError):
                    assert seconds is not None
                    raise subprocess.TimeoutExpired(target, seconds) from None
                raise
            finally:
                channel.settimeout(None)
            return subprocess.CompletedProcess(target, code, _read(stdout), _read(stderr))

    def close(self) -> None:
        """End the process that is forked."""
        if self._channel is not None and self._process is not None and self._owner == os.getpid():
            self._channel.close()
            self._process.wait()

    def _connect(self) -> socket.socket:
        if self._channel is None or self._owner != os.getpid():
            here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with there:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", __file__, str(there.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[there.fileno()],
                    cwd=ROOT,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                )
            self._channel, self._owner = here, os.getpid()
        return self._channel


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def serve(channel: socket.socket) -> None:
    """Fork for each message, until the other side is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asked gets it too, and then ends this process
    for name in MODULES:
        importlib.import_module(name)
    assert "torch" not in sys.modules
    while True:
        message, streams, *_ = socket.recv_fds(channel, LARGEST, 3)
        if not message:
            return
        if not (pid := os.fork()):
            channel.close()
            _become(streams, **json.loads(message))
        for stream in streams:
            os.close(stream)
        channel.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        channel.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(streams: list[int], *, target: str, folder: str, environment: dict[str, str]) -> None:
    """What `python -P -m cnnbench.runtime.sandbox TARGET` does, in this process, which ends."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:] = [*environment["PYTHONPATH"].split(os.pathsep), *(p for p in sys.path if p != str(ROOT))]
        from cnnbench.runtime import confine, sandbox

        # tests/runtime/test_confine.py has the namespaces
        confine.LAYERS = tuple(layer for layer in confine.LAYERS if layer is not confine.namespaces)
        sandbox._serve(target)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
