"""A function in a fresh process with limits, so that an untrusted file cannot take the caller down.

Request and answer cross the process as JSON, each checked against the function's type hints; arrays travel as .npy
files. Nothing is unpickled.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

from cnnbench.types import CnnbenchError, Exit

MEMORY = 16 * 2**30
"""Bytes of address space: several times what the largest registered network takes. Not set for a GPU, whose driver
reserves far more than it uses."""

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Reply(msgspec.Struct, frozen=True):
    """What the child writes to stdout: the answer, or the message and the exit code of a `CnnbenchError`."""

    result: Any = None
    error: str | None = None
    code: int = 0


def call(
    function: Callable[[Request], Answer],
    request: Request,
    *,
    about: str,
    seconds: float | None = None,
    memory: int = MEMORY,
) -> Answer:
    """Call `function(request)` in a process of its own, in an empty folder, and return its answer.

    Args:
        function: A function of a module, with one annotated parameter and an annotated result, both of types that
            msgspec writes as JSON.
        request: Its argument.
        about: What is read or run, for messages.
        seconds: Wall clock after which the process is killed; None sets no limit.
        memory: Bytes of address space it may take, 0 for no limit. Holds on POSIX systems.

    Raises:
        CnnbenchError: Whatever the function raised of this kind; or the process crashed, ran out of memory or took
            longer than `seconds` (exit 3).
    """
    target = f"{function.__module__}:{function.__name__}"
    process = _run(target, {"memory": memory, "request": _to_json(request)}, about=about, seconds=seconds)
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise CnnbenchError(f"{about} crashed the process that read it ({name})", Exit.DATA)
    if process.returncode:
        raise RuntimeError(f"{target} failed on {about}: {process.stderr.strip()[-2000:]}")
    if not process.stdout:
        raise CnnbenchError(f"{about} ended the process that read it", Exit.DATA)
    reply = msgspec.convert(json.loads(process.stdout), Reply)
    if reply.error is not None:
        raise CnnbenchError(reply.error, Exit(reply.code))
    answer: Answer = _of_json(reply.result, get_type_hints(function)["return"])
    return answer


def _run(
    target: str, document: dict[str, Any], *, about: str, seconds: float | None
) -> subprocess.CompletedProcess[str]:
    """The child's process, ended: `document` on its stdin, an empty folder around it."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    with tempfile.TemporaryDirectory(prefix="cnnbench-") as empty:
        try:
            return _spawn(target, json.dumps(document), folder=empty, environment=environment, seconds=seconds)
        except subprocess.TimeoutExpired:
            raise CnnbenchError(f"{about} was stopped: it ran for more than {seconds:g} s", Exit.DATA) from None


def _spawn(
    target: str, text: str, *, folder: str, environment: dict[str, str], seconds: float | None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "cnnbench.runtime.sandbox", target],
        input=text,
        capture_output=True,
        text=True,
        errors="replace",  # native code prints what it finds in a file
        timeout=seconds,
        cwd=folder,
        env=environment,
        check=False,
    )


def _serve(target: str) -> None:
    """The child: read the request from stdin, answer on stdout."""
    document = json.load(sys.stdin)
    answer_to = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not come between
    _limit(document["memory"])
    module, name = target.split(":")
    try:
        function = getattr(importlib.import_module(module), name)
        parameter = next(kind for key, kind in get_type_hints(function).items() if key != "return")
        reply = Reply(result=_to_json(function(_of_json(document["request"], parameter))))
    except CnnbenchError as error:
        reply = Reply(error=str(error), code=int(error.code))
    except MemoryError:
        limit = f"{document['memory'] / 2**30:.0f} GiB"
        reply = Reply(error=f"the file needs more than {limit} of memory", code=int(Exit.DATA))
    with os.fdopen(answer_to, "w") as stream:
        json.dump(msgspec.to_builtins(reply), stream)


def _to_json(value: Any) -> Any:
    return msgspec.to_builtins(value, str_keys=True)


def _of_json(value: Any, kind: Any) -> Any:
    return msgspec.convert(value, kind, str_keys=True)


def _limit(memory: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


if __name__ == "__main__":
    _serve(sys.argv[1])
