"""What is to be measured: bundles and options become setups, or are refused before anything is measured."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from cnnbench import extras, records
from cnnbench.arguments import check_fields
from cnnbench.bundles.manifest import is_bundle, open_manifest, require_bundle
from cnnbench.records.bundle import Manifest
from cnnbench.registry import hint
from cnnbench.runtime import openvino_session
from cnnbench.types import CnnbenchError, Exit

Provider = Literal["cpu", "cuda"]
FILE_BACKENDS = ("onnxruntime", "openvino")
"""Those that run the bundle's files, of any precision; the others rebuild the network, in fp32."""
BACKENDS = ("torch", "torch-compile", *FILE_BACKENDS)
SCENARIOS = ("SingleStream", "Offline", "Server")
DEFAULT_BACKENDS = ("torch", "onnxruntime") if find_spec("torch") else ("onnxruntime",)
"""torch where it is installed; torch-compile takes most of a minute to start, so it is measured only on request."""


@dataclass(frozen=True)
class Setup:
    """What one process runs: everything a latency depends on except the batch."""

    bundle: Path
    task: str
    arch: str
    model_sha256: str
    """SHA-256 of the bundle's model.onnx, whatever the precision."""
    backend: str
    precision: str
    provider: Provider
    threads: int

    @property
    def name(self) -> str:
        return f"{self.kind}-threads{self.threads}"

    @property
    def kind(self) -> str:
        """The name without the threads."""
        return f"{self.backend}-{self.precision}{'' if self.provider == 'cpu' else f'-{self.provider}'}"


@dataclass(frozen=True)
class Case:
    """One setup at one batch size."""

    setup: Setup
    batch: int

    @property
    def name(self) -> str:
        return f"{self.setup.task}[{self.setup.kind}-batch{self.batch}-threads{self.setup.threads}]"


def _known(flag: str, names: Sequence[str], accepted: Sequence[str]) -> list[str]:
    """The names without repetition, each of which is accepted."""
    for name in names:
        if name not in accepted:
            raise CnnbenchError(f"{flag} {name!r}: {hint(name, list(accepted))}")
    return list(dict.fromkeys(names))


def _joined(values: Sequence[object]) -> str:
    return ",".join(map(str, values))


@dataclass(frozen=True, kw_only=True)
class LatencyOptions:
    """What every bundle is measured on, and for how long. Batch sizes and thread counts are sorted and made unique.

    Args:
        backends: Libraries that run the network.
        precisions: Files of the bundles to measure; torch has fp32 only.
        provider: Where the network runs.
        threads: Threads per process; it is pinned to as many cores.
        batches: Images per call.
        seconds: Time in calls per case.
        seed: Seed of the order of turns and of the arrivals.

    Raises:
        CnnbenchError: A name is unknown, a number is out of range, or a value is of another type (exit 2).
    """

    backends: Sequence[str] = DEFAULT_BACKENDS
    precisions: Sequence[str] = ("fp32",)
    provider: Provider = "cpu"
    threads: Sequence[int] = (1,)
    batches: Sequence[int] = (1, 8, 64)
    seconds: float = 5.0
    seed: int = 1

    def __post_init__(self) -> None:
        check_fields(self)
        for flag, names in (("--backend", self.backends), ("--precision", self.precisions)):
            if not names:
                raise CnnbenchError(f"{flag}: expected at least one name")
        for flag, numbers in (("--batch", self.batches), ("--threads", self.threads)):
            if not numbers or min(numbers) < 1:
                raise CnnbenchError(f"{flag} {_joined(numbers)}: expected whole numbers from 1 on, such as 1,8,64")
        if not 0 < self.seconds < float("inf"):
            raise CnnbenchError(f"--seconds {self.seconds:g}: expected a number above 0")
        object.__setattr__(self, "backends", _known("--backend", self.backends, BACKENDS))
        object.__setattr__(self, "batches", sorted(set(self.batches)))
        object.__setattr__(self, "threads", sorted(set(self.threads)))


DEFAULT_OPTIONS = LatencyOptions()


def setups(paths: Sequence[str | Path], options: LatencyOptions) -> list[Setup]:
    """Every setup of the bundles at `paths`, by bundle. torch has fp32 only.

    Raises:
        CnnbenchError: Two bundles are of one task, a bundle has no file of a precision, nothing is left to measure
            (exit 2), there is no bundle (exit 3), a file is missing or was edited (exit 3 or 4), or the provider or as
            many cores are not available (exit 6).
    """
    bundles = find_bundles(paths)
    _require_cores(max(options.threads))
    manifests = {bundle: open_manifest(bundle) for bundle in bundles}
    _require_different_tasks(list(manifests.values()))
    for bundle, manifest in manifests.items():
        for precision in dict.fromkeys(options.precisions):
            _require_unedited(_file_of(bundle, manifest, precision), manifest)
    planned = [setup for bundle, manifest in manifests.items() for setup in _setups(bundle, manifest, options)]
    if not planned:
        raise CnnbenchError(
            f"--precision {_joined(options.precisions)}: {_joined(options.backends)} has fp32 only; expected fp32, or "
            f"{' or '.join(FILE_BACKENDS)} in --backend"
        )
    _require_provider(planned)
    return planned


