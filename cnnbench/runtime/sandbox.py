"""A function in a fresh, confined process, so that an untrusted file cannot take the caller down nor reach out.

Request and answer cross the process as JSON, each checked against the function's type hints; arrays travel as .npy
files. Nothing is unpickled.
"""

from __future__ import annotations

import errno
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

from cnnbench import environment, records
from cnnbench.runtime import confine
from cnnbench.types import CnnbenchError, Exit

MEMORY = 16 * 2**30
"""Bytes of address space: several times what the largest registered network takes. Not set for a GPU, whose driver
reserves far more than it uses."""
CPU_SECONDS = 86_400
"""CPU time of all threads together, where there is no limit of wall clock."""
INHERITED = {"LD_LIBRARY_PATH", "PYTHONHOME", "SYSTEMROOT", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
INHERITED |= {"CUDA_VISIBLE_DEVICES"}
"""Variables that the child's environment keeps: where libraries lie, how many threads, which GPUs."""

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Reply(msgspec.Struct, frozen=True):
    """What the child writes to stdout: the answer, or the message and the exit code of a `CnnbenchError`.

    `lacking` is what its machine did not give to confine it.
    """

    lacking: tuple[str, ...] = ()
    result: Any = None
    error: str | None = None
    code: int = 0


def call(
    function: Callable[[Request], Answer],
    request: Request,
    *,
    about: str,
    reads: Sequence[str | Path] = (),
    writes: Sequence[str | Path] = (),
    seconds: float | None = None,
    memory: int = MEMORY,
    devices: bool = False,
) -> Answer:
    """Call `function(request)` in a separate confined process, in an empty folder, and return its answer.

    It may read `reads`, Python and its libraries, write `writes` and its empty folder, and compute; see `confine`.

    Args:
        function: A function of a module, with one annotated parameter and an annotated result, both of types that
            msgspec writes as JSON.
        request: Its argument.
        about: What is read or run, for messages.
        reads: Files and folders that it may read.
        writes: Folders that it may read and write.
        seconds: Wall clock after which the process is killed; None sets no limit.
        memory: Bytes of address space it may take, 0 for no limit; where the hard limit of this process is lower, that
            holds.
        devices: Whether it may use the devices in /dev, as the driver of a GPU does.

    Raises:
        CnnbenchError: Whatever the function raised of this kind; or the process crashed, ran out of memory or took
            longer than `seconds` (exit 3); or `ulimit -v` is too low for its libraries (exit 6).
    """
    allowed = confine.Confinement(
        reads=tuple(str(Path(path).absolute()) for path in reads),
        writes=tuple(str(Path(path).absolute()) for path in writes),
        memory=memory,
        cpu_seconds=math.ceil(seconds * (os.cpu_count() or 1)) if seconds else CPU_SECONDS,
        devices=devices,
    )
    reply = _ask(function, request, allowed, about=about, seconds=seconds)
    answer: Answer = _of_json(reply.result, get_type_hints(function)["return"])
    return answer


def lacking() -> tuple[str, ...]:
    """What this machine does not give to confine the child, in words; empty where all of it holds."""
    return _ask(nothing, None, confine.Confinement(memory=MEMORY), about="the confinement").lacking


def confinement() -> str:
    """How far this machine confines the child, in a line."""
    if lacks := lacking():
        return f"by what this machine gives, which lacks {', '.join(lacks)}; docs/security.md says what each is for"
    return "its own files, no network, no other process, limits"


def nothing(_: None) -> None:
    """What `lacking` calls: to be confined is all that this child does."""


def _ask(
    function: Callable[[Request], object],
    request: Request,
    allowed: confine.Confinement,
    *,
    about: str,
    seconds: float | None = None,
) -> Reply:
    """The reply of a child; raises what `call` does."""
    target = f"{function.__module__}:{function.__name__}"
    process = _run(target, allowed, _to_json(request), about=about, seconds=seconds)
    if process.returncode == -getattr(signal, "SIGXCPU", 0):
        raise CnnbenchError(f"{about} was stopped: it took more than {allowed.cpu_seconds:,} s of CPU", Exit.DATA)
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise CnnbenchError(f"{about} crashed the process that read it ({name})", Exit.DATA)
    if process.returncode:
        if environment.ran_out_of_memory(process.stderr):
            raise _too_little_memory(allowed, about)
        if records.says_no_room(process.stderr):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), tempfile.gettempdir())
        raise RuntimeError(f"{target} failed on {about}: {process.stderr.strip()[-2000:]}")
    if not process.stdout:
        raise CnnbenchError(f"{about} ended the process that read it", Exit.DATA)
    reply = msgspec.convert(json.loads(process.stdout), Reply)
    if reply.error is not None:
        raise CnnbenchError(reply.error, Exit(reply.code))
    return reply


