"""The choice as a value: what is chosen, why the others are not, and which comes nearest."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from builders import measured, run_record, write_bundle, write_latencies, write_run
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from cnnbench.tables.candidates import Baseline, Candidate, Score
from cnnbench.tables.choose import Choice, check_measured, choose_file, comparable_rows
from cnnbench.tables.gather import Records, gather
from cnnbench.tables.limits import Limits, evidence, images_needed
from cnnbench.tables.rows import LatencyKey, Percentiles, Row
from cnnbench.types import CnnbenchError, Exit


def row(arch: str, accuracy: float | None, macs: int, **changes: Any) -> Row:
    usual: dict[str, Any] = {"task": f"d_{arch}", "arch": arch, "dataset": "d", "train_images": 80, "params": 1_000}
    return Row(**{**usual, "accuracy": accuracy, "macs": macs, "seeds": 1, **changes})


def file(arch: str, right: int | None, macs: int, images: int = 1_000, **changes: Any) -> Candidate:
    """A file of d_<arch> that gets `right` of the validation images right, and half of the test images."""
    if right is None:
        return Candidate(row=row(arch, None, macs))
    return Candidate(**{"row": row(arch, 0.5, macs), "val": Score(right, images), "test": Score(500, 1_000), **changes})


SMALL, LARGE = file("small", 800, 1_000), file("large", 990, 8_000)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"min_accuracy": "98%"}, "min_accuracy is '98%': expected a number"),
        ({"max_latency_ms": "2ms"}, "max_latency_ms is '2ms': expected a number"),
        ({"max_params": 1.5}, "max_params is 1.5: expected a whole number"),
    ],
    ids=str,
)
def test_a_limit_is_a_number(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(CnnbenchError) as refused:
        Limits(**limits)
    assert str(refused.value) == words


def nearest(choice: Choice) -> str | None:
    assert choice.chosen is None
    return choice.nearest and choice.nearest.row.arch


def test_a_choice_names_every_network_once() -> None:
    choice = choose_file([LARGE, SMALL], Limits(), by="macs")
    assert choice.chosen is SMALL
    assert [(other.candidate, other.keeps_limits) for other in choice.others] == [(LARGE, True)]
    assert choice.nearest is None


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 10**6)), min_size=1), st.floats(0, 1), st.integers(1, 10**6)
)
def test_the_chosen_one_is_the_cheapest_that_keeps_every_limit(
    figures: list[tuple[int, int]], accuracy: float, macs: int
) -> None:
    known = [file(str(place), *figure) for place, figure in enumerate(figures)]
    choice = choose_file(known, Limits(min_accuracy=accuracy, max_macs=macs))
    fitting = [figure for figure in figures if figure[0] / 1000 >= accuracy and figure[1] <= macs]
    assert (choice.chosen is None) == (not fitting)
    assert len(choice.others) == len(known) - bool(fitting)
    assert all(other.reason for other in choice.others)
    if choice.chosen:
        assert choice.chosen.row.macs == min(cost for _, cost in fitting)
        assert choice.chosen.val
        assert choice.chosen.val.right == max(right for right, cost in fitting if cost == choice.chosen.row.macs)
    else:
        assert choice.nearest in choice.others


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=5), st.lists(st.integers(0, 1000), min_size=2, max_size=5))
def test_test_figures_change_no_choice(val: list[int], test: list[int]) -> None:
    known = [file(str(place), right, 1_000 + place) for place, right in enumerate(val)]
    others = [
        dataclasses.replace(
            candidate,
            test=Score(test[place % len(test)], 1_000),
            row=dataclasses.replace(candidate.row, accuracy=test[place % len(test)] / 1_000),
        )
        for place, candidate in enumerate(known)
    ]
    names = [choose_file(each, Limits(min_accuracy=0.5)).chosen for each in (known, others)]
    assert (names[0] and names[0].name) == (names[1] and names[1].name)


def test_the_nearest_misses_the_fewest_limits_and_of_these_by_the_smallest_share() -> None:
    limits = Limits(min_accuracy=0.9, max_macs=900)
    both, one, closer = file("both", 899, 901), file("one", 990, 5_000), file("closer", 990, 1_000)
    assert nearest(choose_file([both, one, closer], limits)) == "closer"
    assert nearest(choose_file([both, one], limits)) == "one"


def test_what_was_not_measured_or_not_tested_is_not_near() -> None:
    limits = Limits(max_bytes=10)
    assert nearest(choose_file([SMALL, file("untested", None, 5)], limits)) is None
    assert nearest(choose_file([SMALL, file("sized", 900, 5_000, bytes=11)], limits)) == "sized"


def test_the_latency_that_counts_is_the_90th_percentile() -> None:
    fast = file("fast", 900, 9_000, percentiles=Percentiles(1.0, 2.0, None))
    slow = file("slow", 900, 1_000, percentiles=Percentiles(0.5, 3.0, None))
    assert choose_file([fast, slow], Limits(max_latency_ms=2.5)).chosen is fast
    assert choose_file([fast, slow], Limits(), by="latency").chosen is fast
    assert choose_file([file("unmeasured", 900, 1_000)], Limits(), by="latency").chosen is None


def test_of_equally_accurate_files_the_smaller_is_chosen() -> None:
    fp32, int8 = (file("a", 900, 1_000, precision=name, bytes=size) for name, size in (("fp32", 400), ("int8", 100)))
    assert choose_file([fp32, int8], Limits()).chosen is int8
    better = dataclasses.replace(fp32, val=Score(901, 1_000))
    assert choose_file([better, int8], Limits()).chosen is better


# what the images show


@pytest.mark.parametrize("accuracy", [0.5, 0.9, 0.985, 0.995])
def test_so_many_images_all_of_them_right_show_an_accuracy_and_one_less_do_not(accuracy: float) -> None:
    needed = images_needed(accuracy)
    assert needed
    low = [binomtest(count, count).proportion_ci(0.95, method="wilson").low for count in (needed - 1, needed)]
    assert low[0] < accuracy <= low[1]


def test_no_number_of_images_shows_that_all_are_right() -> None:
    assert images_needed(1.0) is None
    assert evidence(Score(500, 500), 1.0) == "95 % interval from 99.24 %, below the limit, as with any number of images"


@pytest.mark.parametrize(
    ("right", "accuracy", "said"),
    [
        (498, 0.98, "95 % interval from 98.55 %, above the limit"),
        (494, 0.98, "95 % interval from 97.41 %, below the limit"),
        (
            500,
            0.995,
            "95 % interval from 99.24 %, below the limit, and would be with all of them right: it takes 765 images or "
            "more",
        ),
    ],
)
def test_an_accuracy_is_shown_where_the_lower_end_of_its_interval_is_not_below_it(
    right: int, accuracy: float, said: str
) -> None:
    low = binomtest(right, 500).proportion_ci(0.95, method="wilson").low
    assert (low >= accuracy) == said.endswith("above the limit")
    assert evidence(Score(right, 500), accuracy) == said


def test_an_interval_that_begins_just_below_the_limit_is_not_shown_to_begin_at_it() -> None:
    assert 0.96355 < Score(490, 500).low() < 0.9636
    assert evidence(Score(490, 500), 0.9636) == "95 % interval from 96.35 %, below the limit"
    assert evidence(Score(490, 500), 0.9637) == "95 % interval from 96.36 %, below the limit"


def test_by_lower_the_limit_is_met_by_the_lower_end_that_holds_for_both_files() -> None:
    sure, unsure = file("sure", 499, 9_000, 500), file("unsure", 494, 1_000, 500)
    limits = Limits(min_accuracy=0.98)
    assert choose_file([sure, unsure], limits).chosen is unsure
    choice = choose_file([sure, unsure], limits, by="lower")
    assert choice.chosen is sure
    low = 100 * binomtest(494, 500).proportion_ci(0.975, method="wilson").low
    assert choice.others[0].reason == f"lower end of accuracy {low - 0.005:.2f} % is below 98.00 %"  # rounded down


def test_the_more_files_are_compared_the_more_it_takes_to_show_an_accuracy() -> None:
    limits = Limits(min_accuracy=0.98)
    alone = file("sure", 498, 9_000, 500)
    in_two_backends = [dataclasses.replace(alone, sha256="a") for _ in range(2)]
    assert [choose_file(known, limits, by="lower").chosen is not None for known in ([alone], in_two_backends)] == [
        True,
        True,
    ]
    known = [alone, *(file(str(place), 400, 1_000, 500) for place in range(9))]
    low = binomtest(498, 500).proportion_ci(1 - 0.05 / 10, method="wilson").low
    assert low < 0.98
    choice = choose_file(known, limits, by="lower")
    assert choice.chosen is None
    said = f"95 % interval for 10 files at once from {100 * low:.2f} %, below the limit"
    assert choice.answer.endswith(f" ({said})")
    assert choice.among == 10
    assert choice.relax == f"lower end of accuracy from 98.00 % to {100 * low - 0.005:.2f} %"
    assert f", {said}; " in choose_file(known, limits).answer
    assert choose_file([alone], limits, by="lower", among=10).chosen is None


def test_where_no_count_of_right_answers_could_show_it_by_lower_says_how_many_images_could() -> None:
    choice = choose_file([file("a", 500, 9_000, 500)], Limits(min_accuracy=0.995), by="lower")
    assert choice.answer.endswith(", and would be with all of them right: it takes 765 images or more)")


def test_a_test_figure_below_the_limit_is_said() -> None:
    choice = choose_file([file("a", 990, 1_000)], Limits(min_accuracy=0.98))
    assert choice.details[1] == "test accuracy 50.00 % (500 of 1,000), below 98.00 %"
    assert choose_file([file("a", 990, 1_000)], Limits()).details[1] == "test accuracy 50.00 % (500 of 1,000)"


@pytest.mark.parametrize(("right", "fits"), [(114, False), (130, False), (140, True)])
def test_what_is_near_the_most_frequent_class_is_not_recommended(right: int, fits: bool) -> None:
    low = binomtest(right, 1_000).proportion_ci(0.95, method="wilson").low
    assert (low > 0.114) == fits
    blind = Baseline(0.114, "always answering three")
    choice = choose_file([file("a", right, 1_000, baseline=blind)], Limits())
    assert (choice.chosen is not None) == fits
    if not fits:
        assert choice.answer == "none: no network is better than always answering three (11.40 %)"
        assert choice.nearest is None


def test_the_limits_that_the_nearest_needs_are_told() -> None:
    limits = Limits(min_accuracy=0.9, max_macs=900, max_bytes=100)
    choice = choose_file([file("a", 890, 1_000, bytes=50)], limits)
    assert choice.relax == "accuracy from 90.00 % to 89.00 %; MACs from 900 to 1,000"


@pytest.mark.parametrize("limits", [{"min_accuracy": 98}, {"min_accuracy": -0.1}, {"max_macs": 0}, {"max_bytes": -1}])
def test_limits_that_say_nothing_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(CnnbenchError, match="expected"):
        Limits(**limits)


def test_only_networks_on_the_most_images_of_one_dataset_compare() -> None:
    full, fewer = row("small", 0.8, 1), row("a", 0.9, 1, train_images=8)
    other, failed = row("b", 0.9, 1, dataset="e"), row("x", None, 1)
    assert comparable_rows([full, fewer, failed], None) == [full, failed]
    assert comparable_rows([full, other], "e") == [other]
    with pytest.raises(CnnbenchError, match="there are runs on d, e: name one with --dataset"):
        comparable_rows([full, other], None)


def test_a_latency_is_refused_only_where_others_were_measured(tmp_path: Path) -> None:
    check_measured(Records(), LatencyKey("torch"))
    record = run_record()
    write_run(record)
    write_bundle(record)
    write_latencies(measured(record, [0.001] * 64))
    gathered = gather(["runs", "exports", "latency.json"])
    check_measured(gathered, LatencyKey())
    with pytest.raises(CnnbenchError, match=r"no latency of torch with 1 thread\(s\).*measured: onnxruntime"):
        check_measured(gathered, LatencyKey("torch"))


def test_what_cheap_means_is_a_known_word() -> None:
    with pytest.raises(CnnbenchError, match=r"cheap by 'byte': did you mean bytes\?") as refused:
        choose_file([], Limits(), by="byte")  # type: ignore[arg-type]
    assert refused.value.code == Exit.USAGE


def test_the_relaxed_limits_as_they_are_shown_are_kept() -> None:
    near = file("a", 98_466, 1_000, 100_000, percentiles=Percentiles(1.0, 1.2341, None))
    choice = choose_file([near], Limits(min_accuracy=0.99, max_latency_ms=1))
    assert choice.relax == "accuracy from 99.00 % to 98.46 %; p90 latency from 1.000 ms to 1.235 ms"
    assert choose_file([near], Limits(min_accuracy=0.9846, max_latency_ms=1.24)).chosen is near
    even = file("a", 474, 1_000, 500)
    assert choose_file([even], Limits(min_accuracy=0.98)).relax == "accuracy from 98.00 % to 94.80 %"
