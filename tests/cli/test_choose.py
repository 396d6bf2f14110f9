"""`choose`: the cheapest that keeps the limits, and in words why every other one lost."""

import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from builders import data_record, fitted, measured, run_record, write_bundle, write_failure, write_latencies, write_run
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.records.bundle import FileHash, Manifest
from cnnbench.records.schema import RunRecord
from cnnbench.tables.candidates import Candidate, Score
from cnnbench.tables.choose import choose_file
from cnnbench.tables.limits import Limits
from cnnbench.tables.rows import Row
from cnnbench.training.predictions import write_predictions
from cnnbench.types import Cost

LATENCY = "exports/latency.json"
SAMPLES = np.linspace(0.9, 1.1, 101)
"""Of a latency with median 1; the 90th percentile is 1.08."""


def write_network(
    arch: str,
    right: int,
    macs: int,
    params: int = 1_000,
    size: int | None = None,
    ms: float | None = None,
    **changes: Any,
) -> RunRecord:
    """A tested run of d_<arch>, with a bundle of `size` bytes and a median latency where they are given."""
    record = run_record(arch, right=right, cost=Cost(params, macs, 300, 2), **changes)
    write_run(record)
    if size is not None:
        write_bundle(record, size)
    if ms is not None:
        write_latencies(measured(record, (SAMPLES * ms / 1e3).tolist()), path=f"exports/latency_{arch}.json")
    return record


def write_three() -> None:
    """Small, middle, large: each more accurate and of more MACs; their bytes, parameters and latency go otherwise."""
    small = write_network("small", 80, macs=1_000, params=9_000, size=20_000)
    middle = write_network("middle", 90, macs=2_000, params=8_000, size=30_000)
    large = write_network("large", 99, macs=8_000, params=7_000, size=10_000)
    medians = ((small, 0.5), (middle, 0.25), (large, 2.0))
    write_latencies(*(measured(record, (SAMPLES * ms / 1e3).tolist()) for record, ms in medians), path=LATENCY)


DETAILS = ("  file ", "  not exported", "  test accuracy ", "  trained again")
"""How the lines about the chosen file begin."""


