"""The record: pytest-benchmark's own format, every sample in it."""

import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench_helpers import case_of, samples, written

from cnnbench import environment, records
from cnnbench.bench import plan, record
from cnnbench.bench.backends import Slice
from cnnbench.bench.interleave import CaseSamples
from cnnbench.bench.plan import Case, LatencyOptions
from cnnbench.records.schema import Commit
from cnnbench.types import CnnbenchError, Exit

CASE = case_of(8)


@pytest.fixture
def processes() -> list[CaseSamples]:
    return [samples(CASE, 1e-3, 2e-3, seed=1), samples(CASE, 3e-3, seed=2)]


@pytest.fixture
def benchmark_of(processes: list[CaseSamples]) -> dict[str, Any]:
    (entry,) = written(processes)["benchmarks"]
    return dict(entry)


def test_every_sample_is_there_and_can_be_cut_into_its_rounds(
    benchmark_of: dict[str, Any], processes: list[CaseSamples]
) -> None:
    data = iter(benchmark_of["stats"]["data"])
    for entry, process in zip(benchmark_of["extra_info"]["processes"], processes, strict=True):
        rounds = [[next(data) for _ in range(size)] for size in entry["slices"]]
        assert rounds == [slice.seconds for slice in process.slices]
        assert entry["median_seconds"] == statistics.median(process.seconds)
        assert entry["cold_start"] == {
            "import_ms": 30.0,
            "load_ms": 8.0,
            "first_call_ms": 2.0,
            "pinned": True,
            "settings": {"INFERENCE_PRECISION_HINT": "f32"},
        }
    assert next(data, None) is None


def test_a_case_has_what_its_times_depend_on(benchmark_of: dict[str, Any]) -> None:
    info = benchmark_of["extra_info"]
    assert {key: info[key] for key in record.extra_info(CASE)} == record.extra_info(CASE)
    assert benchmark_of["params"].items() <= info.items()
    assert benchmark_of["name"] == "mnist5k_lenet5[onnxruntime-fp32-batch8-threads1]"
    assert benchmark_of["group"] == "mnist5k_lenet5"
    assert info["images_per_call"] == 8
    assert info["device_seconds"] is None
    assert info["device_seconds_reason"] == "the CPU is the host"


def test_the_record_names_the_very_file_and_all_that_a_time_depends_on(bundle: Path) -> None:
    (setup,) = plan.setups([bundle], LatencyOptions(backends=["torch"]))
    assert record.extra_info(Case(setup, 64)) == {
        "task": "mnist5k_lenet5",
        "arch": "lenet5",
        "model_sha256": records.sha256(bundle / "model.onnx"),
        "backend": "torch",
        "precision": "fp32",
        "provider": "cpu",
        "batch": 64,
        "threads": 1,
    }


def test_its_statistics_are_those_of_the_samples(benchmark_of: dict[str, Any]) -> None:
    stats = benchmark_of["stats"]
    assert stats["rounds"] == len(stats["data"]) == 93
    assert stats["iterations"] == 1
    assert stats["median"] == statistics.median(stats["data"])
    assert stats["mean"] == pytest.approx(statistics.fmean(stats["data"]))


def test_times_on_the_device_stand_beside_the_samples() -> None:
    process = CaseSamples(CASE, slices=[Slice([2e-3, 4e-3], [1e-3, 2e-3])])
    (entry,) = written([process])["benchmarks"]
    assert entry["stats"]["data"] == [2e-3, 4e-3]
    assert entry["extra_info"]["device_seconds"] == [1e-3, 2e-3]


def test_a_process_that_failed_is_listed_with_its_reason(processes: list[CaseSamples]) -> None:
    died, half = CaseSamples(case_of(1), failure="its process died (SIGKILL)"), samples(CASE, 1e-3)
    half.failure = "gave no answer for 900 s"
    content = written([died, *processes, half])
    assert [entry["extra_info"]["batch"] for entry in content["benchmarks"]] == [8]
    assert [process["index"] for process in content["benchmarks"][0]["extra_info"]["processes"]] == [0, 1, 2]
    assert [(entry["name"], entry["process"], entry["reason"]) for entry in content["failed"]] == [
        (case_of(1).name, 0, died.failure),
        (CASE.name, 2, half.failure),
    ]


def test_the_machine_is_described_and_the_host_is_not_named(processes: list[CaseSamples]) -> None:
    info = written(processes)["machine_info"]
    assert "node" not in info
    assert platform.node() not in [info.get(key) for key in info]
    assert info["system"] == platform.system()
    assert info["packages"] == environment.versions()


def test_the_commit_is_named_as_pytest_benchmark_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "commit", lambda: Commit("abc", dirty=True))
    assert written([])["commit_info"] == {"id": "abc", "dirty": True}


def test_pytest_benchmark_reads_it(processes: list[CaseSamples], tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    written([*processes, samples(case_of(1), 5e-3)])
    command = [str(Path(sys.executable).with_name("pytest-benchmark")), "compare", str(path), "--csv", "table.csv"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "mnist5k_lenet5[onnxruntime-fp32-batch1-threads1]" in done.stdout
    header, *rows = (line.split(",") for line in Path("table.csv").read_text().splitlines())
    medians = {row[header.index("param:batch")]: float(row[header.index("median")]) for row in rows}
    assert medians == {
        str(entry["params"]["batch"]): pytest.approx(entry["stats"]["median"])
        for entry in json.loads(path.read_text())["benchmarks"]
    }


def test_what_is_no_json_is_never_written(processes: list[CaseSamples], tmp_path: Path) -> None:
    written(processes)
    before = Path("latency.json").read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.write(Path("latency.json"), processes, settings={"seconds": float("nan")})
    assert Path("latency.json").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["latency.json"]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CnnbenchError, match="cannot write") as failure:
        record.write(tmp_path, [], settings={})
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


def test_what_is_written_is_read_back(processes: list[CaseSamples]) -> None:
    written(processes)
    (case,) = record.read(Path("latency.json"))
    for key, value in record.extra_info(CASE).items():
        assert getattr(case, key) == value
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
    with pytest.raises(
        CnnbenchError, match=r"^damaged\.json (is not a record of latencies:|holds no latencies;|is not JSON) "
    ) as failure:
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
