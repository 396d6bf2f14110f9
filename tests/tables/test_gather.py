"""Records are read wherever they lie, once, and what cannot be read is refused by name."""

import re
from pathlib import Path

import numpy as np
import pytest
from builders import (
    data_record,
    first,
    measured,
    run_record,
    shifted,
    write_certain,
    write_latencies,
    write_run,
)

from cnnbench import records
from cnnbench.records.schema import Failure
from cnnbench.tables.gather import Records, Run, gather, groups, groups_on_full_data, scored_predictions
from cnnbench.tables.rows import rows_of
from cnnbench.types import CnnbenchError, Exit


def refused(*paths: str) -> str:
    with pytest.raises(CnnbenchError) as caught:
        rows_of(gather(list(paths)))
    assert caught.value.code == Exit.DATA
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("right", [first(89), first(90)[10:]], ids=["other answers", "other images"])
def test_predictions_that_were_not_scored_are_refused(right: np.ndarray) -> None:
    folder = write_run(run_record(right=90))
    write_certain(folder, right)
    assert f"{folder}/predictions.parquet are not the predictions of" in refused("runs")


def test_the_right_images_of_a_run_are_those_that_its_predictions_say() -> None:
    right = np.random.RandomState(0).permutation(first(90))
    folder = write_run(run_record(right=90))
    write_certain(folder, right)
    (run,) = gather(["runs"]).runs
    np.testing.assert_array_equal(scored_predictions(run).correct, right)


def test_a_robustness_record_without_its_run_is_no_result() -> None:
    records.write(Path("runs/robustness.json"), shifted("c", 0.9, 0.6))
    assert "no results below runs" in refused("runs")


@pytest.mark.parametrize("missing", ["model_sha256", "backend", "batch", "threads"])
def test_a_latency_that_does_not_say_of_what_it_is_is_refused(missing: str) -> None:
    record = run_record()
    write_run(record)
    case = measured(record, [0.001] * 20)
    del case["extra_info"][missing]
    write_latencies(case)
    assert re.search("latency.json (holds no|is not a record of) latencies", refused("runs", "latency.json"))


def test_the_record_of_another_version_is_refused_with_both_schemas() -> None:
    path = write_run(run_record()) / "result.json"
    path.write_text(path.read_text().replace("cnnbench.run/2", "cnnbench.run/1"))
    assert refused("runs") == f"{path} has schema 'cnnbench.run/1'; this version reads 'cnnbench.run/2'"


@pytest.mark.parametrize("name", ["result.json", "failure.json", "manifest.json", "latency_test.json"])
def test_a_foreign_file_is_passed_over_where_it_is_found_and_refused_where_it_is_named(name: str) -> None:
    write_run(run_record())
    Path("runs/theirs").mkdir()
    path = Path("runs/theirs") / name
    path.write_text('{"name": "a web page", "schema": 3}')
    assert len(gather(["runs"]).runs) == 1
    assert str(path) in refused("runs", str(path))


@pytest.mark.parametrize("name", ["result.json", "failure.json", "robustness.json", "manifest.json", "latency.json"])
def test_a_half_written_file_is_refused_by_name(name: str) -> None:
    folder = write_run(run_record())
    (folder / name).write_text('{"schema": "cnnbench.')
    assert f"{folder / name} is not JSON" in refused("runs")


@pytest.mark.parametrize("name", [".d_a-x1", "d_a.replaced"])
def test_what_is_being_written_or_was_replaced_is_not_read(name: str) -> None:
    write_run(run_record())
    write_run(run_record(seed=2), runs=f"runs/{name}")
    assert [run.record.seed for run in gather(["runs"]).runs] == [1]


def test_no_results_and_no_folder_are_told() -> None:
    Path("empty").mkdir()
    assert refused("empty").startswith("no results below empty; `cnnbench fit`")
    write_run(run_record())
    assert (
        refused("runs", "nowhere") == "nowhere does not exist; expected a folder of runs or bundles, or a latency file"
    )


def test_a_run_counts_once_where_paths_overlap() -> None:
    write_run(run_record())
    assert len(gather(["runs", "runs/d_a", "runs/d_a/seed1/result.json"]).runs) == 1


def test_a_seed_counts_once_and_two_results_of_one_seed_are_refused() -> None:
    write_run(run_record("a", 1, 90))
    write_run(run_record("a", 1, 90), "copies")
    (runs,) = groups(gather(["runs", "copies"]))
    assert len(runs) == 1
    write_run(run_record("a", 1, 80), "others")
    with pytest.raises(CnnbenchError, match="are both seed 1 of d_a, with other results"):
        groups(gather(["runs", "others"]))


def test_of_a_dataset_the_runs_and_failures_alone_are_left() -> None:
    failures = [Failure(f"{name}_x", "x", name, 1, "i", 6, "out of memory", 1.0) for name in "de"]
    found = Records([Run(run_record(dataset=name), Path()) for name in "de"], failures)
    of_e = found.of_dataset("e")
    assert [run.record.task for run in of_e.runs] == ["e_a"]
    assert [failure.task for failure in of_e.failures] == ["e_x"]
    with pytest.raises(CnnbenchError, match="no runs on 'f'"):
        found.of_dataset("f")


def test_only_groups_on_the_most_images_of_their_dataset_compare() -> None:
    sizes = {"d": (80, 40), "e": (20,)}
    runs = [
        Run(run_record("a", dataset=name, data=data_record(name, train_images=size)), Path())
        for name, several in sizes.items()
        for size in several
    ]
    left = [runs[0].record.data for runs in groups_on_full_data(groups(Records(runs)))]
    assert [(data.name, data.train_images) for data in left] == [("d", 80), ("e", 20)]
