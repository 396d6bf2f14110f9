"""A backend in a separate process: it starts, reports what starting cost, and times calls on request.

One call goes from decoded images to logits, with fixed threads. Processes wait on a pipe while another is measured, so
that only one works at a time. ONNX Runtime's threads keep their default of spinning for a moment after a call, since
that is how the file will run where it is deployed; what is left of the spinning of the process before falls into the
untimed calls at the start of every slice.
"""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

import numpy as np

from cnnbench.bench.networks import LIBRARY, OURS, Call, golden_images, open_backend
from cnnbench.bench.plan import Setup
from cnnbench.types import CnnbenchError

WARM_UP_CALLS, WARM_UP_SECONDS = 5, 0.1
"""Before the first slice of a batch size: allocators, kernels chosen by measuring, and clock rates settle."""
SETTLING_SECONDS = 0.005
"""Before every later slice, and at least one call: the process before has emptied the caches."""
ANSWER_SECONDS = 900.0
"""Longer than any compilation or slice takes; a process that is silent for longer is given up."""
LEAVING_SECONDS = 1.0
SLEEP_ERROR_SECONDS = 0.001
"""A sleep may end this much too late, so the last of the wait for an arrival is spent looking at the clock."""


@dataclass(frozen=True)
class ColdStart:
    """What a backend costs before it can serve, in a process that has loaded only numpy."""

    import_ms: float
    """Time to import the library: `import torch` or `import onnxruntime`."""
    load_ms: float
    """Until the network is there: the file read, the graph optimised; for torch, built from its name."""
    first_call_ms: float
    """Time of the first call with one image; torch.compile compiles here."""
    pinned: bool
    """Whether the operating system keeps the process on as many cores as it has threads."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What the library says it was told besides threads; of OpenVINO that it computes in float32."""

    @property
    def total_ms(self) -> float:
        return self.import_ms + self.load_ms + self.first_call_ms


@dataclass(frozen=True)
class Slice:
    """Seconds of successive calls, on the host's clock and on the device's where it has one."""

    seconds: list[float]
    device_seconds: list[float] | None = None


class BackendError(Exception):
    """The process of a backend failed or died; one line that says why."""


class BackendProcess:
    """A running backend. Use as a context manager: leaving it ends the process.

    Raises:
        BackendError: It could not start.
    """

    def __init__(self, setup: Setup) -> None:
        context = get_context("spawn")
        self.setup = setup
        self._pipe, child_pipe = context.Pipe()
        self._process = context.Process(target=_serve, args=(child_pipe, setup), daemon=True)
        with _without_interrupts():  # Ctrl-C reaches all processes: this one handles it and ends the others
            self._process.start()
        child_pipe.close()
        try:
            self.cold_start: ColdStart = self._answer()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> BackendProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def measure(self, batch: int, *, seconds: float, calls: int) -> Slice:
        """Time calls of `batch` images until `seconds` have passed or `calls` are done; at least one.

        Raises:
            BackendError: The process failed or died.
        """
        result: Slice = self._request("measure", batch, seconds=seconds, calls=calls)
        return result

    def serve(self, arrivals: Sequence[float]) -> list[float]:
        """Serve single images that arrive at these seconds, in order; seconds from each arrival to its completion.

        Raises:
            BackendError: The process failed or died.
        """
        result: list[float] = self._request("serve", arrivals)
        return result

    def close(self) -> None:
        """End the process: an idle one sees the pipe close and exits, a busy one is killed."""
        self._pipe.close()
        self._process.join(LEAVING_SECONDS)
        self._process.kill()
        self._process.join()

    def _request(self, name: str, subject: object, **limits: float) -> Any:
        try:
            self._pipe.send((name, subject, limits))
        except OSError:
            raise self._death() from None
        return self._answer()

    def _answer(self) -> Any:
        ready = connection.wait([self._pipe, self._process.sentinel], ANSWER_SECONDS)
        if not ready:
            raise BackendError(f"gave no answer for {ANSWER_SECONDS:g} s")
        try:
            kind, content = self._pipe.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if kind == "failed":
            raise BackendError(content)
        return content

    def _death(self) -> BackendError:
        self._process.join(timeout=5)
        code = self._process.exitcode
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return BackendError(f"its process died ({how})")


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process started here ignores Ctrl-C from its first instruction on."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(pipe: Any, setup: Setup) -> None:
    """The process: start, then answer requests until the other end closes."""
    os.dup2(2, 1)  # what libraries print must not come between results
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no compilers left running beside the measurement
    try:
        call = _reported(pipe, lambda: _started(setup))
        if call is None:
            return
        worker = _Worker(setup.bundle, call)
        while True:
            name, subject, limits = pipe.recv()
            request = worker.measure if name == "measure" else worker.serve
            _reported(pipe, partial(_answered, request, subject, limits))
    except (EOFError, BrokenPipeError):  # the other end is gone
        return


