"""`compare`: each number in a row comes from the record it belongs to."""

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.types import Manifest, RunRecord

ACCURACIES = [0.91, 0.94, 0.925]
SECONDS = np.random.RandomState(0).lognormal(-8, 0.3, size=101)


@pytest.fixture
def record(run: Path) -> RunRecord:
    return records.read(run / "result.json", RunRecord)


@pytest.fixture
def model_sha256(bundle: Path) -> str:
    return records.sha256(bundle / "model.onnx")


def write_run(record: RunRecord, accuracy: float | None, **changes: Any) -> RunRecord:
    """One run below runs/, its folder named for its task and seed."""
    assert record.test is not None
    test = None if accuracy is None else replace(record.test, accuracy=accuracy)
    record = replace(record, test=test, **changes)
    records.write(Path("runs") / record.task / f"seed{record.seed}" / "result.json", record)
    return record


def write_latency(*cases: dict[str, Any], path: str = "latency.json") -> None:
    """A file as pytest-benchmark writes it, with one measurement a case."""
    usual = {"provider": "cpu", "runtime": "onnxruntime", "batch": 1, "threads": 1}
    benchmarks = [{"extra_info": usual | case, "stats": {"data": SECONDS.tolist()}} for case in cases]
    Path(path).write_text(json.dumps({"benchmarks": benchmarks}))


