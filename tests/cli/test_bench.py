"""The verb `bench`, whole: what it prints is what the record holds."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_helpers import case_of, samples

from cnnbench.__main__ import main
from cnnbench.bench import interleave, record, regression, scenarios
from cnnbench.bench.backends import BackendError, BackendProcess, Slice
from cnnbench.bench.measure import LatencyReport, latency_rows
from cnnbench.bench.plan import Setup
from cnnbench.bench.scenarios import ScenarioResult
from cnnbench.cli import bench as verb
from cnnbench.types import Exit

QUICK = ["--backend", "onnxruntime", "--seconds", "0.1", "--processes", "1"]


@pytest.fixture
def exports(bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(bundle, tmp_path / "exports" / bundle.name)
    return tmp_path / "exports"


def refused(capsys: pytest.CaptureFixture[str], code: Exit, *arguments: object) -> str:
    assert main(["bench", *map(str, arguments)]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def test_what_is_printed_is_what_the_record_holds(exports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(exports), "--batch", "1,2", *QUICK, "--processes", "2", "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((exports / "latency.json").read_text())
    cases = {case["name"]: case for case in written["benchmarks"]}
    assert [row["batch"] for row in printed["latencies"]] == [1, 2]
    assert [row["name"] for row in printed["latencies"]] == list(cases)
    for row in printed["latencies"]:
        case = cases[row["name"]]
        seconds = case["stats"]["data"]
        assert row["samples"] == len(seconds)
        assert row["p50_ms"] == pytest.approx(1e3 * np.percentile(seconds, 50))
        assert row["p50_low_ms"] <= row["p50_ms"] <= row["p50_high_ms"]
        assert (row["p99_ms"] is None) == (len(seconds) < 662)
        assert ("p99 needs 662 samples" in row["reason"]) == (len(seconds) < 662)
        assert len(case["extra_info"]["processes"]) == 2
        assert row["cold_start_ms"] > 0
        assert row["torch_ratio"] is None
    assert written["failed"] == []
    assert written["settings"] == {"seconds": 0.1, "processes": 2, "rounds": 10, "seed": 1}


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> LatencyReport:
    """What the verb prints, without measuring anything: torch and ONNX Runtime at batch 1."""
    torch, onnx = case_of(1, backend="torch"), case_of(1)
    processes = [samples(torch, 8e-3, 12e-3, 16e-3), samples(onnx, 4e-3, 4e-3, 4e-3)]
    scenario = ScenarioResult("mnist5k_lenet5", onnx.setup.name, "Offline", 970.5, "images/s", "", "batch 1")
    report = LatencyReport(latency_rows(processes), (scenario,), Path("latency.json"))
    monkeypatch.setattr(verb, "measure_latency", lambda *_, **__: report)
    return report


def printed(capsys: pytest.CaptureFixture[str], format: str) -> str:
    assert main(["bench", "exports", "--format", format]) == 0
    captured = capsys.readouterr()
    assert captured.err == "every sample: latency.json\n"
    return captured.out


def test_csv_has_every_case_in_full_precision(report: LatencyReport, capsys: pytest.CaptureFixture[str]) -> None:
    table, scenarios = printed(capsys, "csv").split("\n\n")
    for line, row in zip(csv.DictReader(io.StringIO(table)), report.rows, strict=True):
        assert line == {key: "" if value is None else str(value) for key, value in asdict(row).items()}
    assert [line["value"] for line in csv.DictReader(io.StringIO(scenarios))] == ["970.5"]


def test_json_has_every_case_and_scenario(report: LatencyReport, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(printed(capsys, "json"))
    assert content["latencies"] == [asdict(row) for row in report.rows]
    assert content["scenarios"] == [asdict(result) for result in report.scenarios]


def test_gha_has_the_median_of_every_case(report: LatencyReport, capsys: pytest.CaptureFixture[str]) -> None:
    entries = json.loads(printed(capsys, "gha"))
    assert [set(entry) for entry in entries] == [{"name", "unit", "value", "range", "extra"}] * 2
    assert (entries[1]["name"], entries[1]["unit"]) == (f"{report.rows[1].name} p50", "ms")
    assert entries[1]["value"] == report.rows[1].p50_ms


def test_a_table_has_no_empty_columns(report: LatencyReport, capsys: pytest.CaptureFixture[str]) -> None:
    heading, _, torch, onnx, *_ = printed(capsys, "markdown").splitlines()
    names = heading.strip("| ").split(" | ")
    assert {"backend", "p50, ms", "p90, ms"} < set(names)
    assert not {"p99, ms", "device p50, ms"} & set(names)  # too few samples, no device
    assert "| 3.00 (2.00 to 4.00) |" in onnx
    assert "| torch | fp32 | cpu | 1 | 1 |" in torch


@pytest.mark.slow
def test_scenarios_are_reported_and_recorded(
    exports: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenarios, "RATE_SECONDS", 0.02)
    chosen = ["--scenario", "SingleStream,Offline,Server", "--server-p99", "1s", "--out", "elsewhere.json"]
    assert main(["bench", str(exports), "--batch", "1,8", *QUICK, *chosen, "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)["scenarios"]
    written = json.loads(Path("elsewhere.json").read_text())
    assert written["scenarios"] == printed
    seconds = {case["extra_info"]["batch"]: case["stats"]["data"] for case in written["benchmarks"]}
    stream, offline, server = printed
    assert stream["value"] == pytest.approx(1e3 * np.percentile(seconds[1], 90))
    assert offline["value"] == pytest.approx(max(batch / np.mean(calls) for batch, calls in seconds.items()))
    assert server["value"] > 0
    assert server["detail"] == "p99 within 1000 ms, Poisson arrivals"


@pytest.mark.slow
def test_a_case_that_fails_is_a_row_with_its_reason(
    exports: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fragile(BackendProcess):
        def measure(self, batch: int, *, seconds: float, calls: int) -> Slice:
            if batch == 8:
                raise BackendError("out of memory")
            return super().measure(batch, seconds=seconds, calls=calls)

    monkeypatch.setattr(interleave, "BackendProcess", Fragile)
    assert main(["bench", str(exports), "--batch", "1,8", *QUICK, "--format", "json"]) == 0
    good, bad = json.loads(capsys.readouterr().out)["latencies"]
    assert good["p50_ms"] > 0
    assert (bad["samples"], bad["p50_ms"], bad["reason"]) == (0, None, "out of memory")
    written = json.loads((exports / "latency.json").read_text())
    assert [(entry["name"], entry["process"]) for entry in written["failed"]] == [(bad["name"], 0)]
    (exports / "latency.json").unlink()
    assert main(["bench", str(exports), "--batch", "8", *QUICK]) == Exit.ENVIRONMENT
    assert "no case could be measured; " in capsys.readouterr().err
    assert not (exports / "latency.json").exists()


def test_nothing_is_measured_where_anything_is_wrong(
    exports: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(setup: Setup) -> BackendProcess:
        pytest.fail("a process was started")

    monkeypatch.setattr(interleave, "BackendProcess", started)
    for code, words, *arguments in (
        (Exit.USAGE, "--batch 0", "--batch", "0"),
        (Exit.USAGE, "--seconds 0", "--seconds", "0"),
        (Exit.USAGE, "--processes 0", "--processes", "0"),
        (Exit.USAGE, "--backend 'tensorrt'", "--backend", "tensorrt"),
        (Exit.USAGE, "--backend", "--runtime", "torch"),
        (Exit.USAGE, "holds no int8", "--precision", "int8"),
        (Exit.USAGE, "--against takes one bundle", "--against", exports, "--scenario", "Offline"),
        (Exit.USAGE, "--against takes one bundle", "--against", exports, "--format", "gha"),
        (Exit.DATA, "nowhere does not exist", "--against", "nowhere"),
        (Exit.ENVIRONMENT, "--threads 9999", "--threads", "9999"),
        (Exit.USAGE, "'tpu'", "--provider", "tpu"),
    ):
        message = refused(capsys, code, exports, *arguments)
        assert words in message
        assert message.count("\n") == 1
    assert "no bundle" in refused(capsys, Exit.DATA, exports / "mnist5k_lenet5" / "model.onnx")


def test_a_gpu_that_is_not_there_is_refused(exports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "provider cuda" in refused(capsys, Exit.ENVIRONMENT, exports, "--provider", "cuda")


@pytest.mark.parametrize(("regressed", "code"), [(True, Exit.REGRESSION), (False, Exit.OK)])
def test_a_regression_is_exit_5_and_one_sentence(
    exports: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    regressed: bool,
    code: Exit,
) -> None:
    def compare(candidates: list[Setup], baselines: list[Setup], **_: Any) -> list[regression.BundleComparison]:
        assert [setup.bundle for setup in (*candidates, *baselines)] == [exports / "mnist5k_lenet5"] * 2
        return [regression.BundleComparison("x", "x: the answer", regressed, False, ())]

    monkeypatch.setattr(regression, "compare_setups", compare)
    arguments = ["bench", str(exports), "--against", str(exports), *QUICK]
    assert main(arguments) == code
    assert capsys.readouterr().out == "x: the answer\n"
    assert main([*arguments, "--format", "json"]) == code
    assert json.loads(capsys.readouterr().out)[0]["regression"] is regressed
    assert not (exports / "latency.json").exists()


@pytest.mark.slow
def test_a_bundle_is_compared_with_itself_for_real(exports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--batch", "1", "--backend", "onnxruntime", "--seconds", "0.05", "--format", "json"]
    assert main(["bench", str(exports), "--against", str(exports), *arguments]) in (Exit.OK, Exit.REGRESSION)
    (comparison,) = json.loads(capsys.readouterr().out)
    first = comparison["effects"][0]
    assert {len(medians) for medians in first["round_medians"].values()} == {first["rounds"]}
    assert first["rounds"] >= regression.LEAST_ROUNDS
    assert first["smallest_seen"] >= 1.02


def test_a_record_is_compared_with_an_older_one(capsys: pytest.CaptureFixture[str]) -> None:
    case, new, old = case_of(8), Path("new.json"), Path("old.json")
    for path, median in ((old, 1e-3), (new, 1.5e-3)):
        record.write(path, [samples(case, median)] * 2, settings={})
    assert verb.print_record_comparison(new, old, format="json") == Exit.REGRESSION
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["answer"], row["ratio"]) == ("regression", pytest.approx(1.5))
    assert verb.print_record_comparison(old, new, format="markdown") == Exit.OK
    *_, line = capsys.readouterr().out.splitlines()
    figures = "1.500 | 1.000 | 0.667 | 0.667 | 0.667 | 1.02"
    assert line == f"| mnist5k_lenet5 | onnxruntime | fp32 | cpu | 8 | 1 | {figures} | faster |"


@pytest.mark.slow
def test_ctrl_c_leaves_no_process_and_no_record(exports: Path) -> None:
    command = [sys.executable, "-m", "cnnbench", "bench", str(exports), "--backend", "onnxruntime", "--seconds", "600"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as running:
        assert running.stderr is not None
        while "round 1:" not in (line := running.stderr.readline()):
            assert line
        os.killpg(running.pid, signal.SIGINT)
        stderr = running.stderr.read()
    assert running.returncode == Exit.INTERRUPTED
    assert stderr.splitlines()[-1] == "cnnbench: interrupted"
    assert "Traceback" not in stderr
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            os.killpg(running.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("a process of the group is left")
    assert [path.name for path in exports.iterdir()] == ["mnist5k_lenet5"]
