"""Rows: what belongs together is joined, what does not is not, and every figure is its record's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import (
    CURVE,
    FIT,
    IMAGES,
    MEASURED,
    data_record,
    environment,
    first,
    measured,
    run_config,
    run_record,
    scored,
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
from sklearn.metrics import balanced_accuracy_score

from cnnbench import records
from cnnbench.analysis.crossed import accuracy_interval
from cnnbench.analysis.per_class import tally
from cnnbench.records.bundle import BundleRun
from cnnbench.records.schema import ClassTally, Failure
from cnnbench.tables.gather import Records, Run, gather, groups
from cnnbench.tables.rows import LatencyKey, Percentiles, TimeToTarget, latency_keys, row_of, rows_of


def test_every_figure_of_a_row_is_its_records(tmp_path: Path) -> None:
    taken = [(4.0, 5_000_000, 100.0), (6.0, 9_000_000, None), (5.0, 7_000_000, 300.0)]
    for seed, (seconds, memory, joules) in enumerate(taken, 1):
        fit = records.replace(
            FIT, train_seconds=seconds, resources=records.replace(MEASURED, memory_bytes=memory, energy_joules=joules)
        )
        write_run(run_record(seed=seed, right=88 + seed, fit=fit))
    (found,) = rows_of(gather(["runs"]))
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
        "accuracies": (0.89, 0.90, 0.91),
        "seeds": 3,
        "failures": (),
    }
    assert {key: getattr(found, key) for key in expected} == expected
    unknown = ("ece", "shift_mean", "shift_worst", "equivariance_error", "model_bytes", "verdict")
    assert {getattr(found, key) for key in unknown} == {None}


@pytest.mark.parametrize("right", [[90, 94, 92], [88, 90, 91, 95, 89, 90, 92, 91, 93, 90, 90]])
def test_without_predictions_the_interval_is_student_s_t_over_seeds_alone(right: list[int]) -> None:
    accuracies = np.array(right) / IMAGES
    found = row_of([Run(run_record(seed=n, right=count), Path()) for n, count in enumerate(right)], Records())
    low, high = stats.t.interval(0.95, len(right) - 1, accuracies.mean(), stats.sem(accuracies))
    assert [found.accuracy, found.accuracy_std] == pytest.approx([accuracies.mean(), accuracies.std(ddof=1)])
    assert [found.accuracy_low, found.accuracy_high] == pytest.approx([low, min(high, 1)])
    assert (found.interval, found.interval_scope) == ("Student's t", "seeds")


def test_with_the_predictions_of_all_seeds_it_is_for_new_seeds_and_new_images() -> None:
    correct = np.stack([np.roll(first(90), 3 * seed) for seed in range(3)])
    runs = []
    for seed, right in enumerate(correct):
        record = run_record(seed=seed, right=90)
        folder = write_run(record)
        write_certain(folder, right)
        runs.append(Run(record, folder))
    found, expected = row_of(runs, Records()), accuracy_interval(correct)
    assert expected is not None
    assert (found.accuracy_low, found.accuracy_high) == (expected.low, expected.high)
    assert found.interval_scope == "seeds and images"
    (runs[1].folder / "predictions.parquet").unlink()
    assert row_of(runs, Records()).interval_scope == "seeds"


def test_an_interval_ends_where_accuracies_do() -> None:
    found = row_of([Run(run_record(seed=n, right=count), Path()) for n, count in enumerate((100, 97, 100))], Records())
    assert found.accuracy_high == 1


def test_two_seeds_are_too_few_for_an_interval() -> None:
    found = row_of([Run(run_record(seed=n, right=90 + n), Path()) for n in range(2)], Records())
    assert found.accuracy_std is not None
    assert found.accuracy_low is found.accuracy_high is found.interval is found.interval_scope is None
    assert found.accuracy_spread == "too few seeds"


def test_one_seed_has_wilson_s_interval_for_new_images_and_an_untested_run_no_accuracy() -> None:
    one = row_of([Run(run_record(), Path()), Run(run_record(seed=2, right=None), Path())], Records())
    expected = stats.binomtest(90, IMAGES).proportion_ci(0.95, method="wilson")
    assert (one.accuracy, one.accuracies, one.seeds, one.accuracy_std) == (0.9, (0.9,), 1, None)
    assert (one.accuracy_low, one.accuracy_high) == pytest.approx((expected.low, expected.high))
    assert (one.interval, one.interval_scope) == ("Wilson", "images")
    none = row_of([Run(run_record(right=None), Path())], Records())
    assert (none.accuracy, none.accuracies, none.seeds, none.test_images) == (None, (), 0, None)
    assert none.accuracy_spread == "not tested"


OTHER: dict[str, dict[str, Any]] = {
    "architecture": {"arch": "b", "task": "d_a"},
    "images": {"data": data_record(sha256="others")},
    "training images": {"data": data_record(train_images=40)},
    "learning rate": {"config": run_config(lr=0.1)},
    "batch size": {"config": run_config(batch_size=16)},
    "epochs": {"config": run_config(max_epochs=3)},
    "steps": {"config": run_config(max_steps=5)},
    "precision, as the machine had it": {"environment": environment(precision="bf16-mixed")},
}


@pytest.mark.parametrize("what", OTHER)
def test_runs_that_differ_in_more_than_their_seed_are_other_rows(what: str) -> None:
    found = Records(
        [Run(run_record(seed=1, right=90), Path()), Run(run_record(seed=2, right=70, **OTHER[what]), Path())]
    )
    assert sorted(made.accuracy for made in rows_of(found)) == [0.7, 0.9]


def test_runs_that_differ_in_seed_folder_and_machine_are_one_row() -> None:
    others = run_record(seed=2, environment=environment(cpu="another processor"), identity="j")
    assert [made.seeds for made in rows_of(Records([Run(run_record(), Path("a")), Run(others, Path("b"))]))] == [2]


@settings(deadline=None, max_examples=30)
@given(st.permutations([(arch, seed) for arch in "abc" for seed in range(3)]))
def test_rows_do_not_depend_on_the_order_in_which_runs_were_found(order: list[tuple[str, int]]) -> None:
    right = {"a": 80, "b": 95, "c": 90}
    found = Records([Run(run_record(arch, seed, right[arch] + seed), Path()) for arch, seed in order])
    assert [[run.record.seed for run in runs] for runs in groups(found)] == [[0, 1, 2]] * 3
    made = rows_of(found)
    assert [made.arch for made in made] == ["b", "c", "a"]
    assert made[0].accuracies == (0.95, 0.96, 0.97)


def test_rows_are_by_dataset_then_training_images_then_accuracy_and_failed_tasks_come_last() -> None:
    few = data_record(train_images=20)
    found = Records(
        [
            Run(run_record("a", right=80), Path()),
            Run(run_record("b", right=95), Path()),
            Run(run_record("few", right=99, data=few), Path()),
            Run(run_record("never", right=None), Path()),
            Run(run_record("z", right=50, dataset="c"), Path()),
        ],
        [Failure("d_x", "x", "d", 1, "i", 6, "out of memory", 1.0)],
    )
    assert [made.task for made in rows_of(found)] == ["c_z", "d_few", "d_b", "d_a", "d_never", "d_x"]


def test_a_task_of_which_every_run_failed_is_a_row_with_its_reasons() -> None:
    write_failure("x", 1, "out of memory")
    write_failure("x", 2, "no disk")
    write_run(run_record())
    _, failed = rows_of(gather(["runs"]))
    assert (failed.task, failed.arch, failed.dataset) == ("d_x", "x", "d")
    assert failed.failures == ("seed 1: out of memory", "seed 2: no disk")
    assert (failed.accuracy, failed.seeds, failed.accuracies) == (None, 0, ())


def test_failures_stand_beside_results_of_the_same_task_and_a_later_success_takes_their_place() -> None:
    write_run(run_record(seed=1))
    write_failure("a", 1, "was mended")
    write_failure("a", 2, "out of memory")
    write_run(run_record("b", right=80))
    found, other = rows_of(gather(["runs"]))
    assert (found.accuracies, found.failures) == ((0.9,), ("seed 2: out of memory",))
    assert other.failures == ()


def test_calibration_error_is_the_mean_over_seeds_whose_predictions_are_there() -> None:
    """All images at one confidence: the error is how far the accuracy is from it (Guo et al. 2017, equation 3)."""
    for seed, right, confidence in ((1, 90, 0.8), (2, 70, 0.95)):
        write_certain(write_run(run_record(seed=seed, right=right)), first(right), confidence)
    write_run(run_record(seed=3, right=10))
    (found,) = rows_of(gather(["runs"]))
    assert found.ece == pytest.approx(((0.9 - 0.8) + (0.95 - 0.7)) / 2, abs=1e-6)


def test_accuracy_under_shifts_is_of_the_checkpoints_that_were_tested() -> None:
    for seed, worst in ((1, 0.6), (2, 0.8)):
        record = run_record(seed=seed)
        records.write(write_run(record) / "robustness.json", shifted(f"checkpoint of {record.task} {seed}", 0.9, worst))
    folder = write_run(run_record(seed=3))
    records.write(folder / "robustness.json", shifted("trained anew", 0.1, 0.1))
    (found,) = rows_of(gather(["runs"]))
    assert found.shift_worst == pytest.approx((0.6 + 0.8) / 2)
    assert found.shift_mean == pytest.approx(((0.6 + 7 * 0.75 + 0.9) / 9 + (0.8 + 7 * 0.85 + 0.9) / 9) / 2)
    assert found.equivariance_error == pytest.approx((0.3 + 0.4) / 2)


def test_what_has_no_equivariance_error_leaves_it_out() -> None:
    none = shifted("checkpoint of d_a 1", 0.9, 0.6, equivariance=None, reason="no convolution")
    records.write(write_run(run_record()) / "robustness.json", none)
    (found,) = rows_of(gather(["runs"]))
    assert (found.equivariance_error, found.shift_worst) == (None, 0.6)


def test_time_to_accuracy_is_of_every_seed_that_reached_it() -> None:
    late = records.replace(FIT, curve=(CURVE[0], records.replace(CURVE[1], train_seconds=9.0)))
    never = records.replace(FIT, curve=CURVE[:1])
    found = Records([Run(run_record(seed=n, fit=fit), Path()) for n, fit in enumerate((FIT, late, never))])
    (made,) = rows_of(found, target=0.9)
    macs = 55_000 * 160
    assert made.time_to_target == TimeToTarget(0.9, 3, (5.5, 9.0), (2, 2), (macs, macs), (2.5,), (1,), (macs // 2,))
    assert made.time_to_target.median("seconds") == 9.0  # the third counts as later
    (early,) = rows_of(found, target=0.7)
    assert early.time_to_target is not None
    assert (early.time_to_target.seconds, early.time_to_target.epochs) == ((2.5,) * 3, (1,) * 3)
    (unreached,) = rows_of(found, target=0.95)
    assert unreached.time_to_target is not None
    assert (unreached.time_to_target.seconds, unreached.time_to_target.unreached_seconds) == ((), (5.5, 9.0, 2.5))
    assert rows_of(found)[0].time_to_target is None


def test_training_macs_that_a_record_does_not_have_are_no_figure() -> None:
    records_of = [run_record(seed=1), records.replace(run_record(seed=2), training_macs=None)]
    (made,) = rows_of(Records([Run(record, Path()) for record in records_of]), target=0.7)
    assert made.time_to_target is not None
    assert (made.time_to_target.seeds, made.time_to_target.macs) == (2, ())


def test_bytes_and_verdict_are_of_the_bundle_of_a_tested_checkpoint() -> None:
    write_run(run_record(seed=1))
    write_run(run_record(seed=2))
    write_run(run_record("b", right=80))
    write_bundle(run_record(seed=2), size=70_000)
    write_bundle(run_record("b"), size=1, run=BundleRun("trained anew", 2, 0.9, ()))
    mine, other = rows_of(gather(["runs", "exports"]))
    assert mine.model_bytes == 70_000
    assert mine.verdict == "3 of 100 images flip, largest logit error 3.0e-04"
    assert (other.model_bytes, other.verdict) == (None, None)


@pytest.mark.parametrize(("samples", "known"), [(10, []), (11, [50]), (63, [50]), (64, [50, 90]), (662, [50, 90, 99])])
def test_a_percentile_of_too_few_samples_is_none(samples: int, known: list[int]) -> None:
    record = run_record()
    write_run(record)
    write_bundle(record)
    seconds = np.random.RandomState(samples).lognormal(-8, 0.3, samples)
    write_latencies(measured(record, seconds.tolist()))
    (found,) = rows_of(gather(["runs", "exports", "latency.json"]))
    for percent in (50, 90, 99):
        expected = pytest.approx(1e3 * np.percentile(seconds, percent)) if percent in known else None
        assert found.latency_ms(LatencyKey(), percent) == expected


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
    (made,) = rows_of(found)
    cpu, cuda = LatencyKey(), LatencyKey(provider="cuda")
    assert made.latencies == {
        cpu: Percentiles(pytest.approx(1.0), None, None),
        cuda: Percentiles(pytest.approx(4.0), None, None),
    }
    assert latency_keys(found) == [cpu, cuda]


def test_a_latency_that_was_not_measured_is_none() -> None:
    row = row_of([Run(run_record(), Path())], Records())
    assert row.latency_ms(LatencyKey(), 50) is None


KEYS = st.builds(
    LatencyKey,
    st.sampled_from(["torch", "onnxruntime"]),
    st.sampled_from(["cpu", "cuda"]),
    st.integers(1, 99),
    st.integers(1, 99),
)


@given(st.lists(KEYS, unique=True))
def test_no_two_latencies_share_a_column(keys: list[LatencyKey]) -> None:
    columns = {key.column(percent) for key in keys for percent in (50, 90, 99)}
    assert len(columns) == 3 * len(keys)


def test_latencies_have_the_columns_that_earlier_versions_gave_them() -> None:
    assert LatencyKey().column(50) == "onnxruntime_batch1_threads1_p50_ms"
    assert LatencyKey("torch", "cuda", 64, 2).column(99) == "torch_cuda_batch64_threads2_p99_ms"


def test_what_a_latency_was_measured_on_is_said_in_words() -> None:
    assert LatencyKey("torch", batch=8).setting == "batch 8, 1 thread"
    assert LatencyKey(threads=2).setting == "batch 1, 2 threads"
    assert [LatencyKey(provider=provider).place for provider in ("cpu", "cuda")] == [
        "onnxruntime",
        "onnxruntime on cuda",
    ]


def test_figures_by_class_are_means_over_seeds_from_records_or_predictions(tmp_path: Path) -> None:
    labels = np.arange(IMAGES) % 2
    balanced = []
    for seed, right in ((1, 90), (2, 96)):
        folder = write_run(run_record(seed=seed, right=right))  # a record of an earlier version: no figures by class
        write_certain(folder, first(right))
        predictions = np.where(first(right), labels, 1 - labels)
        balanced.append(balanced_accuracy_score(labels, predictions))
        if seed == 2:
            (folder / "predictions.parquet").unlink()
            test = records.replace(scored(right, "c"), by_class=tally(labels, predictions, classes=2))
            write_run(run_record(seed=2, right=right, test=test, class_names=("no", "yes")))
    (found,) = rows_of(gather(["runs"]))
    assert (found.majority, found.majority_class, found.is_unbalanced) == (0.5, "class 0", False)
    assert found.balanced_accuracy == pytest.approx(np.mean(balanced))
    assert (found.lowest_recall, found.lowest_recall_class) == (pytest.approx(np.mean([45, 48]) / 50), "class 0")


def test_a_row_whose_largest_class_has_half_as_much_again_as_its_share_is_unbalanced() -> None:
    for images, unbalanced in (((75, 25), False), ((76, 24), True)):
        counts = ClassTally(images=images, correct=images, predicted=images)
        record = run_record(test=records.replace(scored(100, "c"), by_class=counts))
        assert row_of([Run(record, Path())], Records()).is_unbalanced is unbalanced
