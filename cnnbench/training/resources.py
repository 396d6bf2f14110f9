"""Memory and energy of training: measured, or None with the reason."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from cnnbench.records.schema import Resources
from cnnbench.training import process

PROCESS = Path("/proc/self")
POWERCAP = Path("/sys/class/powercap")


@dataclass
class Meter:
    """Measures memory and energy from `start`, before the first step, to `read`, after the last one.

    Memory on the CPU is the process's peak resident memory (Linux counts it, and lets a process reset it), on a GPU
    what torch allocated; both above what was in use before, without validation between `pause` and `resume`. Energy is
    counted by the hardware: NVML on the GPU that is trained on, else RAPL on the processor packages. It is never
    estimated.
    """

    device: torch.device
    memory_before: int | None = None
    joules: dict[str, float] | None = None
    missing: str = field(default="", init=False)
    peak: int = field(default=0, init=False)
    """Highest memory until the last pause."""

    def start(self) -> None:
        """Note the memory and energy used so far."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.memory_before = torch.cuda.memory_allocated(self.device)
        else:
            self.memory_before = _reset_peak()
        self.joules, self.missing = self._counters()

    def pause(self) -> None:
        """Note the peak so far: what follows, until `resume`, is not training."""
        self.peak = max(self.peak, self._current_peak() or 0)

    def resume(self) -> None:
        """Count the memory of training again."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self.memory_before is not None:
            _reset_peak()

    def read(self) -> Resources:
        """Memory and energy used since `start`."""
        memory, memory_kind = self._memory()
        energy, energy_kind = self._energy()
        return Resources(memory, memory_kind, energy, energy_kind)

    def _memory(self) -> tuple[int | None, str]:
        peak = self._current_peak()
        if self.memory_before is None or peak is None:
            return None, "this system does not report the peak memory of a process"
        kind = "allocated by torch on the GPU" if self.device.type == "cuda" else "resident memory of the process"
        return max(0, peak - self.memory_before, self.peak - self.memory_before), kind

    def _current_peak(self) -> int | None:
        """The highest memory since the last reset."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else _status("VmHWM")

    def _energy(self) -> tuple[float | None, str]:
        if self.joules is None:
            return None, self.missing
        after, missing = self._counters()
        if after is None or after.keys() != self.joules.keys():
            return None, missing or "the energy counters changed during training"
        spent = sum((after[name] - self.joules[name]) % _range(name) for name in after)
        if spent == float("inf"):
            return None, "an energy counter decreased, and its range is unknown"
        return spent, "NVML, the whole GPU" if self.device.type == "cuda" else "RAPL, the whole processor package"

    def _counters(self) -> tuple[dict[str, float] | None, str]:
        return _nvml(self.device.index or 0) if self.device.type == "cuda" else _rapl()


def _status(name: str) -> int | None:
    """A line of Linux's account of this process, in bytes."""
    with suppress(OSError):
        for line in (PROCESS / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def _reset_peak() -> int | None:
    """Let the peak start from what is in use now; that many bytes."""
    process.release_freed_memory()  # else training would take what was freed before it, and seem to take nothing
    try:
        (PROCESS / "clear_refs").write_text("5")  # proc(5): resets the peak resident set size
    except OSError:
        return None
    return _status("VmRSS")


def _rapl() -> tuple[dict[str, float] | None, str]:
    """Joules of each processor package, as the kernel's powercap counts them."""
    packages = sorted(POWERCAP.glob("intel-rapl:?"))  # AMD's packages are found under the same name
    if not packages:
        return None, "no RAPL counters: this machine, or its virtual machine, shows none"
    try:
        return {str(path): int((path / "energy_uj").read_text()) / 1e6 for path in packages}, ""
    except OSError as error:
        return None, f"RAPL counters cannot be read: {os.strerror(error.errno or 0)}"  # root alone, since 2020


def _range(name: str) -> float:
    """Joules after which a counter restarts from 0; infinite where that is unknown, and for NVML, which does not."""
    with suppress(OSError):
        return int((Path(name) / "max_energy_range_uj").read_text()) / 1e6
    return float("inf")


def _nvml(index: int) -> tuple[dict[str, float] | None, str]:
    """Joules of one GPU since its driver was loaded."""
    import pynvml

    try:
        pynvml.nvmlInit()
        identity = f"GPU-{torch.cuda.get_device_properties(index).uuid}"  # NVML does not heed CUDA_VISIBLE_DEVICES
        device = pynvml.nvmlDeviceGetHandleByUUID(identity)
        return {identity: pynvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1e3}, ""
    except pynvml.NVMLError as error:
        return None, f"NVML does not count this GPU's energy: {error}"
