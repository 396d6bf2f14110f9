"""Rows: what belongs together is joined, what does not is not, and every figure is its record's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import (
    CURVE,
    FIT,
    IMAGES,
    MEASURED,
    first,
    measured,
    run_record,
    shifted,
    write_bundle,
    write_certain,
    write_failure,
    write_latencies,
    write_run,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cnnbench import records
from cnnbench.records.schema import (
    Failure,
)
from cnnbench.tables.gather import Found, Run, cases, correct, gather, groups, latency_key, row, rows, threads
from cnnbench.types import CnnbenchError, Exit


def refused(*paths: str) -> str:
    with pytest.raises(CnnbenchError) as caught:
        rows(gather(list(paths)))
    assert caught.value.code == Exit.DATA
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_figure_of_a_row_is_its_records(tmp_path: Path) -> None:
    taken = [(4.0, 5_000_000, 100.0), (6.0, 9_000_000, None), (5.0, 7_000_000, 300.0)]
    for seed, (seconds, memory, joules) in enumerate(taken, 1):
        fit = replace(
            FIT, train_seconds=seconds, resources=replace(MEASURED, memory_bytes=memory, energy_joules=joules)
        )
        write_run(run_record(seed=seed, right=88 + seed, fit=fit))
    (found,) = rows(gather(["runs"]))
    expected = {
        "task": "d_a",
        "arch": "a",
        "dataset": "d",
        "train_images": 80,
        "test_images": IMAGES,
        "epochs": 2,
        "params": 1_000,
        "fc_weights": 64_000,
        "macs": 20_000,
        "weight_bytes": 4 * 1_000,
        "activation_bytes": 4 * 300,
        "train_seconds": 5.0,
        "memory_bytes": 9_000_000,
        "memory_kind": "resident set",
        "energy_joules": 200.0,
        "energy_kind": "RAPL",
        "accuracies": [0.89, 0.90, 0.91],
        "seeds": 3,
        "failures": [],
    }
    assert {key: found[key] for key in expected} == expected
    unknown = ("ece", "shift_mean", "shift_worst", "equivariance_error", "model_bytes", "verdict")
    assert {found[key] for key in unknown} == {None}


@pytest.mark.parametrize("right", [[90, 93], [90, 94, 92], [88, 90, 91, 95, 89, 90, 92, 91, 93]])
def test_below_ten_seeds_the_interval_is_student_s_t(right: list[int]) -> None:
    accuracies = np.array(right) / IMAGES
    found = row([Run(run_record(seed=n, right=count), Path()) for n, count in enumerate(right)], Found())
    low, high = stats.t.interval(0.95, len(right) - 1, accuracies.mean(), stats.sem(accuracies))
    assert [found["accuracy"], found["accuracy_std"]] == pytest.approx([accuracies.mean(), accuracies.std(ddof=1)])
    assert [found["accuracy_low"], found["accuracy_high"]] == pytest.approx([low, min(high, 1)])
    assert found["interval"] == "Student's t"


def test_an_interval_ends_where_accuracies_do() -> None:
    found = row([Run(run_record(seed=n, right=count), Path()) for n, count in enumerate((100, 98))], Found())
    assert found["accuracy_low"] < 0.98
    assert found["accuracy_high"] == 1


def test_from_ten_seeds_the_interval_is_a_bootstrap_s() -> None:
    found = row([Run(run_record(seed=n, right=85 + n), Path()) for n in range(10)], Found())
    assert found["interval"] == "BCa bootstrap"
    assert 0.85 < found["accuracy_low"] < np.mean(found["accuracies"]) < found["accuracy_high"] < 0.94


def test_one_seed_has_no_interval_and_an_untested_run_no_accuracy() -> None:
    one = row([Run(run_record(), Path()), Run(run_record(seed=2, right=None), Path())], Found())
    assert (one["accuracy"], one["accuracies"], one["seeds"]) == (0.9, [0.9], 1)
    assert one["accuracy_std"] is one["accuracy_low"] is one["accuracy_high"] is one["interval"] is None
    none = row([Run(run_record(right=None), Path())], Found())
    assert (none["accuracy"], none["accuracies"], none["seeds"], none["test_images"]) == (None, [], 0, None)


OTHER = {
    "architecture": {"arch": "b", "task": "d_a"},
    "images": {"data": {"name": "d", "sha256": "others", "train_images": 80}},
    "training images": {"data": {"name": "d", "sha256": "pixels of d", "train_images": 40}},
    "learning rate": {
        "config": {"model": {"arch": "a", "lr": 0.1}, "data": {"batch_size": 8}, "trainer": {"max_epochs": 2}}
    },
    "batch size": {"config": {"model": {"arch": "a"}, "data": {"batch_size": 16}, "trainer": {"max_epochs": 2}}},
    "epochs": {"config": {"model": {"arch": "a"}, "data": {"batch_size": 8}, "trainer": {"max_epochs": 3}}},
    "steps": {
        "config": {"model": {"arch": "a"}, "data": {"batch_size": 8}, "trainer": {"max_epochs": 2, "max_steps": 5}}
    },
    "precision, as the machine had it": {"environment": {"precision": "bf16-mixed"}},
}


@pytest.mark.parametrize("what", OTHER)
def test_runs_that_differ_in_more_than_their_seed_are_other_rows(what: str) -> None:
    found = Found([Run(run_record(seed=1, right=90), Path()), Run(run_record(seed=2, right=70, **OTHER[what]), Path())])
    assert sorted(made["accuracy"] for made in rows(found)) == [0.7, 0.9]


def test_runs_that_differ_in_seed_folder_and_machine_are_one_row() -> None:
    config = {**run_record().config, "runs_dir": "/elsewhere"}
    others = run_record(seed=2, config=config, environment={"host": "b"}, identity="j")
    assert [made["seeds"] for made in rows(Found([Run(run_record(), Path("a")), Run(others, Path("b"))]))] == [2]


@settings(deadline=None, max_examples=30)
@given(st.permutations([(arch, seed) for arch in "abc" for seed in range(3)]))
def test_rows_do_not_depend_on_the_order_in_which_runs_were_found(order: list[tuple[str, int]]) -> None:
    right = {"a": 80, "b": 95, "c": 90}
    found = Found([Run(run_record(arch, seed, right[arch] + seed), Path()) for arch, seed in order])
    assert [[run.record.seed for run in runs] for runs in groups(found)] == [[0, 1, 2]] * 3
    made = rows(found)
    assert [made["arch"] for made in made] == ["b", "c", "a"]
    assert made[0]["accuracies"] == [0.95, 0.96, 0.97]


def test_rows_are_by_dataset_then_training_images_then_accuracy_and_failed_tasks_come_last() -> None:
    few = {"name": "d", "sha256": "pixels of d", "train_images": 20}
    found = Found(
        [
            Run(run_record("a", right=80), Path()),
            Run(run_record("b", right=95), Path()),
            Run(run_record("few", right=99, data=few), Path()),
            Run(run_record("never", right=None), Path()),
            Run(run_record("z", right=50, dataset="c"), Path()),
        ],
        [Failure("d_x", "x", "d", 1, "i", 6, "out of memory", 1.0)],
    )
    assert [made["task"] for made in rows(found)] == ["c_z", "d_few", "d_b", "d_a", "d_never", "d_x"]


def test_a_task_of_which_every_run_failed_is_a_row_with_its_reasons() -> None:
    write_failure("x", 1, "out of memory")
    write_failure("x", 2, "no disk")
    write_run(run_record())
    _, failed = rows(gather(["runs"]))
    assert (failed["task"], failed["arch"], failed["dataset"]) == ("d_x", "x", "d")
    assert failed["failures"] == ["seed 1: out of memory", "seed 2: no disk"]
    assert (failed["accuracy"], failed["seeds"], failed["accuracies"]) == (None, 0, [])


def test_failures_stand_beside_results_of_the_same_task_and_a_later_success_takes_their_place() -> None:
    write_run(run_record(seed=1))
    write_failure("a", 1, "was mended")
    write_failure("a", 2, "out of memory")
    write_run(run_record("b", right=80))
    found, other = rows(gather(["runs"]))
    assert (found["accuracies"], found["failures"]) == ([0.9], ["seed 2: out of memory"])
    assert other["failures"] == []


def test_calibration_error_is_the_mean_over_seeds_whose_predictions_are_there() -> None:
    """All images at one confidence: the error is how far the accuracy is from it (Guo et al. 2017, equation 3)."""
    for seed, right, confidence in ((1, 90, 0.8), (2, 70, 0.95)):
        write_certain(write_run(run_record(seed=seed, right=right)), first(right), confidence)
    write_run(run_record(seed=3, right=10))
    (found,) = rows(gather(["runs"]))
    assert found["ece"] == pytest.approx(((0.9 - 0.8) + (0.95 - 0.7)) / 2, abs=1e-6)


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
    np.testing.assert_array_equal(correct(run), right)


def test_accuracy_under_shifts_is_of_the_checkpoints_that_were_tested() -> None:
    for seed, worst in ((1, 0.6), (2, 0.8)):
        record = run_record(seed=seed)
        records.write(write_run(record) / "robustness.json", shifted(f"checkpoint of {record.task} {seed}", 0.9, worst))
    folder = write_run(run_record(seed=3))
    records.write(folder / "robustness.json", shifted("trained anew", 0.1, 0.1))
    (found,) = rows(gather(["runs"]))
    assert found["shift_worst"] == pytest.approx((0.6 + 0.8) / 2)
    assert found["shift_mean"] == pytest.approx(((0.6 + 7 * 0.75 + 0.9) / 9 + (0.8 + 7 * 0.85 + 0.9) / 9) / 2)
    assert found["equivariance_error"] == pytest.approx((0.3 + 0.4) / 2)


def test_what_has_no_equivariance_error_leaves_it_out() -> None:
    none = shifted("checkpoint of d_a 1", 0.9, 0.6, equivariance=None, reason="no convolution")
    records.write(write_run(run_record()) / "robustness.json", none)
    (found,) = rows(gather(["runs"]))
    assert (found["equivariance_error"], found["shift_worst"]) == (None, 0.6)


def test_a_robustness_record_without_its_run_is_no_result() -> None:
    records.write(Path("runs/robustness.json"), shifted("c", 0.9, 0.6))
    assert "no results below runs" in refused("runs")


def test_time_to_accuracy_is_of_every_seed_that_reached_it() -> None:
    """Training passes are three of the forward's (Kaplan et al. 2020, section 2.1)."""
    late = replace(FIT, curve=(CURVE[0], replace(CURVE[1], train_seconds=9.0)))
    never = replace(FIT, curve=CURVE[:1])
    found = Found([Run(run_record(seed=n, fit=fit), Path()) for n, fit in enumerate((FIT, late, never))])
    (made,) = rows(found, target=0.9)
    assert (made["target"], made["target_seeds"], made["target_of"]) == (0.9, 2, 3)
    assert (made["target_seconds"], made["target_epochs"]) == ([5.5, 9.0], [2, 2])
    assert made["target_macs"] == [3 * 20_000 * 160] * 2
    (early,) = rows(found, target=0.7)
    assert (early["target_seconds"], early["target_epochs"]) == ([2.5] * 3, [1] * 3)
    (unreached,) = rows(found, target=0.95)
    assert (unreached["target_seeds"], unreached["target_seconds"]) == (0, [])
    assert "target" not in rows(found)[0]


