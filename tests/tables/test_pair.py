"""`compare --pair`: two tasks on the same images, seed by seed and over all."""

import csv
import io
import json
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import IMAGES, data_record, first, run_config, run_record, write_certain, write_failure, write_run
from scipy import stats

from cnnbench.__main__ import main
from cnnbench.records.schema import RunRecord


def write_answers(arch: str, seed: int, right: np.ndarray, **changes: Any) -> Path:
    """A run of d_<arch> with what it got right, `(IMAGES,)` bool."""
    folder = write_run(run_record(arch, seed, int(right.sum()), **changes))
    write_certain(folder, right)
    return folder


def answers(seed: int, share: float) -> np.ndarray:
    found: np.ndarray = np.random.RandomState(seed).rand(IMAGES) < share
    return found


def paired(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    a, b, *others = arguments
    assert main(["compare", "runs", "--pair", f"{a},{b}", *others, "--format", "json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    a, b, *others = arguments
    assert main(["compare", "runs", "--pair", f"{a},{b}", *others]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("cnnbench: ")
    assert printed.err.count("\n") == 1
    return printed.err


def exact_mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided: of n fair coins, the chance of a split at least as uneven (McNemar 1947, with Bernoulli's sum)."""
    n, few = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(comb(n, k) for k in range(few + 1)) / 2**n)


def test_every_seed_has_its_own_test_of_mcnemar(capsys: pytest.CaptureFixture[str]) -> None:
    right = {(arch, seed): answers(seed + 10 * n, 0.9 - 0.1 * n) for n, arch in enumerate("ab") for seed in (1, 2, 3)}
    for (arch, seed), each in right.items():
        write_answers(arch, seed, each)
    found = paired(capsys, "d_a", "d_b")
    assert (found["a"], found["b"]) == ("d_a", "d_b")
    assert [row["seed"] for row in found["per_seed"]] == [1, 2, 3]
    for row in found["per_seed"]:
        a, b = right["a", row["seed"]], right["b", row["seed"]]
        only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
        assert (row["only_a"], row["only_b"]) == (only_a, only_b)
        assert (row["accuracy_a"], row["accuracy_b"]) == (a.mean(), b.mean())
        assert row["p"] == pytest.approx(exact_mcnemar(only_a, only_b))


def test_the_difference_is_over_seeds_and_images_and_turns_its_sign_with_the_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    differences = []
    for seed in (1, 2, 3):
        a, b = answers(seed, 0.95), answers(seed + 10, 0.5)
        write_answers("a", seed, a)
        write_answers("b", seed, b)
        differences.append(float(a.mean() - b.mean()))
    found, turned = paired(capsys, "a", "b"), paired(capsys, "b", "a")
    assert (found["seeds"], found["images"], found["shown"]) == (3, IMAGES, True)
    assert found["mean"] == pytest.approx(np.mean(differences))
    assert turned["mean"] == -found["mean"]
    assert [turned["low"], turned["high"]] == pytest.approx([-found["high"], -found["low"]], abs=1e-12)
    half = stats.t.ppf(0.975, 2) * stats.sem(differences)  # of a paired t-test, which knows nothing of images
    assert (found["high"] - found["low"]) / 2 >= half
    better = f"d_a is better than d_b by {100 * np.mean(differences):.2f} points (95 % interval"
    assert all(each["answer"].startswith(better) for each in (found, turned))
    assert found["answer"].endswith("; 3 seeds, 100 images")


def test_identical_networks_show_no_difference(capsys: pytest.CaptureFixture[str]) -> None:
    for arch in "ab":
        write_answers(arch, 1, first(90))
    found = paired(capsys, "d_a", "d_b")
    unseen = 1 - 0.025 ** (1 / IMAGES)  # a share of images that none of 100 shows with probability 2.5 %
    assert (found["mean"], found["low"], found["high"]) == (0, pytest.approx(-unseen), pytest.approx(unseen))
    assert (found["shown"], found["p"]) == (False, 1)
    assert found["per_seed"] == [{"seed": 1, "accuracy_a": 0.9, "accuracy_b": 0.9, "only_a": 0, "only_b": 0, "p": 1.0}]
    assert found["answer"] == (
        "of these two trained networks: no difference shown between d_a and d_b (95 % interval -3.62 to 3.62 points); "
        "McNemar p 1, 100 images, one seed: another training may differ"
    )
    for format in ("table", "markdown"):
        assert main(["compare", "runs", "--pair", "d_a,d_b", "--format", format]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == found["answer"]


def test_a_table_has_the_tasks_in_its_headings_and_csv_the_seeds_alone(capsys: pytest.CaptureFixture[str]) -> None:
    write_answers("a", 1, first(90))
    write_answers("b", 1, ~first(20))
    assert main(["compare", "runs", "--pair", "a,b", "--format", "markdown"]) == 0
    heading, _, row, *_ = capsys.readouterr().out.splitlines()
    assert heading == "| seed | d_a, % | d_b, % | only d_a right | only d_b right | McNemar p |"
    assert row == f"| 1 | 90.00 | 80.00 | 20 | 10 | {exact_mcnemar(20, 10):.3g} |"
    assert main(["compare", "runs", "--pair", "a,b", "--format", "csv"]) == 0
    (read,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (read["seed"], read["accuracy_a"], read["accuracy_b"]) == ("1", "0.9", "0.8")
    assert float(read["p"]) == pytest.approx(exact_mcnemar(20, 10))


def test_only_tested_seeds_that_both_have_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    for arch, seeds in (("a", (1, 2, 3)), ("b", (2, 3, 4))):
        for seed in seeds:
            write_answers(arch, seed, first(80))
    write_run(run_record("b", 3, right=None))
    found = paired(capsys, "a", "b")
    assert [row["seed"] for row in found["per_seed"]] == [2]
    assert found["alone"] == [1, 3, 4]
    assert found["answer"].endswith("; left out, of one of the two alone: 3 seeds")


def test_no_common_seed_is_refused_with_the_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    write_answers("a", 1, first(80))
    write_answers("b", 2, first(80))
    assert "d_a and d_b have no tested seed in common: [1] and [2]" in fails(capsys, 3, "a", "b")


def test_other_images_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write_answers("a", 1, first(80))
    write_answers("b", 1, first(80), data=data_record(sha256="others"))
    assert "d_a and d_b were tested on other images" in fails(capsys, 3, "a", "b")


def test_other_labels_of_the_same_images_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write_answers("a", 1, first(80))
    path = write_answers("b", 1, first(80)) / "predictions.parquet"
    table = pq.read_table(path)
    swapped = table.take(pa.array([1, 0, *range(2, IMAGES)])).drop(["index"])  # two images of different classes
    pq.write_table(swapped.add_column(0, "index", table["index"]), path)
    for arguments in (["--pair", "a,b"], ["--view", "pairs"]):
        assert main(["compare", "runs", *arguments]) == 3
        assert "seed 1, were scored against other labels" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["missing", "truncated", "text"])
def test_predictions_that_cannot_be_read_are_refused_by_name(damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_answers("a", 1, first(80))
    path = write_answers("b", 1, first(80)) / "predictions.parquet"
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[:-20] if damage == "truncated" else b"index,label\n")
    told = fails(capsys, 3, "a", "b")
    assert f"{path} {'is missing' if damage == 'missing' else 'cannot be read'}: " in told
    assert "run `cnnbench test` " in told


def test_predictions_that_are_not_those_scored_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write_answers("a", 1, first(80))
    folder = write_answers("b", 1, first(80))
    write_certain(folder, first(79))
    assert f"{folder}/predictions.parquet are not the predictions of {folder}/result.json" in fails(capsys, 3, "a", "b")


def test_a_task_s_name_goes_before_an_architecture_s(capsys: pytest.CaptureFixture[str]) -> None:
    write_answers("a", 1, first(80))
    write_answers("b", 1, first(70))
    write_answers("a", 1, first(60), task="a")
    found = paired(capsys, "a", "b")
    assert (found["a"], found["per_seed"][0]["accuracy_a"]) == ("a", 0.6)


def test_a_name_that_fits_several_is_refused_with_them(capsys: pytest.CaptureFixture[str]) -> None:
    write_answers("a", 1, first(80))
    write_answers("a", 1, first(80), dataset="e")
    write_answers("b", 1, first(70))
    assert "--pair a fits several: d_a, e_a; name a task, or give --dataset" in fails(capsys, 2, "a", "b")
    assert paired(capsys, "a", "b", "--dataset", "d")["a"] == "d_a"


def test_a_task_of_two_recipes_is_refused_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    for seed, epochs in ((1, 2), (2, 5)):
        write_answers("a", seed, first(80), config=run_config(max_epochs=epochs))
    write_answers("b", 1, first(70))
    assert "--pair d_a fits 2 rows of different recipes; give the folders of one" in fails(capsys, 2, "d_a", "b")


@pytest.mark.parametrize(
    ("name", "told"), [("d_lenett", "did you mean d_lenet"), ("lenet6", "lenet"), ("q", "expected one of")]
)
def test_a_name_of_nothing_gets_a_hint(name: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_answers("lenet", 1, first(80))
    write_answers("b", 1, first(80))
    told_all = fails(capsys, 2, name, "b")
    assert f"--pair {name}: " in told_all
    assert told in told_all


def test_a_pair_of_failures_has_nothing_to_compare(capsys: pytest.CaptureFixture[str]) -> None:
    write_failure("a", 1)
    write_failure("b", 1)
    assert "no runs to compare" in fails(capsys, 3, "a", "b")


def test_two_names_are_needed(capsys: pytest.CaptureFixture[str]) -> None:
    write_answers("a", 1, first(80))
    for pair in ("a", "a,b,a"):
        assert main(["compare", "runs", "--pair", pair]) == 2
        assert f"--pair {pair}: expected two tasks" in capsys.readouterr().err


def test_a_pair_writes_no_file_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    write_answers("a", 1, first(80))
    write_answers("b", 1, first(80))
    assert "--out does not apply to --pair" in fails(capsys, 2, "a", "b", "--out", "pair.csv")
    assert not Path("pair.csv").exists()


def test_a_record_is_not_changed_by_being_compared() -> None:
    record: RunRecord = run_record()
    folder = write_answers("a", 1, first(90))
    write_answers("b", 1, first(80))
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    assert main(["compare", "runs", "--pair", f"{record.task},b"]) == 0
    assert {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()} == before
    assert folder / "result.json" in before


def test_an_architecture_means_its_runs_on_all_training_images(capsys: pytest.CaptureFixture[str]) -> None:
    for arch, right in (("a", 90), ("b", 80)):
        write_answers(arch, 1, first(right))
    write_answers("a", 1, first(70), data=data_record(train_images=8), task="d_a_n8")
    found = paired(capsys, "a", "b")
    assert (found["a"], found["b"]) == ("d_a", "d_b")
    assert found["per_seed"][0]["accuracy_a"] == 0.9
