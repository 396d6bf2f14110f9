"""The record of a measurement: a file of pytest-benchmark's, with every sample, that its own `compare` reads too."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import msgspec

from cnnbench import environment, records
from cnnbench.bench.interleave import CaseSamples, by_case
from cnnbench.bench.plan import Case, Setup
from cnnbench.bench.scenarios import ScenarioResult
from cnnbench.types import CnnbenchError, Exit

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


def write(
    path: Path,
    samples: Iterable[CaseSamples],
    *,
    scenarios: Sequence[ScenarioResult] = (),
    settings: Mapping[str, float],
) -> None:
    """Write the record, whole or not at all.

    Beside pytest-benchmark's own keys it holds `failed`, the processes that failed and why; `scenarios`; and
    `settings`, with which all was measured.

    Raises:
        CnnbenchError: The folder cannot be written (exit 2).
        ValueError: A number is not finite: JSON has none.
    """
    cases = by_case(samples)
    content = {
        "machine_info": _machine_info(any(case.setup.provider == "cuda" for case in cases)),
        "commit_info": _commit_info(),
        "benchmarks": [_benchmark(case, processes) for case, processes in cases.items() if _measured(processes)],
        "datetime": datetime.now(UTC).isoformat(),
        "version": version("pytest-benchmark"),
        "failed": [
            {"name": case.name, "process": index, "reason": process.failure}
            for case, processes in cases.items()
            for index, process in enumerate(processes)
            if process.failure
        ],
        "scenarios": [asdict(result) for result in scenarios],
        "settings": dict(settings),
    }
    with records.replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def extra_info(case: Case) -> dict[str, str | int]:
    """What a latency depends on, for the record beside the times."""
    setup = case.setup
    return {"task": setup.task, "arch": setup.arch, "model_sha256": setup.model_sha256, **_params(case)}


def _params(case: Case) -> dict[str, str | int]:
    setup = case.setup
    return {
        "backend": setup.backend,
        "precision": setup.precision,
        "provider": setup.provider,
        "batch": case.batch,
        "threads": setup.threads,
    }


def _measured(processes: Sequence[CaseSamples]) -> bool:
    return any(process.slices for process in processes)


def _machine_info(with_gpus: bool) -> dict[str, Any]:
    """pytest-benchmark's description of the machine without the name of the host, and the versions that matter."""
    from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info

    info: dict[str, Any] = pytest_benchmark_generate_machine_info()  # type: ignore[no-untyped-call]
    del info["node"]
    gpus = {"gpus": environment.gpus()} if with_gpus else {}
    return {**info, "packages": environment.versions(), **gpus}


def _commit_info() -> dict[str, Any]:
    """As pytest-benchmark calls it: `id` and `dirty`, of cnnbench's checkout."""
    commit = environment.commit()
    return {"id": commit.commit, "dirty": commit.dirty} if commit else {"id": version("cnnbench"), "dirty": False}


def _benchmark(case: Case, processes: Sequence[CaseSamples]) -> dict[str, Any]:
    """One case: the samples of its processes, one process after another, slice by slice."""
    from pytest_benchmark.stats import Metadata

    description = SimpleNamespace(
        name=case.name,
        fullname=case.name,
        group=case.setup.task,
        param=None,
        params=_params(case),
        extra_info={
            **extra_info(case),
            "images_per_call": case.batch,
            "processes": [_process(index, process) for index, process in enumerate(processes) if process.slices],
            **_on_device(case.setup, processes),
        },
        cprofile_stats=None,
    )
    options = {"disable_gc": True, "timer": "perf_counter_ns", "warmup": True}
    benchmark: Any = Metadata(description, 1, options)  # type: ignore[no-untyped-call]
    for process in processes:
        for seconds in process.seconds:
            benchmark.update(seconds)
    result: dict[str, Any] = benchmark.as_dict(include_data=True)
    return result


def _process(index: int, process: CaseSamples) -> dict[str, Any]:
    """One process of a case; `slices` are the numbers of samples in each round, by which `data` can be cut."""
    return {
        "index": index,
        "cold_start": asdict(process.cold_start) if process.cold_start else None,
        "slices": [len(slice.seconds) for slice in process.slices],
        "median_seconds": statistics.median(process.seconds),
    }


def _on_device(setup: Setup, processes: Sequence[CaseSamples]) -> dict[str, Any]:
    """Times on the device's own clock, sample by sample beside `data`; null with the reason where it has none."""
    seconds = [call for process in processes for call in process.device_seconds]
    if seconds:
        return {"device_seconds": seconds}
    reason = "the CPU is the host" if setup.provider == "cpu" else f"{setup.backend} gives no events of the device"
    return {"device_seconds": None, "device_seconds_reason": reason}


@dataclass(frozen=True)
class Machine:
    """What makes two latencies comparable; None where the record does not have it."""

    cpu: str | None
    cores: int | None
    system: str | None
    gpus: tuple[str, ...] | None

    def __str__(self) -> str:
        gpus = ", ".join(self.gpus or ())
        cores = f"{self.cores} cores" if self.cores else ""
        return ", ".join(part for part in (self.cpu, cores, self.system, gpus) if part)


