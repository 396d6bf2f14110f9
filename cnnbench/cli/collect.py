"""`collect`: the small records of runs, bundles and latencies, to keep in a repository and to compare from there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from cnnbench import records
from cnnbench.records.schema import Failure, Manifest, RunRecord
from cnnbench.tables.gather import Run, files_below, gather
from cnnbench.types import CnnbenchError, Exit


def collect(paths: list[str], out: str = "results") -> int:
    """Copy the records of runs and bundles, without weights, predictions and the machine's paths.

    What lies in the folder already stays, unless the same run or bundle is collected again.

    Args:
        paths: Folders of runs and bundles, and latency files of `bench`.
        out: The folder; `compare`, `choose` and `report` read it like any other.
    """
    found, target = gather(paths), Path(out)
    for run in found.runs:
        folder = target / run.record.task / f"seed{run.record.seed}"
        _refuse_other(folder / "result.json", run)
        records.write(folder / "result.json", without_places(run.record))
        (folder / "failure.json").unlink(missing_ok=True)
        if run.robustness:
            records.write(folder / "robustness.json", run.robustness)
    for failure in found.failures:
        folder = target / failure.task / f"seed{failure.seed}"
        if not (folder / "result.json").is_file():  # it succeeded at another time
            records.write(folder / "failure.json", _anonymous(failure))
    files = [file for path in paths for file in files_below(Path(path))]
    for file in files:
        if file.name == "manifest.json":
            manifest = records.read(file, Manifest)
            _copy(file, target / manifest.task / "manifest.json")
        elif file.name.startswith("latency"):
            _copy(file, target / file.name)
    kept = [file for file in target.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in kept)
    print(f"{target}: {len(found.runs)} runs and {len(found.bundles)} bundles; {len(kept)} files, {size / 1e6:.2f} MB")
    return Exit.OK


def without_places(record: RunRecord) -> RunRecord:
    """A record that names no folder of the machine it was made on."""
    nowhere = {"root": None, "folder": None}
    config = records.replace(record.config, data=records.replace(record.config.data, **nowhere))
    return records.replace(record, data=records.replace(record.data, **nowhere), config=config)


def _anonymous(failure: Failure) -> Failure:
    """Without the part of the reason that names a log file."""
    return records.replace(failure, reason=failure.reason.split("; see ")[0])


def _refuse_other(file: Path, run: Run) -> None:
    """Two runs of one name are one run only if their records are the same."""
    if not file.is_file():
        return
    other = records.read(file, RunRecord)
    if other != without_places(run.record):
        raise CnnbenchError(
            f"{file} is of another run than {run.folder}: remove it, or collect into another folder", Exit.DATA
        )


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with records.replacing(target) as partial:
        shutil.copyfile(file, partial)
        json.loads(partial.read_text())  # half a record is not passed on
