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
from cnnbench.records.schema import Commit
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
    monkeypatch.setattr(environment, "commit", lambda: Commit("abc", dirty=True))
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


COMMITTED = Path(__file__).parents[2] / "results" / "latency.json"


def test_a_committed_record_is_read_whole() -> None:
    benchmarks = json.loads(COMMITTED.read_text())["benchmarks"]
    cases = record.read(COMMITTED)
    assert len(cases) == len(benchmarks)
    for case, benchmark in zip(cases, benchmarks, strict=True):
        info = benchmark["extra_info"]
        assert case.backend == info["runtime"]  # its name in records of earlier versions
        for key in ("task", "arch", "model_sha256", "precision", "provider", "batch", "threads"):
            assert getattr(case, key) == info[key]
        assert list(case.seconds) == benchmark["stats"]["data"]
        assert list(case.process_medians) == [process["median_seconds"] for process in info["processes"]]


def test_what_is_written_is_read_back(setup: Setup, processes: list[Taken]) -> None:
    record.write(Path("latency.json"), content({Cell(setup, 8): processes}))
    (case,) = record.read(Path("latency.json"))
    assert (case.task, case.backend, case.precision, case.provider) == (setup.task, "onnxruntime", "fp32", "cpu")
    assert (case.batch, case.threads) == (8, 1)
    assert list(case.seconds) == [seconds for process in processes for seconds in process.seconds]
    assert case.process_medians == pytest.approx([statistics.median(process.seconds) for process in processes])


INFO = {"task": "t", "arch": "a", "model_sha256": "0", "backend": "torch", "batch": 1, "threads": 1}


def case_with(stats: Any, **changes: Any) -> dict[str, Any]:
    """A file of one case."""
    return {"benchmarks": [{"extra_info": {**INFO, **changes}, "stats": stats}]}


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -float("inf"), -1e-3, 0, 10**400, "0.001", None, True])
def test_a_time_that_cannot_be_one_is_refused(seconds: Any) -> None:
    assert_refused(case_with({"data": [1e-3, seconds]}))
    assert_refused(case_with({"data": [1e-3]}, processes=[{"median_seconds": seconds}]))


@pytest.mark.parametrize(
    "damaged",
    [
        {},
        {"benchmarks": 5},
        {"benchmarks": ["a"]},
        {"benchmarks": []},
        {"benchmarks": [{"extra_info": [], "stats": {}}]},
        {"benchmarks": [{"extra_info": {"group": "of another program"}, "stats": {"data": [1.0]}}]},
        case_with({"data": []}),
        case_with({"median": 1e-3}),
        case_with(None),
        case_with({"data": [1e-3]}, batch=0),
        case_with({"data": [1e-3]}, threads="1"),
        case_with({"data": [1e-3]}, backend=""),
        case_with({"data": [1e-3]}, task=5),
        {**case_with({"data": [1e-3]}), "machine_info": {"cpu": "x"}},
    ],
)
def test_a_damaged_record_is_refused_in_one_line(damaged: dict[str, Any]) -> None:
    assert_refused(damaged)


def assert_refused(damaged: dict[str, Any]) -> None:
    Path("damaged.json").write_text(json.dumps(damaged))
    with pytest.raises(CnnbenchError, match=r"^damaged\.json (is not a record of|holds no) latencies[:;] ") as failure:
        record.read(Path("damaged.json"))
    assert failure.value.code == Exit.DATA
    assert "\n" not in str(failure.value)


def test_benchmarks_of_other_programs_are_skipped() -> None:
    mixed = case_with({"data": [1e-3]})
    mixed["benchmarks"].insert(0, {"extra_info": {}, "stats": {"data": ["anything"]}})
    Path("mixed.json").write_text(json.dumps(mixed))
    (case,) = record.read(Path("mixed.json"))
    assert case.seconds == (1e-3,)
    assert record.read_record(Path("mixed.json")).machine is None