def rows_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    assert main(["compare", *map(str, arguments), "--format", "json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["compare", *map(str, arguments)]) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("cnnbench: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_run_bundle_and_latency_are_joined(
    record: RunRecord, bundle: Path, model_sha256: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(record, 0.9)
    write_latency({"model_sha256": model_sha256}, {"model_sha256": model_sha256, "runtime": "torch", "batch": 64})
    (row,) = rows_of(capsys, "runs", bundle.parent, "latency.json")
    assert (row["task"], row["arch"], row["dataset"], row["seeds"]) == (record.task, "lenet5", "mnist5k", 1)
    assert (row["params"], row["macs"]) == (record.cost.params, record.cost.macs)
    assert row["model_bytes"] == (bundle / "model.onnx").stat().st_size
    for percent in (50, 90):
        expected = pytest.approx(1e3 * np.percentile(SECONDS, percent))
        assert row[f"onnxruntime_batch1_threads1_p{percent}_ms"] == expected
        assert row[f"torch_batch64_threads1_p{percent}_ms"] == expected


def test_the_latency_of_another_file_is_not_joined(
    record: RunRecord, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(record, 0.9)
    write_latency({"model_sha256": "0" * 64, "task": record.task, "arch": "lenet5"})
    (row,) = rows_of(capsys, "runs", bundle.parent, "latency.json")
    assert not [key for key in row if key.endswith("_ms")]


def test_a_bundle_of_another_checkpoint_is_not_joined(
    record: RunRecord, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record.test is not None
    write_run(replace(record, test=replace(record.test, checkpoint_sha256="0" * 64)), 0.9)
    (row,) = rows_of(capsys, "runs", bundle.parent)
    assert row["model_bytes"] is None


def test_runs_of_another_recipe_are_another_row(record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(record, 0.9, seed=1)
    write_run(record, 0.5, seed=2, config={**record.config, "model": {**record.config["model"], "lr": 0.001}})
    assert sorted(row["seeds"] for row in rows_of(capsys, "runs")) == [1, 1]


def test_a_batch_size_that_was_not_measured_is_refused(
    record: RunRecord, model_sha256: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(record, 0.9)
    write_latency({"model_sha256": model_sha256, "batch": 64})
    assert main(["compare", "runs", "latency.json", "--batch", "3"]) == 2
    assert "measured: 64" in capsys.readouterr().err


def test_somebody_elses_manifest_is_passed_over(record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(record, 0.9)
    Path("runs/manifest.json").write_text('{"name": "a web page"}')
    assert len(rows_of(capsys, "runs")) == 1


def test_mean_and_standard_deviation_over_seeds(record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, accuracy in enumerate(ACCURACIES):
        write_run(record, accuracy, seed=seed)
    (row,) = rows_of(capsys, "runs")
    assert row["accuracies"] == ACCURACIES
    assert (row["seeds"], row["accuracy"]) == (3, pytest.approx(np.mean(ACCURACIES)))
    assert row["accuracy_std"] == pytest.approx(np.std(ACCURACIES, ddof=1))


def test_one_seed_has_no_deviation_and_an_untested_run_no_accuracy(
    record: RunRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(record, 0.9)
    write_run(record, None, task="untested")
    rows = {row["task"]: row for row in rows_of(capsys, "runs")}
    assert (rows[record.task]["accuracy_std"], rows[record.task]["seeds"]) == (None, 1)
    assert (rows["untested"]["accuracy"], rows["untested"]["seeds"]) == (None, 0)


def test_runs_on_other_images_are_another_row(record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(record, 0.9, seed=1)
    write_run(record, 0.8, seed=2, data={**record.data, "sha256": "0" * 64})
    assert [row["accuracy"] for row in rows_of(capsys, "runs")] == [0.9, 0.8]


def test_a_run_counts_once_however_often_it_is_named(record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(record, 0.9)
    Path("link").symlink_to("runs", target_is_directory=True)
    (row,) = rows_of(capsys, "runs", f"runs/{record.task}", "link", f"runs/{record.task}/seed1/result.json")
    assert row["accuracies"] == [0.9]


def test_the_best_comes_first(record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    for task, accuracy in (("a", 0.5), ("b", 0.9), ("c", 0.7)):
        write_run(record, accuracy, task=task)
    assert [row["task"] for row in rows_of(capsys, "runs")] == ["b", "c", "a"]


def test_half_written_folders_are_not_read(record: RunRecord, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(record, 0.9)
    shutil.copytree("runs", "runs/.mnist5k_lenet5-x1")
    assert rows_of(capsys, "runs")[0]["seeds"] == 1


def test_csv_has_every_batch_size_and_the_table_the_one_asked_for(
    record: RunRecord, bundle: Path, model_sha256: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(record, 0.9)
    write_latency(*({"model_sha256": model_sha256, "batch": batch} for batch in (1, 64)))
    paths = ["runs", str(bundle.parent), "latency.json"]
    assert main(["compare", *paths, "--format", "csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert float(row["accuracy"]) == 0.9
    assert float(row["onnxruntime_batch64_threads1_p50_ms"]) == pytest.approx(1e3 * np.percentile(SECONDS, 50))
    assert "onnxruntime_batch1_threads1_p90_ms" in row
    assert main(["compare", *paths, "--format", "markdown", "--batch", "64"]) == 0
    printed = capsys.readouterr().out
    assert "ms, p50 / p90, batch 64, 1 thread |" in printed
    assert "batch 1," not in printed
    assert f"| {1e3 * np.percentile(SECONDS, 50):.3f} / {1e3 * np.percentile(SECONDS, 90):.3f} |" in printed
    assert "| 90.00 |" in printed


@pytest.mark.parametrize("figure", [None, "elsewhere/picture"])
def test_both_pictures_are_written_where_they_were_asked_for(
    figure: str | None, record: RunRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(record, 0.9)
    assert main(["compare", "runs", *(["--figure", figure] if figure else [])]) == 0
    stem = figure or "runs/compare"
    assert f"{stem}.svg and {stem}.png" in capsys.readouterr().out.replace("\n", "")
    assert Path(f"{stem}.svg").is_file()
    assert Path(f"{stem}.png").is_file()


def test_no_results_are_told(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert "no results" in fails(capsys, "empty")
    assert "no results" in fails(capsys, bundle.parent)


def test_a_missing_path_is_told(record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(record, 0.9)
    assert "nowhere does not exist" in fails(capsys, "runs", "nowhere")


def test_a_half_written_record_is_told(record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(record, 0.9)
    write_run(record, 0.9, seed=2)
    path = Path("runs") / record.task / "seed2" / "result.json"
    path.write_text(path.read_text()[:500])
    assert str(path) in fails(capsys, "runs")


@pytest.mark.parametrize(
    "content",
    [{"benchmarks": []}, {"benchmarks": [{"extra_info": {}, "stats": {"data": [1]}}]}, {},
     {"benchmarks": [{"extra_info": {"model_sha256": "0"}, "stats": {"median": 1}}]}],
    ids=["no case", "of something else", "not a latency file", "without raw times"],
)  # fmt: skip
def test_a_latency_file_without_latencies_is_told(
    content: dict[str, Any], record: RunRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(record, 0.9)
    Path("latency.json").write_text(json.dumps(content))
    assert "holds no latencies" in fails(capsys, "runs", "latency.json")


def test_an_edited_record_is_told(bundle: Path, record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(record, 0.9)
    path = Path("runs") / record.task / "seed1" / "result.json"
    path.write_text(path.read_text().replace('"accuracy": 0.9', '"accuracy": 0.99'))
    assert main(["compare", "runs"]) == 4
    assert "edited" in capsys.readouterr().err


def test_the_real_run_and_bundle_give_the_run_s_accuracy(
    run: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = records.read(run / "result.json", RunRecord)
    manifest = records.read(bundle / "manifest.json", Manifest)
    assert record.test is not None
    (row,) = rows_of(capsys, run, bundle, "--figure", "picture")
    assert row["accuracy"] == record.test.accuracy == manifest.reference.accuracy