def test_bytes_and_verdict_are_of_the_bundle_of_a_tested_checkpoint() -> None:
    write_run(run_record(seed=1))
    write_run(run_record(seed=2))
    write_run(run_record("b", right=80))
    write_bundle(run_record(seed=2), size=70_000)
    write_bundle(run_record("b"), size=1, run={"checkpoint_sha256": "trained anew"})
    mine, other = rows(gather(["runs", "exports"]))
    assert mine["model_bytes"] == 70_000
    assert mine["verdict"] == "3 of 100 images flip, largest logit error 3.0e-04"
    assert (other["model_bytes"], other["verdict"]) == (None, None)


def key(percent: int, runtime: str = "onnxruntime") -> str:
    return f"{runtime}_batch1_threads1_p{percent}_ms"


@pytest.mark.parametrize(("samples", "known"), [(10, []), (11, [50]), (63, [50]), (64, [50, 90]), (662, [50, 90, 99])])
def test_a_percentile_of_too_few_samples_is_none(samples: int, known: list[int]) -> None:
    record = run_record()
    write_run(record)
    write_bundle(record)
    seconds = np.random.RandomState(samples).lognormal(-8, 0.3, samples)
    write_latencies(measured(record, seconds.tolist()))
    (found,) = rows(gather(["runs", "exports", "latency.json"]))
    for percent in (50, 90, 99):
        expected = pytest.approx(1e3 * np.percentile(seconds, percent)) if percent in known else None
        assert found[key(percent)] == expected


