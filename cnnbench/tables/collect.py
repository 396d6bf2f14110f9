"""The small records of runs, bundles and latencies, copied to be kept in a repository and compared from there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnbench import records
from cnnbench.bundles.manifest import read_export
from cnnbench.records.schema import Failure, RunRecord
from cnnbench.tables.gather import Records, Run, gather, record_files
from cnnbench.types import CnnbenchError, Exit

KEPT_CALLS = 200
"""Of the timed calls of a case: order statistics at even distances, which have its median and its p90."""


@dataclass(frozen=True)
class Collected:
    """What was copied, and what the folder holds now."""

    out: Path
    runs: int
    bundles: int
    files: int
    bytes: int


def collect_records(paths: str | Path | Sequence[str | Path], *, out: str | Path) -> Collected:
    """Copy the records of runs, bundles and latencies into a folder, without paths of the machine.

    Of the calls of a latency `KEPT_CALLS` stay; the number of calls and the median of each process are as measured.

    Raises:
        CnnbenchError: There are no records, one cannot be read, or the folder has another run of the same name
            (exit 3).
    """
    out = Path(out)
    gathered = gather(paths)
    _copy_runs(gathered, out)
    for file in record_files(paths):
        if file.name == "manifest.json":
            _copy(file, out / read_export(file).task / file.name)
        elif file.name.startswith("latency"):
            _copy_latency(file, out / file.name)
    sizes = [file.stat().st_size for file in out.rglob("*") if file.is_file()]
    return Collected(out, len(gathered.runs), len(gathered.bundles), len(sizes), sum(sizes))


def without_paths(record: RunRecord) -> RunRecord:
    """A record that names no folder of the machine it was made on."""
    no_paths = {"root": None, "folder": None}
    config = records.replace(record.config, data=records.replace(record.config.data, **no_paths))
    return records.replace(record, data=records.replace(record.data, **no_paths), config=config)


def _copy_runs(gathered: Records, out: Path) -> None:
    for run in gathered.runs:
        folder = out / run.record.task / f"seed{run.record.seed}"
        _check_same_run(folder / "result.json", run)
        records.write(folder / "result.json", without_paths(run.record), indent=None)
        (folder / "failure.json").unlink(missing_ok=True)
        if run.robustness:
            records.write(folder / "robustness.json", run.robustness, indent=None)
    for failure in gathered.failures:
        folder = out / failure.task / f"seed{failure.seed}"
        if not (folder / "result.json").is_file():  # else it succeeded at another time
            records.write(folder / "failure.json", _without_log(failure))


def _without_log(failure: Failure) -> Failure:
    return records.replace(failure, log="")


def _check_same_run(file: Path, run: Run) -> None:
    """Two runs of one name are one run only if their records are the same. Raises CnnbenchError (exit 3)."""
    if file.is_file() and records.read(file, RunRecord) != without_paths(run.record):
        raise CnnbenchError(
            f"{file} is of another run than {run.folder}: remove it, or collect into another folder", Exit.DATA
        )


def _copy(file: Path, target: Path) -> None:
    with records.replacing(target) as partial:
        shutil.copyfile(file, partial)
        json.loads(partial.read_text())  # a half-written record is not copied


def _copy_latency(file: Path, target: Path) -> None:
    content = records.read_json(file)
    ours = [benchmark for benchmark in content["benchmarks"] if "model_sha256" in benchmark.get("extra_info", {})]
    for benchmark in ours:
        stats, info = benchmark["stats"], benchmark["extra_info"]
        stats.setdefault("rounds", len(stats["data"]))  # pytest-benchmark's word for the number of calls
        stats["data"] = _order_statistics(stats["data"])
        if info.get("device_seconds"):
            info["device_seconds"] = _order_statistics(info["device_seconds"])
        for process in info.get("processes", []):
            process.pop("slices", None)  # they count the calls of `data`
    with records.replacing(target) as partial:
        partial.write_text(json.dumps(content) + "\n")


def _order_statistics(times: list[float]) -> list[float]:
    """`KEPT_CALLS` of them at even distances, the lowest first; all in their order where they are no more."""
    if len(times) <= KEPT_CALLS:
        return times
    ordered = sorted(times)
    return [ordered[int((place + 0.5) * len(times) / KEPT_CALLS)] for place in range(KEPT_CALLS)]
