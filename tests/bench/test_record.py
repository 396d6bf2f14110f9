"""The record: pytest-benchmark's own format, every sample in it."""

import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench_helpers import content, setup_of, taken

from cnnbench import environment
from cnnbench.bench import latency, record
from cnnbench.bench.interleave import Cell, Taken
from cnnbench.bench.processes import Setup
from cnnbench.types import CnnbenchError, Exit


@pytest.fixture
def setup(bundle: Path) -> Setup:
    return setup_of(bundle)


@pytest.fixture
def processes() -> list[Taken]:
    return [taken(1e-3, 2e-3, seed=1), taken(3e-3, seed=2)]


@pytest.fixture
def case(setup: Setup, processes: list[Taken]) -> dict[str, Any]:
    (found,) = content({Cell(setup, 8): processes})["benchmarks"]
    return dict(found)


def test_every_sample_is_there_and_can_be_cut_into_its_rounds(case: dict[str, Any], processes: list[Taken]) -> None:
    data = iter(case["stats"]["data"])
    for process, one in zip(case["extra_info"]["processes"], processes, strict=True):
        assert [[next(data) for _ in range(size)] for size in process["slices"]] == one.slices
        assert process["median_seconds"] == statistics.median(one.seconds)
        assert process["cold_start"] == {"import_ms": 30.0, "load_ms": 8.0, "first_call_ms": 2.0, "pinned": True}
    assert next(data, None) is None


def test_a_case_says_what_its_times_depend_on(case: dict[str, Any], setup: Setup) -> None:
    info = latency.extra_info(setup.bundle, "onnxruntime", 8, 1)
    assert {key: case["extra_info"][key] for key in info} == info
    assert case["name"] == "mnist5k_lenet5[onnxruntime-fp32-batch8-threads1]"
    assert case["group"] == "mnist5k_lenet5"
    assert case["extra_info"]["images_per_call"] == 8
    assert case["extra_info"]["device_seconds"] is None
    assert case["extra_info"]["device_seconds_reason"] == "the CPU is the host"


def test_its_statistics_are_those_of_the_samples(case: dict[str, Any]) -> None:
    stats = case["stats"]
    assert stats["rounds"] == len(stats["data"]) == 93
    assert stats["iterations"] == 1
    assert stats["median"] == statistics.median(stats["data"])
    assert stats["mean"] == pytest.approx(statistics.fmean(stats["data"]))


def test_times_on_the_device_stand_beside_the_samples(bundle: Path) -> None:
    one = taken(1e-3)
    one.device_slices = [[call / 2 for call in one.seconds]]
    (case,) = content({Cell(setup_of(bundle), 1): [one]})["benchmarks"]
    assert case["extra_info"]["device_seconds"] == [call / 2 for call in case["stats"]["data"]]


def test_a_cell_without_a_sample_is_listed_with_its_reason(setup: Setup, processes: list[Taken]) -> None:
    died, half = Taken(failed="its process died (SIGKILL)"), taken(1e-3)
    half.failed = "gave no answer for 900 s"
    found = content({Cell(setup, 1): [died], Cell(setup, 8): [*processes, half]})
    assert [case["extra_info"]["batch"] for case in found["benchmarks"]] == [8]
    assert [process["index"] for process in found["benchmarks"][0]["extra_info"]["processes"]] == [0, 1, 2]
    assert [(one["name"], one["process"], one["reason"]) for one in found["failed"]] == [
        (Cell(setup, 1).name, 0, died.failed),
        (Cell(setup, 8).name, 2, half.failed),
    ]


def test_the_machine_is_described_and_the_host_is_not_named(setup: Setup, processes: list[Taken]) -> None:
    found = content({Cell(setup, 1): processes})
    info = found["machine_info"]
    assert "node" not in info
    assert platform.node() not in [info.get(key) for key in info]
    assert info["system"] == platform.system()
    assert info["packages"] == environment.versions()


def test_the_commit_is_named_as_pytest_benchmark_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "commit", lambda: {"commit": "abc", "dirty": True})
    assert content({})["commit_info"] == {"id": "abc", "dirty": True}


def test_pytest_benchmark_reads_it(setup: Setup, processes: list[Taken], tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    record.write(path, content({Cell(setup, 1): processes, Cell(setup, 8): [taken(5e-3)]}))
    command = [str(Path(sys.executable).with_name("pytest-benchmark")), "compare", str(path), "--csv", "table.csv"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "mnist5k_lenet5[onnxruntime-fp32-batch1-threads1]" in done.stdout
    header, *rows = (line.split(",") for line in Path("table.csv").read_text().splitlines())
    medians = {row[header.index("param:batch")]: float(row[header.index("median")]) for row in rows}
    assert medians == {
        str(case["params"]["batch"]): pytest.approx(case["stats"]["median"])
        for case in json.loads(path.read_text())["benchmarks"]
    }


def test_what_is_no_json_is_never_written(setup: Setup, tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    record.write(path, content({}))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.write(path, {"benchmarks": [float("nan")]})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["latency.json"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(CnnbenchError, match="cannot write") as failure:
        record.write(tmp_path, {})
    assert failure.value.code == Exit.USAGE
