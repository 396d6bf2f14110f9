"""A function in a fresh process with limits, so that a file nobody knows cannot take the caller down.

Arguments and results are JSON; arrays travel as .npy files. Nothing is unpickled.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cnnbench.types import CnnbenchError, Exit

MEMORY = 16 * 2**30
"""Bytes of address space: several times what the largest registered network takes. Not set for a GPU, whose driver
reserves far more than it uses."""


def call(target: str, arguments: dict[str, Any], about: str, seconds: float | None = None, memory: int = MEMORY) -> Any:
    """Call `module:function(**arguments)` in a process of its own, in an empty folder, and return its result.

    Args:
        target: The function; arguments and result must be JSON values.
        arguments: Its arguments.
        about: What is on trial, for messages.
        seconds: Wall clock after which the process is killed; None sets no limit.
        memory: Bytes of address space it may take, 0 for no limit. Holds on POSIX systems.

    Raises:
        CnnbenchError: Whatever the function raised of this kind; or the process crashed, ran out of memory or took
            longer than `seconds` (exit 3).
    """
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory(prefix="cnnbench-") as empty:
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "cnnbench.runtime.sandbox", target],
                input=json.dumps({"memory": memory, "arguments": arguments}),
                capture_output=True,
                text=True,
                errors="replace",  # native code prints what it finds in a file
                timeout=seconds,
                cwd=empty,
                env={**os.environ, "PYTHONPATH": path},
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CnnbenchError(f"{about} was stopped: it ran for more than {seconds:g} s", Exit.DATA) from None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise CnnbenchError(f"{about} crashed the process that read it ({name})", Exit.DATA)
    if done.returncode:
        raise RuntimeError(f"{target} failed on {about}: {done.stderr.strip()[-2000:]}")
    if not done.stdout:
        raise CnnbenchError(f"{about} ended the process that read it", Exit.DATA)
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise CnnbenchError(answer["error"], Exit(answer["code"]))
    return answer["result"]


def _serve(target: str) -> None:
    """The child: read the request from stdin, answer on stdout."""
    request = json.load(sys.stdin)
    answer_to = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not come between
    _limit(request["memory"])
    module, function = target.split(":")
    try:
        answer = {"result": getattr(importlib.import_module(module), function)(**request["arguments"])}
    except CnnbenchError as error:
        answer = {"error": str(error), "code": int(error.code)}
    except MemoryError:
        limit = f"{request['memory'] / 2**30:.0f} GiB"
        answer = {"error": f"the file needs more than {limit} of memory", "code": int(Exit.DATA)}
    with os.fdopen(answer_to, "w") as stream:
        json.dump(answer, stream)


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