def _setups(bundle: Path, manifest: Manifest, options: LatencyOptions) -> list[Setup]:
    return [
        Setup(
            bundle=bundle,
            task=manifest.task,
            arch=manifest.arch,
            model_sha256=manifest.files["model.onnx"].sha256,
            backend=backend,
            precision=precision,
            provider=options.provider,
            threads=threads,
        )
        for backend in options.backends
        for precision in dict.fromkeys(options.precisions)
        if precision == "fp32" or backend in FILE_BACKENDS
        for threads in options.threads
    ]


def find_bundles(paths: Sequence[str | Path]) -> list[Path]:
    """The bundles at `paths`, without repetition; a folder of bundles stands for those in it.

    Files are skipped: in `exports/*` the shell also names the latency record and the pictures.

    Raises:
        CnnbenchError: A folder is not a bundle and holds none, or there is no folder (exit 3).
    """
    bundles = [bundle for path in paths if not Path(path).is_file() for bundle in _bundles_at(Path(path))]
    if not bundles:
        raise CnnbenchError(
            f"no bundle among {', '.join(map(str, paths))}; `cnnbench export` writes bundles", Exit.DATA
        )
    return list(dict.fromkeys(bundles))


def _bundles_at(path: Path) -> list[Path]:
    bundles = [] if is_bundle(path) else bundles_in(path)
    return bundles or [require_bundle(path)]


def bundles_in(folder: Path) -> list[Path]:
    """The bundles directly in `folder`, by name."""
    return sorted(path.parent for path in folder.glob("*/manifest.json"))


def model_file(bundle: Path, *, precision: str) -> Path:
    """The bundle's ONNX file of a precision.

    Raises:
        CnnbenchError: It has none (exit 2), or the manifest cannot be read (exit 3).
    """
    return _file_of(bundle, open_manifest(bundle), precision)


def _file_of(bundle: Path, manifest: Manifest, precision: str) -> Path:
    name = next((entry.file for entry in manifest.kept if entry.precision == precision), None)
    if name is None:
        raise CnnbenchError(f"{bundle} holds no {precision} model: it was not exported, or export refused it")
    return bundle / name


def scenarios(names: Sequence[str], *, batches: Sequence[int], server_p99_ms: float | None) -> list[str]:
    """The scenarios to measure, without repetition.

    Raises:
        CnnbenchError: A name is unknown, SingleStream comes without batch 1, or Server without its bound (exit 2).
    """
    chosen = _known("--scenario", names, SCENARIOS)
    if "SingleStream" in chosen and 1 not in batches:
        raise CnnbenchError("--scenario SingleStream measures single images: expected 1 in --batch")
    if "Server" in chosen and server_p99_ms is None:
        raise CnnbenchError("--scenario Server needs --server-p99, a bound on the 99th percentile, such as 10ms")
    if server_p99_ms is not None and ("Server" not in chosen or not 0 < server_p99_ms < float("inf")):
        raise CnnbenchError(f"--server-p99 {server_p99_ms:g}ms: expected more than 0ms, with --scenario Server")
    return chosen


def _require_provider(planned: Sequence[Setup]) -> None:
    provider = planned[0].provider
    if any(setup.backend == "openvino" for setup in planned):
        openvino_session.require(provider)
    if beside := [setup.backend for setup in planned if setup.backend not in FILE_BACKENDS]:
        extras.require(f"--backend {beside[0]}", "torch")
    if provider == "cpu":
        return
    from cnnbench.runtime import providers

    providers.require(provider)
    if beside:
        import torch

        if not torch.cuda.is_available():
            raise CnnbenchError("provider cuda cannot be used by torch here: it sees no CUDA device", Exit.ENVIRONMENT)


def _require_cores(threads: int) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads > cores:
        raise CnnbenchError(f"--threads {threads}: this process may use {cores} core(s)", Exit.ENVIRONMENT)


def _require_unedited(file: Path, manifest: Manifest) -> None:
    if not file.is_file():
        raise CnnbenchError(f"{file} is missing: export the bundle again", Exit.DATA)
    if records.sha256(file) != manifest.files[file.name].sha256:
        raise CnnbenchError(
            f"{file} was edited: its hash is not the manifest's; `cnnbench verify` says more", Exit.VERDICT
        )


def _require_different_tasks(manifests: Sequence[Manifest]) -> None:
    task, count = Counter(manifest.task for manifest in manifests).most_common(1)[0]
    if count > 1:
        raise CnnbenchError(f"{count} bundles are of task {task}: expected one per task; --against compares two")
