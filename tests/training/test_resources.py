"""Memory and energy: measured where the system tells them, None with the reason where it does not."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from cnnbench.training import process, resources
from cnnbench.training.resources import Meter

CPU = torch.device("cpu")
MIB = 2**20


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two processor packages and a part of the first, in files as the kernel shows them."""
    monkeypatch.setattr(resources, "POWERCAP", tmp_path)
    for name, microjoules in (("intel-rapl:0", 5_000_000), ("intel-rapl:1", 9_000_000), ("intel-rapl:0:0", 1)):
        (tmp_path / name).mkdir()
        count(tmp_path / name, microjoules)
        (tmp_path / name / "max_energy_range_uj").write_text("10000000\n")
    return tmp_path


def count(package: Path, microjoules: int) -> None:
    (package / "energy_uj").write_text(f"{microjoules}\n")


def test_energy_is_the_sum_of_the_packages_and_survives_a_counter_that_begins_anew(powercap: Path) -> None:
    meter = Meter(CPU)
    meter.start()
    count(powercap / "intel-rapl:0", 8_500_000)  # 3.5 J more
    count(powercap / "intel-rapl:1", 1_000_000)  # 1 J to the end of the range, and 1 J from its start
    count(powercap / "intel-rapl:0:0", 9_999_999)  # is within package 0
    spent = meter.read()
    assert spent.energy_joules == pytest.approx(3.5 + 2.0)
    assert spent.energy_kind == "RAPL, the whole processor package"


def test_a_counter_that_falls_without_a_range_gives_no_energy_but_the_reason(powercap: Path) -> None:
    for package in powercap.iterdir():
        (package / "max_energy_range_uj").unlink(missing_ok=True)
    meter = Meter(CPU)
    meter.start()
    count(powercap / "intel-rapl:0", 0)
    assert (meter.read().energy_joules, "decreased" in meter.read().energy_kind) == (None, True)


def test_without_counters_there_is_no_energy_but_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "POWERCAP", tmp_path / "none")
    meter = Meter(CPU)
    meter.start()
    spent = meter.read()
    assert spent.energy_joules is None
    assert spent.energy_kind.startswith("no RAPL counters")


def test_counters_that_only_root_may_read_give_no_energy_but_the_reason(
    powercap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_text = Path.read_text

    def guarded(path: Path) -> str:
        if path.name == "energy_uj":  # the tests may be root's, whom no file mode stops
            raise PermissionError(13, "Permission denied")
        return read_text(path)

    monkeypatch.setattr(Path, "read_text", guarded)
    meter = Meter(CPU)
    meter.start()
    spent = meter.read()
    assert spent.energy_joules is None
    assert spent.energy_kind == "RAPL counters cannot be read: Permission denied"


def test_a_counter_that_goes_away_on_the_way_gives_no_energy_but_the_reason(powercap: Path) -> None:
    meter = Meter(CPU)
    meter.start()
    (powercap / "intel-rapl:1").rename(powercap / "gone")
    spent = meter.read()
    assert spent.energy_joules is None
    assert spent.energy_kind == "the energy counters changed during training"


def linux() -> bool:
    return resources._reset_peak() is not None


@pytest.mark.skipif(not linux(), reason="this system does not let a process reset its peak memory")
def test_memory_is_the_peak_above_what_was_held_before() -> None:
    before = np.ones(96 * MIB, dtype=np.uint8)
    meter = Meter(CPU)
    meter.start()
    block = np.ones(64 * MIB, dtype=np.uint8)
    del block  # the peak stays
    taken = meter.read()
    assert taken.memory_bytes is not None
    # what other threads and the allocator give back meanwhile is missing from the peak: 2 MiB were seen
    assert 64 * MIB * 0.9 <= taken.memory_bytes < 64 * MIB + len(before)
    assert taken.memory_kind == "resident memory of the process"


@pytest.mark.skipif(not linux(), reason="this system does not let a process reset its peak memory")
def test_what_validation_takes_is_not_training_s_memory() -> None:
    meter = Meter(CPU)
    meter.start()
    np.ones(32 * MIB, dtype=np.uint8)
    meter.pause()
    np.ones(256 * MIB, dtype=np.uint8)
    meter.resume()
    taken = meter.read()
    assert taken.memory_bytes is not None
    assert 32 * MIB * 0.9 <= taken.memory_bytes < 128 * MIB


FREED_BEFORE = f"""
from cnnbench.training import process
process.prepare()
import torch
from cnnbench.training.resources import Meter
piece = 10 * {MIB}
before = [torch.ones(piece, dtype=torch.uint8) for _ in range(30)]
del before
meter = Meter(torch.device("cpu"))
meter.start()
taken = [torch.ones(piece, dtype=torch.uint8) for _ in range(10)]
print(meter.read().memory_bytes)
"""


def test_what_was_freed_before_is_given_back_before_the_peak_is_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "status").write_text("VmRSS:\t7 kB\n")
    monkeypatch.setattr(resources, "PROCESS", tmp_path)
    reset: list[bool] = []
    monkeypatch.setattr(process, "release_freed_memory", lambda: reset.append((tmp_path / "clear_refs").exists()))
    Meter(CPU).start()
    assert reset == [False]
    assert (tmp_path / "clear_refs").exists()


