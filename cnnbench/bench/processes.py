"""An engine in a fresh process of its own: it starts, tells what starting cost, and times calls when it is asked to.

Engines wait on a pipe while another is measured, so that one at a time works. ONNX Runtime's threads keep their
default of spinning for a moment after a call, since that is how the file will run where it is deployed; what is left
of a neighbour's spinning falls into the untimed calls that begin every slice.
"""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

import numpy as np

from cnnbench.bench import latency
from cnnbench.types import CnnbenchError

WARM_UP_CALLS, WARM_UP_SECONDS = 5, 0.1
"""Before the first slice of a batch size: allocators, kernels chosen by trial, and clock rates settle."""
SETTLING_SECONDS = 0.005
"""Before every later slice, and at least one call: the engine before it has emptied the caches."""
ANSWER_SECONDS = 900.0
"""Longer than any compilation or slice takes; an engine that is silent for longer is given up."""
LEAVING_SECONDS = 1.0
SLEEP_ERROR_SECONDS = 0.001
"""A sleep may end this much too late, so the last of the wait for an arrival is spent looking at the clock."""

LIBRARY = {"torch": "torch", "torch-compile": "torch", "onnxruntime": "onnxruntime"}
OURS = {
    "torch": ("cnnbench.architectures", "cnnbench.bundles.graph"),
    "torch-compile": ("cnnbench.architectures", "cnnbench.bundles.graph"),
    "onnxruntime": ("cnnbench.runtime.predict", "cnnbench.runtime.providers"),
}


@dataclass(frozen=True)
class Setup:
    """Which engine: everything a latency depends on but the batch."""

    bundle: Path
    task: str
    runtime: latency.Runtime
    precision: str
    provider: latency.Provider
    threads: int

    @property
    def name(self) -> str:
        return f"{self.kind}-threads{self.threads}"

    @property
    def kind(self) -> str:
        """The name without the threads."""
        return f"{self.runtime}-{self.precision}{'' if self.provider == 'cpu' else f'-{self.provider}'}"


@dataclass(frozen=True)
class ColdStart:
    """What an engine costs before it can serve, in a process that has loaded numpy alone."""

    import_ms: float
    """Of the library: `import torch` or `import onnxruntime`."""
    load_ms: float
    """Until the network is there: the file read, the graph optimised; for torch, built from its name."""
    first_call_ms: float
    """Of one image; torch.compile compiles here."""
    pinned: bool
    """Whether the operating system keeps the process on as many cores as it has threads."""

    @property
    def total_ms(self) -> float:
        return self.import_ms + self.load_ms + self.first_call_ms


@dataclass(frozen=True)
class Slice:
    """Seconds of each call, one after another, on the host's clock and on the device's where it has one."""

    seconds: list[float]
    device_seconds: list[float] | None


class EngineError(Exception):
    """The engine failed or died; one line that says why."""


class Engine:
    """A running engine. Use as a context manager: leaving it ends the process.

    Raises:
        EngineError: It could not start.
    """

    def __init__(self, setup: Setup) -> None:
        context = get_context("spawn")
        self.setup = setup
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, setup), daemon=True)
        with _without_interrupts():  # Ctrl-C reaches all: this process hears it and ends the others
            self._process.start()
        theirs.close()
        try:
            self.cold_start: ColdStart = self._answer()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def measure(self, batch: int, seconds: float, calls: int) -> Slice:
        """Time calls of `batch` images until `seconds` have passed or `calls` are made; at least one.

        Raises:
            EngineError: The engine failed or died.
        """
        result: Slice = self._ask("measure", batch, seconds, calls)
        return result

    def queue(self, arrivals: Sequence[float]) -> list[float]:
        """Serve single images that arrive at these seconds, in order; seconds from each arrival to its completion.

        Raises:
            EngineError: The engine failed or died.
        """
        result: list[float] = self._ask("queue", arrivals)
        return result

    def close(self) -> None:
        """End the process: an idle one hears the pipe close and leaves in order, a busy one is killed."""
        self._pipe.close()
        self._process.join(LEAVING_SECONDS)
        self._process.kill()
        self._process.join()

    def _ask(self, *request: object) -> Any:
        try:
            self._pipe.send(request)
        except OSError:
            raise self._death() from None
        return self._answer()

    def _answer(self) -> Any:
        ready = connection.wait([self._pipe, self._process.sentinel], ANSWER_SECONDS)
        if not ready:
            raise EngineError(f"gave no answer for {ANSWER_SECONDS:g} s")
        try:
            kind, content = self._pipe.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if kind == "failed":
            raise EngineError(content)
        return content

    def _death(self) -> EngineError:
        self._process.join(timeout=5)
        code = self._process.exitcode
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return EngineError(f"its process died ({how})")


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process started here ignores Ctrl-C from its first instruction on."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(pipe: Any, setup: Setup) -> None:
    """The process: start, then answer until the other end closes."""
    os.dup2(2, 1)  # what libraries print must not come between results
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no compilers left running beside the measurement
    try:
        call = _reported(pipe, lambda: _started(setup))
        if call is None:
            return
        station = _Station(setup.bundle, call)
        while True:
            request, *arguments = pipe.recv()
            _reported(pipe, partial(station.answer, request, arguments))
    except (EOFError, BrokenPipeError):  # whoever asked is gone
        return


