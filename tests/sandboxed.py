"""Functions that tests call in the sandbox. They import little, so that a fresh process has them soon."""

import importlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from cnnbench.types import CnnbenchError, Exit


class Shares(msgspec.Struct, frozen=True):
    """Values that JSON has no type for: keys that are numbers, tuples, Structs in Structs."""

    by_size: dict[int, tuple[float, ...]]
    parts: tuple["Shares", ...] = ()


class Copy(msgspec.Struct, frozen=True):
    """Two paths."""

    source: str
    target: str


def copy(paths: Copy) -> None:
    Path(paths.target).write_text(Path(paths.source).read_text())


def double(shares: Shares) -> Shares:
    return Shares(
        {2 * size: tuple(2 * value for value in values) for size, values in shares.by_size.items()}, (shares,)
    )


def unlike_its_annotation(_: None) -> int:
    value: Any = "text"
    return int(value) if value.isdigit() else value


def echo(value: Any) -> Any:
    return value


def refuse(code: int) -> None:
    raise CnnbenchError("no, and “why”", Exit(code))


def chatter(_: None) -> dict[str, bool]:
    print('{"result": "not this"}')
    sys.stdout.flush()
    os.write(1, b'{"result": "nor this"}\n')
    print("on stderr", file=sys.stderr)
    return {"real": True}


def kill(number: int) -> None:
    os.kill(os.getpid(), number)


def segfault(_: Any) -> None:
    kill(signal.SIGSEGV)


def sleep(_: None) -> None:
    time.sleep(600)


def allocate(gib: int) -> int:
    import numpy as np

    return np.zeros(gib * 2**30, np.uint8).nbytes


def fail(_: None) -> None:
    raise ZeroDivisionError("ours to mend")


def leave(_: None) -> None:
    os._exit(0)


def babble(_: None) -> int:
    os.write(1, b"\xff\xfe")
    os.write(2, b"\xff\xfe")
    return 1


def surroundings(_: None) -> dict[str, Any]:
    import resource

    return {
        "files": os.listdir(),  # noqa: PTH208
        "here": str(Path.cwd()),
        "limit": resource.getrlimit(resource.RLIMIT_AS)[0],
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "modules": [name for name in ("torch", "lightning") if name in sys.modules],
    }


def folder_of(name: str) -> str:
    """Where a module is imported from."""
    return str(Path(str(importlib.import_module(name).__file__)).parent)