def test_latencies_of_other_files_precisions_and_providers_are_not_those_of_the_cpu_s_fp32() -> None:
    record = run_record()
    write_run(record)
    write_bundle(record)
    write_latencies(
        measured(record, [0.001] * 20),
        measured(record, [0.002] * 20, model_sha256="of another file"),
        measured(record, [0.003] * 20, precision="int8"),
        measured(record, [0.004] * 20, provider="cuda"),
    )
    found = gather(["runs", "exports", "latency.json"])
    (made,) = rows(found)
    latencies = {name: value for name, value in made.items() if name.endswith("p50_ms")}
    assert latencies == pytest.approx({key(50): 1.0, key(50, "onnxruntime_cuda"): 4.0})
    assert cases(found) == [("onnxruntime", 1, 1), ("onnxruntime_cuda", 1, 1)]


@given(
    st.lists(st.tuples(st.sampled_from(["torch", "onnxruntime"]), st.integers(1, 99), st.integers(1, 99)), unique=True)
)
def test_no_two_latencies_share_a_key(measured_on: list[tuple[str, int, int]]) -> None:
    keys = {latency_key(case, percent) for case in measured_on for percent in (50, 90, 99)}
    assert len(keys) == 3 * len(measured_on)


def test_threads_are_said_in_words() -> None:
    assert [threads(("torch", 1, count)) for count in (1, 2)] == ["1 thread", "2 threads"]


@pytest.mark.parametrize("missing", ["model_sha256", "runtime", "batch", "threads"])
def test_a_latency_that_does_not_say_of_what_it_is_is_refused(missing: str) -> None:
    record = run_record()
    write_run(record)
    case = measured(record, [0.001] * 20)
    del case["extra_info"][missing]
    write_latencies(case)
    assert "latency.json holds no latencies" in refused("runs", "latency.json")


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