def _reported(pipe: Any, work: Callable[[], tuple[Any, Any]]) -> Any:
    """Do the work, send its second result or why there is none, and return the first.

    An engine that fails at one batch size (out of memory, say) is asked for the others.
    """
    try:
        kept, answer = work()
    except Exception as error:
        line = " ".join(str(error).split())[:500]
        pipe.send(("failed", line if isinstance(error, CnnbenchError) else f"{type(error).__name__}: {line}"))
        return None
    pipe.send(("done", answer))
    return kept


def _started(setup: Setup) -> tuple[latency.Call, ColdStart]:
    pinned = _pin(setup.threads)
    start = time.perf_counter()
    import_module(LIBRARY[setup.runtime])
    imported = time.perf_counter()
    for module in OURS[setup.runtime]:  # their time is not the engine's
        import_module(module)
    begin = time.perf_counter()
    call = latency.prepare(setup.bundle, setup.runtime, setup.threads, setup.precision, setup.provider)
    loaded = time.perf_counter()
    images = latency.images_of(setup.bundle, 1)
    before_call = time.perf_counter()
    call(images)
    called = time.perf_counter()
    return call, ColdStart(
        import_ms=1e3 * (imported - start),
        load_ms=1e3 * (loaded - begin),
        first_call_ms=1e3 * (called - before_call),
        pinned=pinned,
    )


def _pin(threads: int) -> bool:
    """Keep this process, and threads that it starts later, on the first `threads` of its cores."""
    if not hasattr(os, "sched_setaffinity"):  # only Linux has it
        return False
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    return True


class _Station:
    """What the process keeps between requests: the call, the images of each batch size, and which of them is warm."""

    def __init__(self, bundle: Path, call: latency.Call) -> None:
        self.bundle, self.call = bundle, call
        self.images: dict[int, np.ndarray] = {}

    def answer(self, request: str, arguments: list[Any]) -> tuple[None, Slice | list[float]]:
        return None, self.measure(*arguments) if request == "measure" else self.queue(*arguments)

    def measure(self, batch: int, seconds: float, calls: int) -> Slice:
        images = self._warm(batch)
        with _no_collection():
            return timed(self.call, images, seconds, calls)

    def queue(self, arrivals: Sequence[float]) -> list[float]:
        images = self._warm(1)
        with _no_collection():
            return served(lambda: self.call(images), arrivals, time.perf_counter, _wait_until)

    def _warm(self, batch: int) -> np.ndarray:
        calls, seconds = (1, SETTLING_SECONDS) if batch in self.images else (WARM_UP_CALLS, WARM_UP_SECONDS)
        images = self.images.setdefault(batch, latency.images_of(self.bundle, batch))
        start, made = time.perf_counter(), 0
        while made < calls or time.perf_counter() - start < seconds:
            self.call(images)
            made += 1
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


def timed(call: latency.Call, images: np.ndarray, seconds: float, calls: int) -> Slice:
    """Time single calls until `seconds` have passed or `calls` are made; at least one."""
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


def served(
    work: Callable[[], object],
    arrivals: Sequence[float],
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
