"""`compare`: each number in a row comes from the record it belongs to."""

import csv
import io
import json
import re
import shutil
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import builders as made
import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.records.bundle import FileHash, Manifest
from cnnbench.records.schema import RunConfig, RunRecord
from cnnbench.tables import rows as tables_rows
from cnnbench.tables.gather import gather
from cnnbench.types import Augment

pytestmark = pytest.mark.usefixtures("undrawn")

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
    test = None if accuracy is None else records.replace(record.test, accuracy=accuracy)
    record = records.replace(record, test=test, **changes)
    records.write(Path("runs") / record.task / f"seed{record.seed}" / "result.json", record)
    return record


def write_latency(*cases: dict[str, Any], path: str = "latency.json") -> None:
    """A file as pytest-benchmark writes it, with one measurement a case."""
    usual = {"task": "t", "arch": "a", "provider": "cpu", "runtime": "onnxruntime", "batch": 1, "threads": 1}
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
    assert {value for key, value in row.items() if key.endswith("_ms")} == {None}


def test_a_bundle_of_another_checkpoint_is_not_joined(
    record: RunRecord, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record.test is not None
    write_run(records.replace(record, test=records.replace(record.test, checkpoint_sha256="0" * 64)), 0.9)
    (row,) = rows_of(capsys, "runs", bundle.parent)
    assert row["model_bytes"] is None


def other_rate(config: RunConfig) -> RunConfig:
    return records.replace(config, model=records.replace(config.model, lr=0.001))


def test_runs_of_another_recipe_are_another_row(record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(record, 0.9, seed=1)
    write_run(record, 0.5, seed=2, config=other_rate(record.config))
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
    write_run(record, 0.8, seed=2, data=records.replace(record.data, sha256="0" * 64))
    assert [row["accuracy"] for row in rows_of(capsys, "runs")] == [0.9, 0.8]


def test_runs_with_another_augmentation_are_another_row_and_tell_it(
    record: RunRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(record, 0.9)
    assert main(["compare", "runs"]) == 0
    assert "augmentation" not in capsys.readouterr().out
    write_run(record, 0.8, seed=2, data=records.replace(record.data, augment=Augment(flip=True)))
    assert [row["augment"] for row in rows_of(capsys, "runs")] == [str(record.data.augment), "horizontal flips"]
    assert main(["compare", "runs"]) == 0
    assert "horizontal flips" in capsys.readouterr().out


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
    assert "p50 / p90, batch 64, 1 thread, ms |" in printed
    assert "batch 1," not in printed
    assert f"| {1e3 * np.percentile(SECONDS, 50):.3f} / {1e3 * np.percentile(SECONDS, 90):.3f} |" in printed
    assert "| 90.00 |" in printed


@pytest.mark.parametrize("picture", ["elsewhere/picture", "elsewhere/picture.png"])
def test_both_pictures_are_written_where_they_were_asked_for(
    picture: str, record: RunRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(record, 0.9)
    assert main(["compare", "runs", "--picture", picture]) == 0
    assert "elsewhere/picture.svg and elsewhere/picture.png" in capsys.readouterr().out
    assert Path("elsewhere/picture.svg").is_file()
    assert Path("elsewhere/picture.png").is_file()


@pytest.mark.parametrize("format", ["table", "markdown", "csv", "json"])
def test_nothing_is_drawn_unless_asked_for(format: str, record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(record, 0.9)
    before = sorted(Path().rglob("*"))
    assert main(["compare", "runs", "--format", format]) == 0
    assert "picture" not in capsys.readouterr().out
    assert sorted(Path().rglob("*")) == before


def test_a_narrow_terminal_shows_the_figures_that_decide_and_names_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_all()
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["compare", *paths]) == 0
    printed = capsys.readouterr().out
    heading = next(line for line in printed.splitlines() if line.startswith("architecture"))
    assert len(heading) <= 80
    assert all(name in heading for name in ("accuracy, %", "95 % interval", "ONNX bytes", "onnxruntime, ms"))
    assert "parameters" not in heading
    assert "parameters" in next(line for line in printed.splitlines() if line.startswith("not shown: "))
    assert main(["compare", *paths, "--columns", "all"]) == 0
    printed = capsys.readouterr().out
    assert "not shown" not in printed
    assert all(name in printed for name in ("parameters", "MACs", "training, s"))


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_no_two_rows_have_one_name(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for task in ("d_a", "d_a_long", "d_a_short"):
        made.write_run(records.replace(made.run_record(), task=task))
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["compare", "runs"]) == 0
    printed = capsys.readouterr().out
    assert all(re.search(rf"^a{name} +\S", printed, re.M) for name in ("", r" \(d_a_long\)", r" \(d_a_short\)")), (
        printed
    )


def test_no_results_are_told(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert "no results" in fails(capsys, "empty")
    assert "there are bundles but no runs below" in fails(capsys, bundle.parent)


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
    [
        {"benchmarks": []},
        {"benchmarks": [{"extra_info": {}, "stats": {"data": [1]}}]},
        {},
        {"benchmarks": [{"extra_info": {"model_sha256": "0"}, "stats": {"median": 1}}]},
    ],
    ids=["no case", "of something else", "not a latency file", "without raw times"],
)
def test_a_latency_file_without_latencies_is_told(
    content: dict[str, Any], record: RunRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(record, 0.9)
    Path("latency.json").write_text(json.dumps(content))
    assert "latencies" in fails(capsys, "runs", "latency.json")


def test_an_edited_record_is_told(bundle: Path, record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(record, 0.9)
    path = Path("runs") / record.task / "seed1" / "result.json"
    path.write_text(path.read_text().replace('"accuracy": 0.9', '"accuracy": 0.99'))
    assert main(["compare", "runs"]) == 4
    assert "edited" in capsys.readouterr().err


def test_the_real_run_and_bundle_give_the_run_s_accuracy(
    run: Path, bundle: Path, drawn: None, capsys: pytest.CaptureFixture[str]
) -> None:
    record = records.read(run / "result.json", RunRecord)
    manifest = records.read(bundle / "manifest.json", Manifest)
    assert record.test is not None
    (row,) = rows_of(capsys, run, bundle, "--picture", "picture")
    assert row["accuracy"] == record.test.accuracy == manifest.reference.accuracy
    assert Path("picture.svg").read_bytes().startswith(b"<?xml")
    assert Path("picture.png").read_bytes().startswith(b"\x89PNG")


def write_all() -> list[str]:
    """Paths of two rows with all that can be measured, one of a single seed, and one that failed."""
    for seed, right in enumerate((90, 93), 1):
        record = made.run_record("full", seed, right, cost=made.Cost(1_000, 20_000, 300, 2, form="inference form"))
        folder = made.write_run(record)
        made.write_certain(folder, made.first(right))
        checkpoint = f"checkpoint of d_full {seed}"
        records.write(folder / "robustness.json", made.shifted(checkpoint, right / 100, 0.6))
    made.write_bundle(record)
    made.write_latencies(*(made.measured(record, SECONDS.tolist(), batch=batch) for batch in (1, 64)))
    made.write_run(made.run_record("bare", 1, 70))
    made.write_failure("full", 3, "a | bar\nand a line")
    made.write_failure("never", 1)
    return ["runs", "exports", "latency.json"]


def parsed(cell: str) -> Any:
    """A CSV cell as the value that was written."""
    try:
        return json.loads(cell) if cell else None
    except ValueError:
        return cell


READERS = {
    ".json": lambda path: json.loads(path.read_text()),
    ".parquet": lambda path: pq.read_table(path).to_pylist(),
    ".csv": lambda path: [
        {key: parsed(cell) for key, cell in row.items()} for row in csv.DictReader(io.StringIO(path.read_text()))
    ],
}


@pytest.mark.parametrize("suffix", READERS)
@pytest.mark.parametrize("target", [(), ("--target-accuracy", "90%")], ids=["", "target"])
def test_a_file_holds_what_json_prints(
    suffix: str, target: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*write_all(), *target, "--picture", "picture"]
    path = Path(f"new/table{suffix}")
    printed = rows_of(capsys, *arguments, "--out", path)
    assert [row["task"] for row in printed] == ["d_full", "d_bare", "d_never"]
    assert READERS[suffix](path) == printed
    assert {len(row) for row in printed} == {len(printed[0])}


def test_no_figure_of_a_row_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    printed = rows_of(capsys, *write_all(), "--target-accuracy", "0.9", "--picture", "picture")
    rows = tables_rows.rows_of(gather(["runs", "exports", "latency.json"]), target=0.9)
    joined = {"time_to_target", "latencies", "runs", "bundle"}  # the first two have several columns, the others none
    for row, shown in zip(rows, printed, strict=True):
        figures = {field.name: getattr(row, field.name) for field in fields(row) if field.name not in joined}
        assert {key: shown[key] for key in figures} == json.loads(json.dumps(figures))
        time = row.time_to_target
        assert shown["target_seconds"] == (None if time is None else list(time.seconds))
        for key, percentiles in row.latencies.items():
            assert [shown[key.column(percent)] for percent in (50, 90, 99)] == list(astuple(percentiles))
    full = printed[0]
    of_101_samples = {f"onnxruntime_batch{batch}_threads1_p99_ms" for batch in (1, 64)}
    of_two_seeds = {"accuracy_low", "accuracy_high", "interval", "interval_scope"}
    assert {key for key, value in full.items() if value is None} == of_101_samples | of_two_seeds | {"class_weights"}


def test_a_markdown_file_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    rows_of(capsys, *write_all(), "--out", "table.md", "--picture", "picture")
    heading, rule, *lines = Path("table.md").read_text().splitlines()
    assert heading.startswith("| task | architecture | dataset |")
    assert rule.count("---") == heading.count("|") - 1
    assert [line.split(" | ")[0] for line in lines] == ["| d_full", "| d_bare", "| d_never"]
    assert "seed 3: a \\| bar" in lines[0]


@pytest.mark.parametrize("name", ["table.xlsx", "table", "runs"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_printed(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made.write_run(made.run_record())
    before = sorted(Path().rglob("*"))
    assert main(["compare", "runs", "--out", name]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"cnnbench: cannot write {name}: expected a name that ends in .csv, .json, .md or .parquet\n"
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("suffix", [".csv", ".json", ".md", ".parquet"])
def test_an_older_table_is_not_written_over_where_a_record_is_damaged(
    suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made.write_run(made.run_record())
    (folder / "failure.json").write_text("{")
    path = Path(f"table{suffix}")
    path.write_text("the older table")
    assert main(["compare", "runs", "--out", str(path)]) == 3
    assert path.read_text() == "the older table"
    assert "is not JSON" in capsys.readouterr().err


def table(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, str]]:
    """Rows of a Markdown table as a person reads them, by heading."""
    assert main(["compare", *arguments, "--format", "markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


VIEWS = {  # the mean over shifts is half way from worst to unshifted: (0.75 + 0.765) / 2
    "summary": {
        "architecture": "full",
        "dataset": "d",
        "test accuracy, % (mean +- std)": "91.50 +- 2.12",
        "seeds": "2 (1 failed)",
        "95 % interval": "too few seeds",
        "test images": "100",
        "parameters": "1,000",
        "MACs": "20,000",
        "ONNX bytes": "50,000",
        "training, s": "6.0",
    },
    "seeds": {
        "every seed, in order": "90.00 93.00",
        "95 % interval": "too few seeds",
        "training images": "80",
        "epochs": "2",
    },
    "cost": {
        "weights, were every layer fully connected": "64,000",
        "weight bytes": "4,000",
        "activation bytes": "1,200",
        "training memory, MB": "3",
        "training energy, J": "120",
        "energy measured by": "RAPL",
    },
    "classes": {
        "always answering the largest class, %": "50.00",
        "largest class": "no",
        "balanced accuracy, %": "91.50",
        "macro F1, %": "91.50",
        "lowest recall of a class, %": "91.00",
        "class with the lowest recall": "yes",
    },
    "robustness": {
        "worst shift, %": "60.00",
        "equivariance error at 1 px (0: features move with the image)": "0.300",
        "calibration error (ECE), %": "11.50",
        "mean over shifts up to 4 px, %": "75.75",
    },
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_shows_the_figures_that_it_is_for(view: str, capsys: pytest.CaptureFixture[str]) -> None:
    full, bare, never = table(capsys, *write_all(), "--view", view)
    assert {heading: full[heading] for heading in VIEWS[view]} == VIEWS[view]
    if view != "cost":
        assert bare["test accuracy, % (mean +- std)"] == "70.00"
        assert never["test accuracy, % (mean +- std)"] == "failed"
    if "95 % interval" in bare:
        assert (bare["95 % interval"], never["95 % interval"]) == (
            "60.42 to 78.11, this network alone",
            "-",
        )  # Wilson, 70 of 100


def test_a_target_is_shown_with_how_many_reached_it_and_the_spread(capsys: pytest.CaptureFixture[str]) -> None:
    for seed, seconds in enumerate((5.0, 9.0, 6.0, None), 1):
        last = records.replace(made.CURVE[1], train_seconds=seconds or 0.0)
        curve = (made.CURVE[0], *([last] if seconds else []))
        made.write_run(made.run_record(seed=seed, fit=records.replace(made.FIT, curve=curve)))
    (shown,) = table(capsys, "runs", "--target-accuracy", "0.9")
    assert shown["seeds to val 90.00 %"] == "3 of 4"
    assert shown["s, validation excluded: median of all (range of those)"] == "7.5 (5.0 to 9.0)"
    assert shown["epochs"] == "2"
    assert shown["training MACs"] == f"{55_000 * 160:.2e}"
    (never,) = table(capsys, "runs", "--target-accuracy", "99%")
    assert never["seeds to val 99.00 %"] == "never (0 of 4)"
    assert (
        never["s, validation excluded: median of all (range of those)"]
        == never["epochs"]
        == never["training MACs"]
        == "-"
    )


@pytest.mark.parametrize("target", ["0", "99", "-0.5"])
def test_a_target_that_is_no_fraction_is_refused(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    made.write_run(made.run_record())
    assert main(["compare", "runs", f"--target-accuracy={target}"]) == 2
    assert "--target-accuracy" in capsys.readouterr().err


def notes(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["compare", *arguments]) == 0
    return capsys.readouterr().out


def test_one_seed_failures_and_mixed_datasets_are_told_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    made.write_run(made.run_record(seed=1))
    made.write_run(made.run_record(seed=2))
    alone = notes(capsys, "runs")
    assert not any(word in alone for word in ("new images alone", "over seeds", "failed", "do not compare"))
    made.write_run(made.run_record(dataset="e"))
    made.write_failure("a", 3, "out of memory")
    made.write_failure("never", 1, "no disk")
    told = notes(capsys, "runs").splitlines()
    assert "a: one seed, so the interval is for new images alone; another training may differ" in told
    assert "d, e: accuracies of different datasets do not compare; --dataset shows one" in told
    assert "failed: d_a, seed 3: out of memory" in told
    assert "failed: d_never, seed 1: no disk" in told
    only = notes(capsys, "runs", "--dataset", "d")
    assert "do not compare" not in only
    assert "new images alone" not in only
    made.write_run(made.run_record(seed=4))
    assert "a: predictions are missing, so the interval is over seeds alone and says nothing of new images" in (
        notes(capsys, "runs", "--dataset", "d").splitlines()
    )


def test_latencies_of_several_runs_or_machines_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [made.run_record(arch) for arch in "ab"]
    for record in runs:
        made.write_run(record)
        made.write_bundle(record)
        made.write_latencies(made.measured(record, SECONDS.tolist()), path=f"latency_{record.arch}.json")
    alone = notes(capsys, "runs", "exports", "latency_a.json")
    assert "latencies of" not in alone
    assert "latencies of 2 runs of bench (latency_a.json, latency_b.json)" in (
        notes(capsys, "runs", "exports", "latency_a.json", "latency_b.json").replace("\n", " ")
    )
    content = json.loads(Path("latency_b.json").read_text())
    machine = {"cpu": {"brand_raw": "another processor", "count": 4}, "system": "Linux"}
    Path("latency_b.json").write_text(json.dumps({**content, "machine_info": machine}))
    told = notes(capsys, "runs", "exports", "latency_a.json", "latency_b.json")
    expected = (
        "latencies of 2 machines do not compare: a machine that is not described; another processor, 4 cores, Linux"
    )
    assert expected in told


def test_one_dataset_s_runs_and_failures_alone_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    made.write_run(made.run_record())
    made.write_run(made.run_record(dataset="e"))
    made.write_failure("x", 1, dataset="e")
    made.write_failure("y", 1, dataset="d")
    assert [row["task"] for row in rows_of(capsys, "runs", "--dataset", "e")] == ["e_a", "e_x"]


def test_an_unknown_dataset_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    made.write_run(made.run_record(dataset="mnist"))
    assert main(["compare", "runs", "--dataset", "mnits"]) == 2
    assert capsys.readouterr().err == "cnnbench: no runs on 'mnits': did you mean mnist?\n"


def test_an_unknown_view_is_refused_with_those_known(capsys: pytest.CaptureFixture[str]) -> None:
    made.write_run(made.run_record())
    assert main(["compare", "runs", "--view", "beauty"]) == 2
    assert "robustness" in capsys.readouterr().err


def write_precisions() -> None:
    """Two bundles; one with an fp16 file that is kept and an int8 file that was refused before it was run."""
    made.write_bundle(made.run_record(dataset="e"))
    made.write_bundle(made.run_record())
    manifest = records.read(Path("exports/d_a/manifest.json"), Manifest)
    (fp32,) = manifest.variants
    half = records.replace(
        fp32,
        precision="fp16",
        file="model_fp16.onnx",
        bytes=25_000,
        lost_points=0.5,
        latency_ms=0.2,
        fp32_latency_ms=0.1,
    )
    whole = records.replace(
        fp32, precision="int8", file="model_int8.onnx", bytes=0, refused="no calibration images", passes=()
    )
    files = {**manifest.files, "model_fp16.onnx": FileHash("the fp16 file", 25_000)}
    changes = {"variants": (fp32, half, whole), "files": files}
    records.write(Path("exports/d_a/manifest.json"), records.replace(manifest, **changes))


def test_every_file_of_a_bundle_is_a_row_kept_or_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write_precisions()
    found = rows_of(capsys, "exports", "--view", "precision", "--out", "precisions.csv")
    assert [(row["task"], row["precision"]) for row in found] == [
        ("d_a", "fp32"),
        ("d_a", "fp16"),
        ("d_a", "int8"),
        ("e_a", "fp32"),
    ]
    wilson = stats.binomtest(90, 100).proportion_ci(0.95, method="wilson")
    assert found[1] == {
        "task": "d_a",
        "precision": "fp16",
        "accuracy": 0.9,
        "accuracy_low": pytest.approx(wilson.low),
        "accuracy_high": pytest.approx(wilson.high),
        "correct": 90,
        "images": 100,
        "lost_points": 0.5,
        "bytes": 25_000,
        "latency_ms": 0.2,
        "fp32_latency_ms": 0.1,
        "fate": "kept",
    }
    assert [found[2][key] for key in ("accuracy", "accuracy_low", "correct", "lost_points")] == [None] * 4
    assert found[2]["fate"] == "refused: no calibration images"
    assert READERS[".csv"](Path("precisions.csv")) == found
    assert [row["task"] for row in rows_of(capsys, "exports", "--view", "precision", "--dataset", "e")] == ["e_a"]


def test_no_bundles_have_no_precisions(capsys: pytest.CaptureFixture[str]) -> None:
    made.write_run(made.run_record())
    assert "no bundles below runs; `cnnbench export` makes them" in fails(capsys, "runs", "--view", "precision")
    write_precisions()
    assert "no bundles of f below exports" in fails(capsys, "exports", "--view", "precision", "--dataset", "f")


@pytest.mark.parametrize(
    ("arguments", "flag", "table"),
    [
        (["--view", "precision", "--pair", "a,b"], "--view", "--pair"),
        (["--view", "precision", "--batch", "1"], "--batch", "--view precision"),
        (["--view", "precision", "--target-accuracy", "99%"], "--target-accuracy", "--view precision"),
        (["--view", "cost", "--picture", "x.svg"], "--picture", "--view cost"),
        (["--view", "seeds", "--batch", "64"], "--batch", "--view seeds"),
        (["--pair", "a,b", "--target-accuracy", "99%"], "--target-accuracy", "--pair"),
        (["--pair", "a,b", "--picture", "x.svg"], "--picture", "--pair"),
        (["--baseline", "old.json", "--pair", "a,b"], "--pair", "--baseline"),
        (["--baseline", "old.json", "--view", "cost"], "--view", "--baseline"),
        (["--baseline", "old.json", "--out", "x.csv"], "--out", "--baseline"),
        (["--baseline", "old.json", "--dataset", "d"], "--dataset", "--baseline"),
    ],
)
def test_a_flag_that_does_not_apply_is_refused(
    arguments: list[str], flag: str, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made.write_run(made.run_record())
    assert main(["compare", "runs", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"cnnbench: {flag} does not apply to {table} (see `cnnbench compare --help`)\n"


def test_a_baseline_is_compared_with_one_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "new.json", "newer.json", "--baseline", "old.json"]) == 2
    assert "--baseline old.json: expected one latency file to compare with it, got 2" in capsys.readouterr().err
