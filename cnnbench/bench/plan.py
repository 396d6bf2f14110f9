"""What is to be measured, read from the command line and refused before anything is measured."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, get_args

from cnnbench import records
from cnnbench.bench import latency
from cnnbench.bench.processes import Setup
from cnnbench.bench.scenarios import SCENARIOS, Scenario
from cnnbench.records.schema import Manifest
from cnnbench.registry import hint
from cnnbench.types import CnnbenchError, Exit

Name = TypeVar("Name", bound=str)


def found_bundles(paths: Sequence[str]) -> list[Path]:
    """The bundles among `paths`; a folder of bundles stands for those in it.

    Files are passed over: in `exports/*` the shell names the latency record and the pictures, too.

    Raises:
        CnnbenchError: A folder is neither, nothing is left, or two are of one task (exit 3).
    """
    found = [bundle for path in paths if not Path(path).is_file() for bundle in _in(Path(path))]
    if not found:
        raise CnnbenchError(f"no bundle among {', '.join(paths)}; `cnnbench export` makes them", Exit.DATA)
    return list(dict.fromkeys(found))


def _in(path: Path) -> list[Path]:
    if (path / "manifest.json").is_file():
        return [path]
    within = latency.bundles(path)
    if not within:
        raise CnnbenchError(f"{path} is not a bundle: it has no manifest.json; `cnnbench export` makes one", Exit.DATA)
    return within


def setups(
    bundles: Sequence[Path], runtimes: str, precisions: str, provider: latency.Provider, threads: str
) -> list[Setup]:
    """Every engine that is asked for, in comma-separated lists. PyTorch has float32 alone.

    Raises:
        CnnbenchError: An unknown runtime, a bundle without that precision or of the same task as another, nothing to
            measure (exit 2), an edited bundle (exit 3 or 4), or more threads than cores (exit 6).
    """
    chosen_runtimes: list[latency.Runtime] = _names("--runtime", runtimes, get_args(latency.Runtime))
    chosen_precisions = list(dict.fromkeys(name.strip() for name in precisions.split(",")))
    counts = _threads(threads)
    manifests = {bundle: records.read(bundle / "manifest.json", Manifest) for bundle in bundles}
    _one_of_each_task(manifests)
    for bundle, manifest in manifests.items():
        for precision in chosen_precisions:
            _unedited(latency.file_of(bundle, manifest, precision), manifest)
    found = [
        Setup(bundle, manifest.task, runtime, precision, provider, count)
        for bundle, manifest in manifests.items()
        for runtime in chosen_runtimes
        for precision in chosen_precisions
        if precision == "fp32" or runtime == "onnxruntime"
        for count in counts
    ]
    if not found:
        raise CnnbenchError(
            f"--precision {precisions}: {runtimes} has fp32 alone; expected fp32, or onnxruntime with it"
        )
    return found


def require(provider: latency.Provider, setups: Sequence[Setup]) -> None:
    """Make sure that the provider works for every runtime.

    Raises:
        CnnbenchError: It does not (exit 6).
    """
    if provider == "cpu":
        return
    from cnnbench.runtime import providers

    providers.require(provider)
    if any(setup.runtime != "onnxruntime" for setup in setups):
        import torch

        if not torch.cuda.is_available():
            raise CnnbenchError("provider cuda cannot be used by torch here: it sees no CUDA device", Exit.ENVIRONMENT)


def numbers(flag: str, text: str) -> list[int]:
    """The whole numbers of a comma-separated list, each at least 1.

    Raises:
        CnnbenchError: It is none (exit 2).
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) >= 1 for part in parts):
        raise CnnbenchError(f"{flag} {text}: expected whole numbers from 1 on, such as 1,8,64")
    return sorted({int(part) for part in parts})


def scenarios(text: str, batches: Sequence[int], server_p99_ms: float | None) -> list[Scenario]:
    """The scenarios of a comma-separated list; none where it is empty.

    Raises:
        CnnbenchError: An unknown one, SingleStream without batch 1, or Server without its bound (exit 2).
    """
    chosen: list[Scenario] = _names("--scenario", text, SCENARIOS) if text else []
    if "SingleStream" in chosen and 1 not in batches:
        raise CnnbenchError("--scenario SingleStream is of single images: expected 1 in --batch")
    if "Server" in chosen and server_p99_ms is None:
        raise CnnbenchError("--scenario Server needs --server_p99_ms: what the 99th percentile may be")
    if server_p99_ms is not None and ("Server" not in chosen or not server_p99_ms > 0):
        raise CnnbenchError(f"--server_p99_ms {server_p99_ms:g}: expected milliseconds above 0, with --scenario Server")
    return chosen


def positive(flag: str, value: float) -> None:
    """Refuse what is not above zero and finite (exit 2)."""
    if not 0 < value < float("inf"):
        raise CnnbenchError(f"{flag} {value:g}: expected a number above 0")


def _names(flag: str, text: str, accepted: Sequence[Name]) -> list[Name]:
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in accepted:
            raise CnnbenchError(f"{flag} {name!r}: {hint(name, list(accepted))}")
    return [known for name in names for known in accepted if known == name]


def _threads(text: str) -> list[int]:
    counts = numbers("--threads", text)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if max(counts) > cores:
        raise CnnbenchError(f"--threads {max(counts)}: this process may use {cores} core(s)", Exit.ENVIRONMENT)
    return counts


def _unedited(file: Path, manifest: Manifest) -> None:
    if not file.is_file():
        raise CnnbenchError(f"{file} is missing: export the bundle again", Exit.DATA)
    if records.sha256(file) != manifest.files[file.name].sha256:
        raise CnnbenchError(
            f"{file} was edited: its hash is not the manifest's; `cnnbench verify` says more", Exit.VERDICT
        )


def _one_of_each_task(manifests: dict[Path, Manifest]) -> None:
    task, count = Counter(manifest.task for manifest in manifests.values()).most_common(1)[0]
    if count > 1:
        raise CnnbenchError(f"{count} bundles are of task {task}: expected one of each; --against compares two")
