"""`collect`: what a repository keeps of runs is read again as they are, and names no place of the machine."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import (
    data_record,
    first,
    measured,
    run_config,
    run_record,
    write_bundle,
    write_certain,
    write_failure,
    write_latencies,
    write_run,
)

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.bench import record as latency
from cnnbench.records.schema import Failure, RunRecord

pytestmark = pytest.mark.usefixtures("undrawn")

PLACES = {"root": "/home/me", "folder": "/home/me/pets"}


def table(*paths: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert main(["compare", *paths, "--format", "json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def test_compare_prints_the_same_from_what_was_collected(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (1, 2, 3):
        record = run_record("a", seed, 90 + seed)
        write_run(record)
        write_bundle(record)
    assert main(["collect", "runs", "exports", "--out", "kept"]) == 0
    assert "3 runs" in capsys.readouterr().out
    assert table("kept", capsys=capsys) == table("runs", "exports", capsys=capsys)


def test_of_many_timed_calls_those_are_kept_that_have_the_percentiles() -> None:
    record = run_record("a", 1, 90)
    write_run(record)
    calls = [1e-3 + 1e-6 * (place * 7_919 % 5_000) for place in range(5_000)]  # 1.000 to 5.999 ms, in no order
    processes = [{"median_seconds": 3.5e-3, "slices": [2_500, 2_500]}]
    write_latencies(measured(record, calls, processes=processes), measured(record, calls[:70], backend="torch"))
    assert main(["collect", "runs", "latency.json", "--out", "kept"]) == 0
    many, few = latency.read(Path("kept/latency.json"))
    assert many.calls == 5_000
    assert len(many.seconds) == 200
    for percent in (50, 90):
        kept, whole = np.percentile(many.seconds, percent), np.percentile(calls, percent)
        assert kept == pytest.approx(whole, abs=5e-3 * (max(calls) - min(calls)))  # as far as two kept ones are apart
    assert many.process_medians == (3.5e-3,)
    assert few.seconds == tuple(calls[:70])
    assert Path("kept/latency.json").stat().st_size < Path("latency.json").stat().st_size / 5


def test_json_has_the_counts_of_what_was_collected(capsys: pytest.CaptureFixture[str]) -> None:
    write_run(run_record("a", 1, 90))
    assert main(["collect", "runs", "--out", "kept", "--format", "json"]) == 0
    size = Path("kept/d_a/seed1/result.json").stat().st_size
    counts = {"out": "kept", "runs": 1, "bundles": 0, "files": 1, "bytes": size}
    assert json.loads(capsys.readouterr().out) == counts


def test_no_record_that_was_collected_names_a_place(capsys: pytest.CaptureFixture[str]) -> None:
    config = run_config()
    config = records.replace(config, data=records.replace(config.data, **PLACES))
    folder = write_run(run_record("a", 1, 90, config=config, data=data_record(**PLACES)))
    write_certain(folder, first(90))
    write_failure("b", 1, reason="ended by SIGKILL", log="/home/me/runs/d_b/seed1.log")
    assert main(["collect", "runs", "--out", "kept"]) == 0
    files = [file for file in Path("kept").rglob("*") if file.is_file()]
    assert {file.name for file in files} == {"result.json", "failure.json"}
    assert not any("/home/me" in file.read_text() for file in files)
    kept = records.read(Path("kept/d_a/seed1/result.json"), RunRecord)
    assert kept.config == run_config()
    assert kept.data == data_record()
    assert records.read(Path("kept/d_b/seed1/failure.json"), Failure).reason == "ended by SIGKILL"


def test_the_same_run_again_changes_nothing_and_another_of_its_name_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_run(run_record("a", 1, 90))
    assert main(["collect", "runs", "--out", "kept"]) == 0
    before = Path("kept/d_a/seed1/result.json").read_bytes()
    assert main(["collect", "runs", "--out", "kept"]) == 0
    write_run(run_record("a", 1, 80), "others")
    assert main(["collect", "others", "--out", "kept"]) == 3
    assert "is of another run than" in capsys.readouterr().err
    assert Path("kept/d_a/seed1/result.json").read_bytes() == before


def test_a_failure_does_not_lie_beside_the_result_of_the_same_run() -> None:
    write_failure("a", 1)
    assert main(["collect", "runs", "--out", "kept"]) == 0
    assert Path("kept/d_a/seed1/failure.json").is_file()
    write_run(run_record("a", 1, 90), "later")
    assert main(["collect", "later", "--out", "kept"]) == 0
    assert main(["collect", "runs", "--out", "kept"]) == 0
    assert not Path("kept/d_a/seed1/failure.json").exists()


def test_nothing_to_collect_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs").mkdir()
    assert main(["collect", "runs"]) == 3
    assert "no results below runs" in capsys.readouterr().err
    assert not Path("results").exists()