@pytest.mark.slow
@pytest.mark.skipif(not linux(), reason="this system does not let a process reset its peak memory")
def test_memory_that_was_freed_before_does_not_hide_what_training_takes() -> None:
    done = subprocess.run([sys.executable, "-c", FREED_BEFORE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert 98 * MIB <= int(done.stdout) < 150 * MIB


def test_a_system_without_proc_tells_no_memory_but_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "PROCESS", tmp_path / "none")
    meter = Meter(CPU)
    meter.start()
    taken = meter.read()
    assert taken.memory_bytes is None
    assert taken.memory_kind == "this system does not report the peak memory of a process"


class Gpu:
    """A GPU as torch and NVML show it; `millijoules` and bytes are what the test says."""

    uuid = "11111111-2222-3333-4444-555555555555"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.millijoules, self.held, self.peak, self.broken = 7_000, 100, 0, ""
        self.asked = ""
        nvml = ModuleType("pynvml")
        nvml.NVMLError = type("NVMLError", (Exception,), {})  # type: ignore[attr-defined]
        nvml.nvmlInit = lambda: None  # type: ignore[attr-defined]
        nvml.nvmlDeviceGetHandleByUUID = self.handle  # type: ignore[attr-defined]
        nvml.nvmlDeviceGetTotalEnergyConsumption = lambda _: self.millijoules  # type: ignore[attr-defined]
        self.nvml = nvml
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: setattr(self, "peak", self.held))
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: self.held)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: self.peak)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid=self.uuid))

    def handle(self, uuid: str) -> object:
        self.asked = uuid
        if self.broken:
            raise self.nvml.NVMLError(self.broken)
        return object()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return Gpu(monkeypatch)


def test_on_a_gpu_nvml_counts_the_energy_and_torch_the_memory(gpu: Gpu) -> None:
    gpu.peak = 5_000  # of something before
    meter = Meter(torch.device("cuda", 1))
    meter.start()
    gpu.millijoules, gpu.peak = 9_500, 1_300
    taken = meter.read()
    assert (taken.energy_joules, taken.energy_kind) == (pytest.approx(2.5), "NVML, the whole GPU")
    assert (taken.memory_bytes, taken.memory_kind) == (1_300 - 100, "allocated by torch on the GPU")
    assert gpu.asked == f"GPU-{gpu.uuid}"


def test_a_gpu_that_counts_no_energy_gives_none_but_the_reason(gpu: Gpu) -> None:
    gpu.broken = "Not Supported"
    meter = Meter(torch.device("cuda"))
    meter.start()
    taken = meter.read()
    assert taken.energy_joules is None
    assert taken.energy_kind == "NVML does not count this GPU's energy: Not Supported"