@dataclass(frozen=True)
class LatencyCase:
    """Every call that was timed on one setup at one batch size."""

    task: str
    arch: str
    model_sha256: str
    """SHA-256 of the bundle's model.onnx, whatever the precision."""
    backend: str
    precision: str
    provider: str
    batch: int
    threads: int
    seconds: tuple[float, ...]
    """Seconds of each call: finite, above 0, never empty; of a collection the order statistics that it keeps."""
    process_medians: tuple[float, ...] = ()
    """Median seconds of each process that measured the case; empty where the record does not have them."""
    machine: Machine | None = None
    origin: str = ""
    """The file that it was read from: one run of `bench`."""
    calls: int = 0
    """How many calls were timed; `seconds` of a collection has fewer."""


@dataclass(frozen=True)
class LatencyRecord:
    """A latency file: its cases, the machine (None where the file does not describe one) and the packages' versions."""

    cases: tuple[LatencyCase, ...]
    machine: Machine | None
    packages: Mapping[str, str]


def mixed(cases: Sequence[LatencyCase]) -> str:
    """What a reader of one table of these latencies has to know; empty where all are of one run of `bench`."""
    machines = sorted({str(case.machine) if case.machine else "a machine that is not described" for case in cases})
    origins = sorted({case.origin for case in cases})
    if len(machines) > 1:
        return f"latencies of {len(machines)} machines do not compare: {'; '.join(machines)}"
    if len(origins) > 1:
        return (
            f"latencies of {len(origins)} runs of bench ({', '.join(origins)}): what changed on the machine between "
            "them is in the differences"
        )
    return ""


def read(path: Path) -> list[LatencyCase]:
    """Read the cases of a latency file. Raises as `read_record`."""
    return list(read_record(path).cases)


def read_record(path: Path) -> LatencyRecord:
    """Read a latency file, every value validated.

    Benchmarks of other programs, which name no model, are skipped.

    Raises:
        CnnbenchError: The file is missing or is not JSON, a value is missing, of another type or out of range, or it
            holds no latencies (exit 3).
    """
    content = records.read_json(path)
    try:
        file = msgspec.convert(content, _File)
        machine = _machine(file.machine_info)
        cases = tuple(
            replace(_case(benchmark), machine=machine, origin=str(path))
            for benchmark in file.benchmarks
            if "model_sha256" in benchmark.extra_info
        )
    except (msgspec.ValidationError, RecursionError) as error:
        raise CnnbenchError(f"{path} is not a record of latencies: {error}", Exit.DATA) from None
    if not cases:
        raise CnnbenchError(f"{path} holds no latencies; expected what `cnnbench bench` wrote", Exit.DATA)
    return LatencyRecord(cases, machine, file.machine_info.packages if file.machine_info else {})


class _Stats(msgspec.Struct, frozen=True):
    data: Annotated[tuple[Seconds, ...], msgspec.Meta(min_length=1)]
    rounds: Count = 1


class _Benchmark(msgspec.Struct, frozen=True):
    """One benchmark of any program: pytest-benchmark's `extra_info` says whose it is."""

    extra_info: dict[str, object] = {}
    stats: dict[str, object] = {}


class _Process(msgspec.Struct, frozen=True):
    median_seconds: Seconds


class _ExtraInfo(msgspec.Struct, frozen=True, kw_only=True):
    task: str
    arch: str
    model_sha256: str
    backend: str = ""
    runtime: str = ""
    """The backend, in records of earlier versions."""
    precision: str = "fp32"
    provider: str = "cpu"
    batch: Count
    threads: Count
    processes: tuple[_Process, ...] = ()


class _Cpu(msgspec.Struct, frozen=True):
    brand_raw: str | None = None
    count: int | None = None


class _MachineInfo(msgspec.Struct, frozen=True):
    cpu: _Cpu | None = None
    machine: str | None = None
    system: str | None = None
    gpus: tuple[str, ...] | None = None
    packages: dict[str, str] = {}


class _File(msgspec.Struct, frozen=True):
    benchmarks: tuple[_Benchmark, ...] = ()
    machine_info: _MachineInfo | None = None


def _case(benchmark: _Benchmark) -> LatencyCase:
    info = msgspec.convert(benchmark.extra_info, _ExtraInfo)
    stats = msgspec.convert(benchmark.stats, _Stats)
    seconds = stats.data
    medians = tuple(process.median_seconds for process in info.processes)
    if not info.backend + info.runtime:
        raise msgspec.ValidationError("Object missing required field `backend`")
    if not all(map(math.isfinite, (*seconds, *medians))):
        raise msgspec.ValidationError("a time is not finite")
    return LatencyCase(
        task=info.task,
        arch=info.arch,
        model_sha256=info.model_sha256,
        backend=info.backend or info.runtime,
        precision=info.precision,
        provider=info.provider,
        batch=info.batch,
        threads=info.threads,
        seconds=seconds,
        process_medians=medians,
        calls=max(stats.rounds, len(seconds)),
    )


def _machine(info: _MachineInfo | None) -> Machine | None:
    if info is None or info.cpu is None:
        return None
    return Machine(info.cpu.brand_raw or info.machine, info.cpu.count, info.system, info.gpus)