def _reported(pipe: Any, work: Callable[[], tuple[Any, Any]]) -> Any:
    """Do the work, send its second result or why there is none, and return the first.

    A backend that fails at one batch size (out of memory, say) still gets requests for the others.
    """
    try:
        result, answer = work()
    except Exception as error:
        line = " ".join(str(error).split())[:500]
        pipe.send(("failed", line if isinstance(error, CnnbenchError) else f"{type(error).__name__}: {line}"))
        return None
    pipe.send(("done", answer))
    return result


def _answered(request: Callable[..., Any], subject: Any, limits: dict[str, Any]) -> tuple[None, Any]:
    return None, request(subject, **limits)


def _started(setup: Setup) -> tuple[Call, ColdStart]:
    pinned = _pin(setup.threads)
    start = time.perf_counter()
    import_module(LIBRARY[setup.backend])
    imported = time.perf_counter()
    for module in OURS[setup.backend]:  # their time is not the backend's
        import_module(module)
    begin = time.perf_counter()
    call = open_backend(setup)
    loaded = time.perf_counter()
    images = golden_images(setup.bundle, 1)
    before_call = time.perf_counter()
    call(images)
    called = time.perf_counter()
    return call, ColdStart(
        import_ms=1e3 * (imported - start),
        load_ms=1e3 * (loaded - begin),
        first_call_ms=1e3 * (called - before_call),
        pinned=pinned,
        settings=call.settings,
    )


def _pin(threads: int) -> bool:
    """Keep this process, and threads that it starts later, on the first `threads` of its cores."""
    if not hasattr(os, "sched_setaffinity"):  # only Linux has it
        return False
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    return True


class _Worker:
    """What the process keeps between requests: the call, and the images of each batch size that is warm."""

    def __init__(self, bundle: Path, call: Call) -> None:
        self.bundle, self.call = bundle, call
        self.images: dict[int, np.ndarray] = {}

    def measure(self, batch: int, *, seconds: float, calls: int) -> Slice:
        images = self._warm(batch)
        with _no_collection():
            return time_calls(self.call, images, seconds=seconds, calls=calls)

    def serve(self, arrivals: Sequence[float]) -> list[float]:
        images = self._warm(1)
        with _no_collection():
            return serve_arrivals(lambda: self.call(images), arrivals, clock=time.perf_counter, wait_until=_wait_until)

    def _warm(self, batch: int) -> np.ndarray:
        calls, seconds = (1, SETTLING_SECONDS) if batch in self.images else (WARM_UP_CALLS, WARM_UP_SECONDS)
        images = self.images.setdefault(batch, golden_images(self.bundle, batch))
        start, done = time.perf_counter(), 0
        while done < calls or time.perf_counter() - start < seconds:
            self.call(images)
            done += 1
        return images


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's garbage collector stays out of timed calls."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def time_calls(call: Call, images: np.ndarray, *, seconds: float, calls: int) -> Slice:
    """Time single calls until `seconds` have passed or `calls` are done; at least one."""
    clock, logits, device_clock = time.perf_counter_ns, call.logits, call.device_seconds
    times: list[float] = []
    on_device: list[float] = []
    until = clock() + round(seconds * 1e9)
    while len(times) < calls:
        start = clock()
        logits(images)
        end = clock()
        times.append((end - start) / 1e9)
        if device_clock:
            on_device.append(device_clock())
        if end >= until:
            break
    return Slice(times, on_device if device_clock else None)


def serve_arrivals(
    work: Callable[[], object],
    arrivals: Sequence[float],
    *,
    clock: Callable[[], float],
    wait_until: Callable[[float], object],
) -> list[float]:
    """Serve each arrival in turn, no earlier than it comes; seconds from each scheduled arrival to its completion.

    The load is open: arrivals do not wait for the worker, so a query that comes while it is busy pays for the wait.

    Args:
        work: Serves one query.
        arrivals: Seconds after the start, rising.
        clock: Seconds, monotonic.
        wait_until: Returns once the clock shows this; at once where it does already.
    """
    start, latencies = clock(), []
    for arrival in arrivals:
        wait_until(start + arrival)
        work()
        latencies.append(clock() - start - arrival)
    return latencies


def _wait_until(moment: float) -> None:
    while (wait := moment - time.perf_counter()) > 0:
        if wait > SLEEP_ERROR_SECONDS:
            time.sleep(wait - SLEEP_ERROR_SECONDS)
