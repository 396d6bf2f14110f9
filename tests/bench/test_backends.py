"""Backends: the same real images through the file that ships, in processes that never outlive their parent."""

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
from bench_helpers import setup_of

from cnnbench.bench import backends
from cnnbench.bench.backends import BackendError, BackendProcess, time_calls
from cnnbench.bench.networks import Call, golden_images, open_backend

IMAGES = np.zeros((1, 2, 2, 1), np.uint8)


@pytest.fixture(scope="module")
def process(bundle: Path) -> Iterator[BackendProcess]:
    with BackendProcess(setup_of(bundle)) as running:
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


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_images_are_the_golden_ones_repeated(bundle: Path, batch: int) -> None:
    with np.load(bundle / "golden.npz") as golden:
        pixels = golden["pixels"]
    images = golden_images(bundle, batch)
    assert images.dtype == np.uint8
    assert np.array_equal(images, pixels[np.arange(batch) % len(pixels)])


def test_onnx_runtime_runs_the_file_that_ships(bundle: Path) -> None:
    with np.load(bundle / "golden.npz") as golden:
        logits = open_backend(setup_of(bundle))(golden["pixels"])
        np.testing.assert_allclose(logits, golden["logits"], atol=1e-4)


def test_torch_runs_the_same_architecture_on_the_same_images(bundle: Path) -> None:
    call = open_backend(setup_of(bundle, backend="torch"))
    logits = call(golden_images(bundle, 3))
    assert (logits.shape, logits.dtype) == ((3, 10), np.float32)
    assert torch.get_num_threads() == 1
    assert np.array_equal(logits, call(golden_images(bundle, 3)))


def test_every_sample_is_one_call() -> None:
    seen = []
    slice = time_calls(Call(lambda images: seen.append(len(images)) or images), IMAGES, seconds=60.0, calls=7)
    assert len(slice.seconds) == len(seen) == 7
    assert slice.device_seconds is None


def test_a_slice_ends_with_its_time_but_not_before_one_call() -> None:
    def slow(images: np.ndarray) -> np.ndarray:
        time.sleep(0.02)
        return images

    assert len(time_calls(Call(slow), IMAGES, seconds=0.0, calls=100).seconds) == 1
    seconds = time_calls(Call(slow), IMAGES, seconds=0.1, calls=100).seconds
    assert 1 <= len(seconds) <= 5
    assert all(second >= 0.02 for second in seconds)


def test_times_on_the_device_stand_beside_those_on_the_host() -> None:
    ticks = count(1)
    slice = time_calls(Call(lambda images: images, lambda: float(next(ticks))), IMAGES, seconds=60.0, calls=3)
    assert len(slice.seconds) == 3
    assert slice.device_seconds == [1.0, 2.0, 3.0]


def test_a_process_reports_what_starting_cost_and_times_what_is_requested(process: BackendProcess) -> None:
    start = process.cold_start
    assert min(start.import_ms, start.load_ms, start.first_call_ms) > 0
    assert start.total_ms == start.import_ms + start.load_ms + start.first_call_ms
    for batch in (1, 5, 1):
        slice = process.measure(batch, seconds=30.0, calls=3)
        assert len(slice.seconds) == 3
        assert min(slice.seconds) > 0


def test_a_process_is_pinned_to_as_many_cores_as_it_has_threads(process: BackendProcess) -> None:
    assert process.cold_start.pinned
    pid = process.pid
    assert pid is not None
    assert os.sched_getaffinity(pid) == {min(os.sched_getaffinity(0))}


def test_a_process_serves_arrivals_and_none_before_it_comes(process: BackendProcess) -> None:
    start = time.perf_counter()
    latencies = process.serve([0.0, 0.05, 0.1])
    assert time.perf_counter() - start >= 0.1
    assert len(latencies) == 3
    assert min(latencies) > 0


def test_a_process_that_fails_at_one_batch_goes_on_with_the_others(process: BackendProcess) -> None:
    with pytest.raises(BackendError, match=r"^ValueError: ") as failure:
        process.measure(-1, seconds=0.1, calls=1)
    assert "\n" not in str(failure.value)
    assert len(process.measure(2, seconds=30.0, calls=2).seconds) == 2


def test_a_process_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        BackendError, match=r"^.* is not a bundle: it has no manifest.json; `cnnbench export` writes one$"
    ):
        BackendProcess(setup_of(tmp_path))


def test_a_process_that_dies_is_an_error_and_not_a_wait(bundle: Path) -> None:
    with BackendProcess(setup_of(bundle)) as process:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(BackendError, match=r"^its process died \(SIGKILL\)$"):
                process.measure(1, seconds=0.1, calls=1)


def test_a_process_that_hangs_is_given_up(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with BackendProcess(setup_of(bundle)) as slow:
        monkeypatch.setattr(backends, "ANSWER_SECONDS", 0.2)
        with pytest.raises(BackendError, match=r"^gave no answer for 0.2 s$"):
            slow.serve([600.0])


def test_leaving_ends_the_process(bundle: Path) -> None:
    with BackendProcess(setup_of(bundle)) as process:
        pid = process.pid
    assert pid is not None
    assert gone(pid)


def test_a_process_ends_when_its_parent_is_killed(bundle: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from cnnbench.bench import plan
from cnnbench.bench.backends import BackendProcess
if __name__ == "__main__":
    (setup,) = plan.setups([{str(bundle)!r}], plan.LatencyOptions(backends=["onnxruntime"]))
    print(BackendProcess(setup).pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    script = Path("starts.py")
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert gone(int(done.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "torch-compile"])
def test_torch_runs_in_a_process_too(bundle: Path, backend: str) -> None:
    with BackendProcess(setup_of(bundle, backend=backend)) as process:
        lengths = {batch: len(process.measure(batch, seconds=60.0, calls=3).seconds) for batch in (1, 8)}
    assert lengths == {1: 3, 8: 3}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_on_a_gpu_torch_has_the_devices_own_times(bundle: Path, backend: str) -> None:
    with BackendProcess(setup_of(bundle, backend=backend, provider="cuda")) as process:
        slice = process.measure(8, seconds=60.0, calls=20)
    assert (slice.device_seconds is None) == (backend == "onnxruntime")
    for host, device in zip(slice.seconds, slice.device_seconds or slice.seconds, strict=True):
        assert 0 < device <= host