def _too_little_memory(allowed: confine.Confinement, about: str) -> CnnbenchError:
    limit, own = environment.address_space(), allowed.memory or math.inf
    where, code = (" (`ulimit -v`)", Exit.ENVIRONMENT) if limit and limit < own else ("", Exit.DATA)
    needs = f"needs more than {min(limit or own, own) / 2**30:.3g} GiB of address space"
    return CnnbenchError(f"the process that reads {about} {needs}{where}", code)


def _run(
    target: str, allowed: confine.Confinement, request: Any, *, about: str, seconds: float | None
) -> subprocess.CompletedProcess[str]:
    """The child's process, ended: what it may do and the request, a line each, on its stdin."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {name: os.environ[name] for name in INHERITED & {*os.environ}} | {"PYTHONPATH": path}
    with tempfile.TemporaryDirectory(prefix="cnnbench-") as empty:
        allowed = msgspec.structs.replace(allowed, writes=(*allowed.writes, empty))
        text = f"{json.dumps(_to_json(allowed))}\n{json.dumps(request)}"
        try:
            return _spawn(target, text, folder=empty, environment=environment, seconds=seconds)
        except PermissionError:
            raise CnnbenchError(f"this Python cannot be started again: {sys.executable}", Exit.ENVIRONMENT) from None
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
    """The child: read what it may do and the request from stdin, answer on stdout."""
    allowed = msgspec.json.decode(sys.stdin.readline(), type=confine.Confinement)
    answer_to = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not come between
    # before any import of native code, whose threads would not be confined
    lacks = confine.apply(msgspec.structs.replace(allowed, reads=(*allowed.reads, *_libraries())))
    reply = _answer(target, json.load(sys.stdin))
    with os.fdopen(answer_to, "w") as stream:
        json.dump(msgspec.to_builtins(msgspec.structs.replace(reply, lacking=lacks)), stream)


def _answer(target: str, request: Any) -> Reply:
    module, name = target.split(":")
    try:
        function = getattr(importlib.import_module(module), name)
        parameter = next(kind for key, kind in get_type_hints(function).items() if key != "return")
        return Reply(result=_to_json(function(_of_json(request, parameter))))
    except CnnbenchError as error:
        return Reply(error=str(error), code=int(error.code))
    except PermissionError as error:
        what = f"the confined process may not use {error.filename or error}: it is held to the files that it is given"
        return Reply(error=f"{what}, and has no rights of root (docs/security.md)", code=int(Exit.DATA))
    except MemoryError:
        limit = (environment.address_space() or 0) / 2**30
        return Reply(error=f"the file needs more than {limit:.3g} GiB of memory", code=int(Exit.DATA))


def _libraries() -> Iterator[str]:
    """Where Python and its packages lie; of a checkout only the package itself."""
    yield from (str(Path(prefix) / "lib") for prefix in (sys.prefix, sys.base_prefix))
    yield from os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent if (package.parent / "pyproject.toml").exists() else None
    yield from (str(package) if Path(entry).resolve() == checkout else entry for entry in sys.path)


def _to_json(value: Any) -> Any:
    return msgspec.to_builtins(value, str_keys=True)


def _of_json(value: Any, kind: Any) -> Any:
    return msgspec.convert(value, kind, str_keys=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