def lines(
    capsys: pytest.CaptureFixture[str], *arguments: str, paths: tuple[str, ...] = ("runs", "exports")
) -> list[str]:
    code = main(["choose", *paths, *arguments])
    printed = capsys.readouterr().out.splitlines()
    assert code == (8 if printed[0].startswith("none: ") else 0)
    return [line for line in printed if not line.startswith(DETAILS)]


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    assert main(["choose", *arguments]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("cnnbench: ")
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("by", "start"),
    [
        ("macs", "d_small fp32: fewest MACs "),
        ("latency", "d_middle fp32: lowest p90 latency "),
        ("bytes", "d_large fp32: fewest ONNX bytes "),
        ("params", "d_large fp32: fewest parameters "),
    ],
)
def test_cheap_is_what_by_says(by: str, start: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_three()
    assert lines(capsys, "--by", by)[0].startswith(start)


def test_one_line_answers_and_one_a_network_says_what_it_lost_by(capsys: pytest.CaptureFixture[str]) -> None:
    write_three()
    limits = ["--min-accuracy", "0.85", "--max-latency", "3ms", "--max-bytes", "1000000"]
    assert lines(capsys, *limits) == [
        "d_middle fp32: fewest MACs with accuracy >= 85.00 %, p90 latency <= 3.000 ms, ONNX bytes <= 1,000,000; "
        "validation accuracy 90.00 % (90 of 100), 95 % interval for 3 files at once from 80.52 %, below the limit; "
        "MACs 2,000, ONNX bytes 30,000, p90 latency 0.270 ms",
        "  d_large fp32: keeps the limits with 99.00 %, but has 4x the MACs (8,000)",
        "  d_small fp32: accuracy 80.00 % is below 85.00 %",
    ]


def test_by_latency_the_runner_up_loses_by_its_latency(capsys: pytest.CaptureFixture[str]) -> None:
    write_three()
    _, large, small = lines(capsys, "--by", "latency")
    assert large == "  d_large fp32: keeps the limits with 99.00 %, but has 8x the p90 latency (2.160 ms)"
    assert small == "  d_small fp32: keeps the limits with 80.00 %, but has 2x the p90 latency (0.540 ms)"


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        (("--min-accuracy", "0.995"), "accuracy 99.00 % is below 99.50 %"),
        (("--max-latency", "2.1ms"), "p90 latency 2.160 ms is above 2.100 ms"),
        (("--max-bytes", "9999"), "ONNX bytes 10,000 is above 9,999"),
        (("--max-macs", "7999"), "MACs 8,000 is above 7,999"),
        (("--max-params", "6999"), "parameters 7,000 is above 6,999"),
    ],
)
def test_every_limit_that_is_missed_is_told(
    limit: tuple[str, str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_three()
    assert f"  d_large fp32: {told}" in lines(capsys, *limit)


@pytest.mark.parametrize(
    "limit",
    [
        ("--min-accuracy", "0.99"),
        ("--max-latency", "2.16001ms"),
        ("--max-bytes", "10000"),
        ("--max-macs", "8000"),
        ("--max-params", "7000"),
    ],
)
def test_a_limit_that_is_just_met_is_kept(limit: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    write_three()
    assert any(
        line.lstrip().startswith(("d_large fp32: keeps", "d_large fp32: fewest")) for line in lines(capsys, *limit)
    )


def test_all_misses_of_a_network_stand_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    write_three()
    told = lines(capsys, "--min-accuracy", "0.85", "--max-macs", "1500", "--max-params", "8500")
    wanted = "none: no network keeps accuracy >= 85.00 %, MACs <= 1,500, parameters <= 8,500"
    assert (
        told[0] == f"{wanted}; the nearest is d_middle fp32: relax MACs from 1,500 to 2,000"
    )  # it misses one limit, the others two
    assert "  d_small fp32: accuracy 80.00 % is below 85.00 %; parameters 9,000 is above 8,500" in told
    assert "  d_large fp32: MACs 8,000 is above 1,500" in told


def test_of_equal_costs_the_more_accurate_is_chosen_then_the_first_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    for arch, right in (("a", 90), ("c", 95), ("b", 95)):
        place = "runs/0" if arch == "c" else "runs"  # found before the others
        write_run(run_record(arch, right=right, cost=Cost(1_000, 1_000, 300, 2)), place)
    first, *others = lines(capsys, paths=("runs",))
    assert first.startswith("d_b: fewest MACs (no limits given); validation accuracy 95.00 % (95 of 100); MACs 1,000")
    assert sorted(others) == [
        "  d_a: keeps the limits with 90.00 % at the same MACs, but is less accurate",
        "  d_c: keeps the limits with 95.00 % at the same MACs, and is as accurate",
    ]


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_a_limit_is_missed_exactly_where_the_figure_is_beyond_it(macs: int, limit: int) -> None:
    row = Row(task="d_a", arch="a", dataset="d", accuracy=0.9, macs=macs)
    choice = choose_file([Candidate(row=row, val=Score(9, 10), test=Score(9, 10))], Limits(max_macs=limit))
    assert (choice.chosen is None) == (macs > limit)
    assert all(f"{macs:,}" in other.reason for other in choice.others)


@given(st.integers(0, 500), st.floats(0, 1))
def test_an_accuracy_is_missed_exactly_where_it_is_below_the_limit(right: int, limit: float) -> None:
    row = Row(task="d_a", arch="a", dataset="d", accuracy=0.9, macs=1)
    known = [Candidate(row=row, val=Score(right, 500), test=Score(9, 10))]
    assert (choose_file(known, Limits(min_accuracy=limit)).chosen is None) == (right / 500 < limit)


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        (("--max-bytes", "1000"), "ONNX bytes not measured (cnnbench export)"),
        (("--max-latency", "1ms"), "p90 latency not measured (cnnbench bench; a p90 needs 64 calls)"),
        (("--by", "bytes"), "ONNX bytes not measured (cnnbench export)"),
        (
            ("--by", "latency", "--max-latency", "1ms"),
            "p90 latency not measured (cnnbench bench; a p90 needs 64 calls)",
        ),
    ],
)
def test_what_was_not_measured_is_named_with_its_command(
    limit: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_network("a", 90, macs=1_000)
    first, other = lines(capsys, *limit, paths=("runs",))
    assert first == f"none: no network has its {told.replace(' not measured', ' measured')}"
    assert other == f"  d_a: {told}"


def test_the_nearest_is_not_found_by_test_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    for first, second in ((99, 91), (91, 99)):
        write_network("a", first, macs=1_000, fit=fitted(95))
        write_network("b", second, macs=1_000, fit=fitted(95))
        assert "the nearest is d_a: " in lines(capsys, "--min-accuracy", "99%", paths=("runs",))[0]


def test_one_seed_says_nothing_of_training_again(capsys: pytest.CaptureFixture[str]) -> None:
    write_network("a", 90, macs=1_000)
    assert main(["choose", "runs"]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert told == "  trained again: not known from one seed; `cnnbench sweep` trains more"


def test_where_a_cost_is_measured_for_some_the_others_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    write_network("a", 99, macs=1_000)
    write_network("b", 90, macs=1_000, size=20_000)
    first, other = lines(capsys, "--by", "bytes")
    assert first.startswith("d_b fp32: fewest ONNX bytes")
    assert other == "  d_a: ONNX bytes not measured (cnnbench export)"


def test_a_p90_of_too_few_calls_is_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    record = write_network("a", 90, macs=1_000, size=20_000)
    write_latencies(measured(record, [0.001] * 63))
    told = lines(capsys, "--max-latency", "5ms", paths=("runs", "exports", "latency.json"))
    assert "a p90 needs 64 calls" in told[1]
    write_latencies(measured(record, [0.001] * 64))
    assert lines(capsys, "--max-latency", "5ms", paths=("runs", "exports", "latency.json"))[0].startswith("d_a fp32: ")


def test_failed_and_untested_networks_are_never_chosen_and_say_why(capsys: pytest.CaptureFixture[str]) -> None:
    write_run(run_record("untested", right=None, cost=Cost(1, 1, 1, 1)))
    write_failure("failed", 2, "out of memory")
    write_network("a", 90, macs=1_000)
    first, *others = lines(capsys, "--max-bytes", "5", paths=("runs",))
    assert first.startswith("none: ")
    assert "  d_untested: it has no tested run (cnnbench test)" in others
    assert "  d_failed: seed 2: out of memory" in others
    assert lines(capsys, paths=("runs",))[0].startswith("d_a: ")


def test_the_file_is_named_with_its_test_accuracy_and_what_training_again_gives(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for seed, right in enumerate((90, 94, 92)):
        write_network("a", right, macs=1_000, seed=seed, fit=fitted(right + 2))
    write_bundle(run_record("a", 1, 94, fit=fitted(96)))
    low, high = stats.t.interval(0.95, 2, 0.92, stats.sem([0.90, 0.94, 0.92]))
    assert main(["choose", "runs", "exports", "--min-accuracy", "95%"]) == 0
    first, *details = capsys.readouterr().out.splitlines()
    assert "validation accuracy 96.00 % (96 of 100), 95 % interval from 90.16 %, " in first
    assert details == [
        "  file exports/d_a/model.onnx (its record alone is here), SHA-256 file of d_a",
        "  test accuracy 90.00 % (90 of 100), below 95.00 %",
        f"  trained again: test accuracy 92.00 % (95 % interval {100 * low:.2f} to {100 * high:.2f}, over seeds alone, "
        "3 seeds), in PyTorch",
    ]


def test_without_a_bundle_it_is_the_best_seed_on_validation(capsys: pytest.CaptureFixture[str]) -> None:
    for seed, (right, val) in enumerate(((99, 90), (91, 94), (98, 92))):
        write_network("a", right, macs=1_000, seed=seed, fit=fitted(val))
    assert main(["choose", "runs", "--min-accuracy", "93%"]) == 0
    first, made, test, _ = capsys.readouterr().out.splitlines()
    assert "validation accuracy 94.00 % (94 of 100)" in first
    assert made == "  not exported: `cnnbench export` makes the file"
    assert test == "  test accuracy 91.00 % (91 of 100), below 93.00 %"


def write_two_precisions() -> None:
    """fp32 with 95 of 100 on validation in 50,000 bytes, int8 with 94 in 12,000; int8 of a network that lost 3."""
    record = run_record("a", right=90, fit=fitted(95))
    write_run(record)
    folder = write_bundle(record)
    manifest = records.read(folder / "manifest.json", Manifest)
    fp32 = manifest.variants[0]
    int8 = records.replace(fp32, precision="int8", file="model_int8.onnx", bytes=12_000, lost_points=1.0)
    refused = records.replace(int8, precision="fp16", file="model_fp16.onnx", bytes=1, refused="no")
    files = {**manifest.files, "model_int8.onnx": FileHash("the int8 file", 12_000)}
    records.write(folder / "manifest.json", records.replace(manifest, variants=(fp32, refused, int8), files=files))
    cases = [measured(record, (SAMPLES / 1e3).tolist())]
    cases += [
        measured(record, (SAMPLES * ms / 1e3).tolist(), precision="int8", backend=backend)
        for backend, ms in (("onnxruntime", 2), ("openvino", 0.5), ("torch", 0.1))
    ]
    write_latencies(*cases, path=LATENCY)


def test_files_of_lower_precision_are_candidates_with_their_own_figures(capsys: pytest.CaptureFixture[str]) -> None:
    write_two_precisions()
    first, other, refused = lines(capsys, "--min-accuracy", "93%", "--max-bytes", "13kB")
    assert first.startswith("d_a int8: fewest MACs with accuracy >= 93.00 %, ONNX bytes <= 13,000; ")
    assert "accuracy 94.00 % (94 of 100)" in first
    assert "ONNX bytes 12,000, p90 latency 2.160 ms" in first
    assert other == "  d_a fp32: ONNX bytes 50,000 is above 13,000"
    assert refused == "  d_a fp16: refused by export: no"
    assert main(["choose", "runs", "exports", "--max-bytes", "13kB", "--format", "json"]) == 0
    chosen = json.loads(capsys.readouterr().out)["chosen"]
    assert (chosen["name"], chosen["file"]["sha256"], chosen["file"]["bytes"]) == ("d_a int8", "the int8 file", 12_000)
    assert chosen["file"]["path"] == "exports/d_a/model_int8.onnx"
    assert chosen["file"]["val"]["right"] == 94


def test_where_latency_counts_every_backend_that_runs_the_file_is_a_candidate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_two_precisions()
    first, *others = lines(capsys, "--by", "latency")
    assert first.startswith("d_a int8 in openvino: lowest p90 latency (no limits given)")
    assert [other.split(":")[0] for other in others] == ["  d_a fp32", "  d_a int8 in onnxruntime", "  d_a fp16"]
    assert lines(capsys, "--by", "latency", "--backend", "onnxruntime")[0].startswith("d_a fp32: lowest")


def test_latencies_of_several_runs_of_bench_are_told_where_they_count(capsys: pytest.CaptureFixture[str]) -> None:
    write_network("a", 90, macs=1_000, size=20_000, ms=1)
    write_network("b", 92, macs=2_000, size=20_000, ms=2)
    assert "runs of bench" not in lines(capsys)[-1]
    *_, note = lines(capsys, "--max-latency", "9ms")
    assert note.startswith("latencies of 2 runs of bench (")
    assert "between them is in the differences" in note
    assert main(["choose", "runs", "exports", "--max-latency", "9ms", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["note"] == note


def test_a_network_at_the_most_frequent_class_is_not_recommended(capsys: pytest.CaptureFixture[str]) -> None:
    record = run_record("a", right=99, fit=fitted(60), class_names=("cat", "dog"))
    labels = torch.tensor([1] * 55 + [0] * 45)
    write_predictions(
        write_run(record) / "val_predictions.parquet",
        torch.stack([torch.arange(100), labels, labels, 1 - labels, labels], dim=1).float(),
    )
    first, other = lines(capsys, paths=("runs",))
    assert first == "none: no network is better than always answering dog (55.00 %)"
    assert other == "  d_a: accuracy 60.00 % (60 of 100) is not shown to be better than always answering dog (55.00 %)"


def test_several_datasets_are_refused_until_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    write_network("a", 90, macs=1_000)
    write_network("a", 99, macs=500, dataset="e")
    assert "there are runs on d, e: name one with --dataset" in fails(capsys, 2, "runs")
    assert "no runs on 'f'; there are d, e" in fails(capsys, 2, "runs", "--dataset", "f")
    (only,) = lines(capsys, "--dataset", "d", paths=("runs",))
    assert only.startswith("d_a: ")


def test_the_latency_that_counts_is_the_one_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    record = write_network("a", 90, macs=1_000, size=20_000)
    write_latencies(
        measured(record, (SAMPLES / 1e3).tolist()),
        measured(record, (SAMPLES * 4 / 1e3).tolist(), backend="torch"),
        measured(record, (SAMPLES * 2 / 1e3).tolist(), threads=2),
        measured(record, (SAMPLES * 9 / 1e3).tolist(), batch=64),
    )
    paths = ("runs", "exports", "latency.json")
    for options, ms in (((), 1.08), (("--backend", "torch"), 4.32), (("--threads", "2"), 2.16)):
        assert f"p90 latency {ms:.3f} ms" in lines(capsys, *options, "--by", "latency", paths=paths)[0]
    told = fails(capsys, 2, *paths, "--backend", "torch", "--threads", "8", "--max-latency", "1ms")
    assert "no latency of torch with 8 thread(s) and one image; measured: onnxruntime with 1 thread(s)" in told


def test_a_latency_of_other_threads_matters_only_where_latency_counts(capsys: pytest.CaptureFixture[str]) -> None:
    record = write_network("a", 90, macs=1_000, size=20_000)
    write_latencies(measured(record, SAMPLES.tolist(), threads=4))
    paths = ("runs", "exports", "latency.json")
    assert lines(capsys, "--min-accuracy", "0.5", paths=paths)[0].startswith("d_a fp32: ")
    assert "measured: onnxruntime with 4 thread(s)" in fails(capsys, 2, *paths, "--by", "latency")


@pytest.mark.parametrize("accuracy", ["0.95", "95%"])
def test_an_accuracy_is_a_fraction_or_in_percent(accuracy: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_three()
    assert lines(capsys, "--min-accuracy", accuracy)[0].startswith("d_large fp32: fewest MACs with accuracy >= 95.00 %")


def test_sizes_and_times_have_units(capsys: pytest.CaptureFixture[str]) -> None:
    write_three()
    answer = lines(capsys, "--max-bytes", "1MB", "--max-latency", "0.002s")[0]
    assert "p90 latency <= 2.000 ms, ONNX bytes <= 1,000,000" in answer


def test_the_latency_of_another_provider_counts_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    record = write_network("a", 90, macs=1_000, size=20_000)
    both = [measured(record, (SAMPLES * ms / 1e3).tolist(), provider=name) for name, ms in (("cpu", 1), ("cuda", 0.5))]
    write_latencies(*both)
    answer = lines(capsys, "--provider", "cuda", "--by", "latency", paths=("runs", "exports", "latency.json"))[0]
    assert "p90 latency 0.540 ms" in answer


@pytest.mark.parametrize("value", ["99", "-0.1", "1.01"])
def test_an_accuracy_that_is_no_fraction_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--min-accuracy" in fails(capsys, 2, "runs", f"--min-accuracy={value}")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("--by", "beauty"), "by"), (("--max-bytes", "1e6x"), "max-bytes"), (("--max-speed", "3"), "--max-speed")],
)
def test_an_option_or_value_that_is_none_is_refused(
    arguments: tuple[str, str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    err = fails(capsys, 2, "runs", *arguments)
    assert told in err
    assert "macs" in err or arguments[0] != "--by"


def test_json_holds_every_figure_and_every_reason(undrawn: None, capsys: pytest.CaptureFixture[str]) -> None:
    write_three()
    assert main(["choose", "runs", "exports", "--min-accuracy", "0.85", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"answer", "files_compared", "note", "chosen", "nearest", "others"}
    assert found["files_compared"] == 3
    assert found["chosen"]["task"] == "d_middle"
    assert {other["task"]: other["lost_by"] for other in found["others"]} == {
        "d_large": "keeps the limits with 99.00 %, but has 4x the MACs (8,000)",
        "d_small": "accuracy 80.00 % is below 85.00 %",
    }
    assert main(["compare", "runs", "exports", "--format", "json", "--picture", "picture"]) == 0
    compared = {row["task"]: row for row in json.loads(capsys.readouterr().out)}
    for row in (found["chosen"], *found["others"]):
        expected = compared[row["task"]]
        assert {key: value for key, value in row.items() if key not in ("lost_by", "name", "file")} == {
            key: value for key, value in expected.items() if key in row
        }
        assert {key for key, value in expected.items() if value is not None} <= set(row)


def test_none_is_null_in_json_with_the_nearest_and_exit_code_8(capsys: pytest.CaptureFixture[str]) -> None:
    write_three()
    assert main(["choose", "runs", "exports", "--max-macs", "1", "--format", "json"]) == 8
    found = json.loads(capsys.readouterr().out)
    assert found["chosen"] is None
    assert found["nearest"] == {
        "name": "d_small fp32",
        "misses": "MACs 1,000 is above 1",
        "relax": "MACs from 1 to 1,000",
    }
    assert sorted(other["task"] for other in found["others"]) == ["d_large", "d_middle", "d_small"]


def test_a_bundle_without_its_run_is_a_candidate_with_what_it_tells_of_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_three()
    with_runs = lines(capsys)
    shutil.rmtree("runs")
    alone = lines(capsys, paths=("exports",))
    assert alone == with_runs
    assert lines(capsys, "--dataset", "d", paths=("exports",)) == with_runs
    assert "nowhere does not exist" in fails(capsys, 3, "nowhere")


def test_a_bundle_of_an_earlier_training_is_a_candidate_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    record = write_network("a", 80, macs=1_000, size=20_000)
    assert record.test
    write_run(records.replace(record, test=records.replace(record.test, checkpoint_sha256="again")))
    again, earlier = lines(capsys)
    assert again.startswith("d_a: fewest MACs")
    assert earlier.startswith("  d_a fp32: keeps the limits with 80.00 % at the same MACs, and is as accurate")


def test_accuracies_on_other_images_of_the_same_name_are_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    write_network("a", 80, macs=1_000)
    write_network("b", 90, macs=2_000, data=records.replace(run_record().data, sha256="others"))
    assert "d_a and d_b saw other images, or other splits of them" in fails(capsys, 2, "runs")


def test_runs_on_fewer_images_do_not_compete(capsys: pytest.CaptureFixture[str]) -> None:
    write_run(run_record("a", 1, 90))
    write_run(run_record("a", 1, 95, data=data_record(train_images=8), task="d_a_n8"))
    assert main(["choose", "runs"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("d_a: ")
    assert "d_a_n8" not in printed


def test_a_limit_that_is_missed_by_less_than_is_shown_is_shown_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    write_run(run_record("a", 1, 90))
    assert main(["choose", "runs", "--min-accuracy", "0.90001"]) == 8
    assert "accuracy 0.9 is below 0.90001" in capsys.readouterr().out


@pytest.mark.parametrize("limit", ["latency", "bytes", "macs", "params"])
def test_a_limit_that_nothing_can_keep_is_refused(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(run_record("a", 1, 90))
    assert main(["choose", "runs", f"--max-{limit}=-1"]) == 2
    assert "expected" in capsys.readouterr().err
