"""Engines: a fresh process each, that times single calls, says why it failed, and never outlives who started it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from cnnbench.bench import processes as engines
from cnnbench.bench.latency import Call, Runtime
from cnnbench.bench.processes import Engine, EngineError, Setup, timed

IMAGES = np.zeros((1, 2, 2, 1), np.uint8)


def setup_of(bundle: Path, runtime: Runtime = "onnxruntime", threads: int = 1) -> Setup:
    return Setup(bundle, "mnist5k_lenet5", runtime, "fp32", "cpu", threads)


@pytest.fixture(scope="module")
def engine(bundle: Path) -> Iterator[Engine]:
    with Engine(setup_of(bundle)) as running:
        yield running


def gone(pid: int, seconds: float = 20.0) -> bool:
    """Whether a process ends, in time; a zombie has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_every_sample_is_one_call() -> None:
    seen = []
    slice = timed(Call(lambda images: seen.append(len(images)) or images), IMAGES, seconds=60.0, calls=7)
    assert len(slice.seconds) == len(seen) == 7
    assert slice.device_seconds is None


def test_a_slice_ends_with_its_time_but_not_before_one_call() -> None:
    def slow(images: np.ndarray) -> np.ndarray:
        time.sleep(0.02)
        return images

    assert len(timed(Call(slow), IMAGES, seconds=0.0, calls=100).seconds) == 1
    taken = timed(Call(slow), IMAGES, seconds=0.1, calls=100).seconds
    assert 1 <= len(taken) <= 5
    assert all(second >= 0.02 for second in taken)


def test_times_on_the_device_stand_beside_those_on_the_host() -> None:
    ticks = count(1)
    slice = timed(Call(lambda images: images, lambda: float(next(ticks))), IMAGES, seconds=60.0, calls=3)
    assert len(slice.seconds) == 3
    assert slice.device_seconds == [1.0, 2.0, 3.0]


def test_an_engine_tells_what_starting_cost_and_times_what_it_is_asked(engine: Engine) -> None:
    start = engine.cold_start
    assert min(start.import_ms, start.load_ms, start.first_call_ms) > 0
    assert start.total_ms == start.import_ms + start.load_ms + start.first_call_ms
    for batch in (1, 5, 1):
        slice = engine.measure(batch, seconds=30.0, calls=3)
        assert len(slice.seconds) == 3
        assert min(slice.seconds) > 0


def test_an_engine_is_kept_on_as_many_cores_as_it_has_threads(engine: Engine) -> None:
    assert engine.cold_start.pinned
    pid = engine._process.pid
    assert pid is not None
    assert os.sched_getaffinity(pid) == {min(os.sched_getaffinity(0))}


def test_an_engine_serves_arrivals_and_none_before_it_comes(engine: Engine) -> None:
    start = time.perf_counter()
    latencies = engine.queue([0.0, 0.05, 0.1])
    assert time.perf_counter() - start >= 0.1
    assert len(latencies) == 3
    assert min(latencies) > 0


def test_an_engine_that_fails_at_one_batch_goes_on_with_the_others(engine: Engine) -> None:
    with pytest.raises(EngineError, match=r"^ValueError: ") as failure:
        engine.measure(-1, seconds=0.1, calls=1)
    assert "\n" not in str(failure.value)
    assert len(engine.measure(2, seconds=30.0, calls=2).seconds) == 2


def test_an_engine_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"^cannot read .*manifest.json: No such file or directory$"):
        Engine(setup_of(tmp_path))


def test_an_engine_that_dies_is_an_error_and_not_a_wait(bundle: Path) -> None:
    with Engine(setup_of(bundle)) as engine:
        assert engine._process.pid is not None
        os.kill(engine._process.pid, signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(EngineError, match=r"^its process died \(SIGKILL\)$"):
                engine.measure(1, seconds=0.1, calls=1)


def test_an_engine_that_hangs_is_given_up(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(setup_of(bundle)) as slow:
        monkeypatch.setattr(engines, "ANSWER_SECONDS", 0.2)
        with pytest.raises(EngineError, match=r"^gave no answer for 0.2 s$"):
            slow.queue([600.0])


def test_leaving_ends_the_process(bundle: Path) -> None:
    with Engine(setup_of(bundle)) as engine:
        pid = engine._process.pid
    assert pid is not None
    assert gone(pid)


def test_an_engine_ends_when_who_started_it_is_killed(bundle: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from cnnbench.bench.processes import Engine, Setup
if __name__ == "__main__":
    engine = Engine(Setup(Path({str(bundle)!r}), "task", "onnxruntime", "fp32", "cpu", 1))
    print(engine._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    script = Path("starts.py")
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert gone(int(done.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["torch", "torch-compile"])
def test_torch_runs_in_an_engine_too(bundle: Path, runtime: Runtime) -> None:
    with Engine(setup_of(bundle, runtime)) as engine:
        assert {batch: len(engine.measure(batch, 60.0, 3).seconds) for batch in (1, 8)} == {1: 3, 8: 3}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_on_a_gpu_torch_has_the_devices_own_times(bundle: Path, runtime: Runtime) -> None:
    with Engine(Setup(bundle, "mnist5k_lenet5", runtime, "fp32", "cuda", 1)) as engine:
        slice = engine.measure(8, 60.0, 20)
    assert (slice.device_seconds is None) == (runtime == "onnxruntime")
    for host, device in zip(slice.seconds, slice.device_seconds or slice.seconds, strict=True):
        assert 0 < device <= host
