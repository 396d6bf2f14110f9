"""The page's words and figures: they are its records', whatever is there and whatever it is called."""

import base64
import io
import json
import re
import xml.etree.ElementTree as ET
from contextlib import chdir
from functools import cache
from pathlib import Path

import builders as made
import msgspec
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from pages import (
    FOLDERS,
    HOSTILE,
    MACS,
    NASTY,
    SECONDS,
    SHIFTED,
    SKETCH,
    SURE,
    TOOK,
    Report,
    fit,
    network,
)
from PIL import Image
from scipy import stats

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.analysis.crossed import accuracy_interval
from cnnbench.datasets.choice import describe, open_choice
from cnnbench.page.answer import recommend, within_reach
from cnnbench.page.charts import base
from cnnbench.page.material import Material
from cnnbench.page.report import report_page
from cnnbench.page.section import Answer, Fact
from cnnbench.page.write import write
from cnnbench.records.bundle import BundleRun, FileHash, Manifest
from cnnbench.records.schema import Commit, DataChoice, RunRecord
from cnnbench.tables.columns import every_column
from cnnbench.tables.gather import Records, Run, gather
from cnnbench.tables.limits import Limits
from cnnbench.tables.rows import LatencyKey, latency_keys, rows_of
from cnnbench.training.predictions import write_predictions
from cnnbench.types import Cost


@pytest.fixture(scope="module")
def page(world: Path) -> Report:
    return Report(world / "report.html")


@pytest.fixture(autouse=True)
def _stills_are_drawn_on_the_page_of_everything_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`test_charts.py` looks at others."""
    monkeypatch.setattr(base, "svg_of", lambda spec: SKETCH)


def written(*paths: str, target: float | None = None) -> Report:
    assert main(["report", *paths, *([] if target is None else ["--target-accuracy", str(target)])]) == 0
    return Report(Path("report.html"))


# --- the answer ---


def material(*made_runs: RunRecord, target: float | None = None) -> Material:
    return Material(Records([Run(record, Path(record.task) / str(record.seed)) for record in made_runs]), target)


def answers(found: Material) -> list[Answer]:
    """The answers of a page, without its sections."""
    return [recommend(found, dataset).answer for dataset in found.datasets]


def answer(*made_runs: RunRecord, target: float | None = None) -> Answer:
    (found,) = answers(material(*made_runs, target=target))
    return found


def test_the_cheapest_that_reaches_the_target_is_named_before_the_most_accurate() -> None:
    found = answer(network("large", right=98), network("small", right=89), network("middle", right=91), target=0.9)
    assert found.name == "middle"
    assert "cheapest with accuracy >= 90.00 %" in found.question
    told = "middle reaches 91.00 % on the validation images (91 of 100; 90.00 % is met, 95 % interval for 3 files at "
    assert told in found.sentences[0]
    assert "20 k MACs" in found.sentences[0]
    assert "on them 90.00 % is met (95 % interval from 83.77 %, below the limit)" in found.sentences[1]
    (large,) = found.alternatives
    assert large.name == "large"
    assert "98.00 % on validation" in large.text
    assert "60 times as many MACs" in large.text
    assert [fact.value for fact in found.facts] == ["91.00 %", "20 k", "2 k"]
    assert "91 of 100" in found.facts[0].label


def test_validation_ranks_and_a_test_figure_below_the_target_is_said() -> None:
    found = answer(
        network("small", right=80, fit=made.fitted(95)), network("large", right=99, fit=made.fitted(85)), target=0.9
    )
    assert found.name == "small"
    assert "on them 90.00 % is missed" in found.sentences[1]
    assert (found.facts[0].value, "80 of 100" in found.facts[0].label) == ("80.00 %", True)


def test_a_file_of_lower_precision_is_named_with_its_own_figures() -> None:
    record = network("small", right=95)
    made.write_run(record)
    made.write_run(network("large", right=99))
    folder = made.write_bundle(record)
    manifest = records.read(folder / "manifest.json", Manifest)
    int8 = records.replace(manifest.variants[0], precision="int8", file="model_int8.onnx", bytes=12_000)
    files = {**manifest.files, "model_int8.onnx": FileHash("the int8 file", 12_000)}
    variants = (*manifest.variants, int8)
    records.write(folder / "manifest.json", records.replace(manifest, variants=variants, files=files))
    (found,) = answers(Material(gather(["runs", "exports"]), 0.9))
    assert found.name == "small int8"
    assert found.file == "exports/d_small/model_int8.onnx (SHA-256 the int8 fil)"
    assert found.command == "cnnbench verify exports/d_small --rescore"
    assert found.facts[1] == Fact("12 kB", "ONNX file")
    assert found.facts[2] == Fact("0.00 points", "lost against PyTorch on validation; 2 test predictions changed")


def test_networks_no_better_than_one_answer_for_all_are_not_recommended() -> None:
    found = answer(network("small", right=52), network("large", right=55))
    assert (found.question, found.name) == ("On d", "none")
    assert found.sentences == ["No network is better than guessing one of 2 classes (50.00 %) on d."]


def test_the_best_seed_on_validation_is_taken_where_there_is_no_file() -> None:
    seeds = [network("small", seed, right) for seed, right in enumerate((87, 88, 90))]
    assert answer(*seeds, network("large", right=99), target=0.9).name == "small"


def test_of_equally_cheap_ones_the_more_accurate_is_named() -> None:
    twin = network("twin", right=95, cost=network("small").cost)
    assert answer(network("small", right=93), twin, network("large", right=99), target=0.9).name == "twin"


def test_where_none_reaches_the_target_the_closest_is_told() -> None:
    found = answer(network("small", right=80), network("large", right=95), target=0.99)
    assert found.name == "none"
    assert "99.00 %" in found.question
    said, nearest = found.sentences
    assert "No file on d keeps accuracy >= 99.00 %" in said
    assert "large with 95.00 %" in said
    assert nearest == "The nearest is d_large: relax accuracy from 99.00 % to 95.00 %."
    assert found.facts == ()


def test_one_network_is_compared_with_nothing() -> None:
    found = answer(network("small", right=80))
    assert (found.name, len(found.sentences)) == ("small", 3)
    assert "--min-accuracy" in found.sentences[2]
    assert [caution for caution in found.cautions if "only network" in caution]
    assert list(found.alternatives) == []
    assert "cheapest" not in found.question


def test_untested_networks_are_no_answer() -> None:
    found = recommend(material(network("small", right=None), network("large", right=None)), "d")
    assert found.group is None
    assert "cnnbench test" in found.answer.sentences[0]


def test_one_seed_is_said_to_have_an_interval_of_this_network_alone() -> None:
    found = answer(network("small", right=91), network("large", right=98), target=0.9)
    low, high = stats.binomtest(91, made.IMAGES).proportion_ci(0.95, method="wilson")
    bounds = f"{100 * low:.2f} to {100 * high:.2f}"
    assert f"another training may differ (95 % interval {bounds}, this network alone, 1 seed)" in found.cautions[0]
    assert found.facts[0] == Fact("91.00 %", f"of the test images by the run: 91 of 100; 95 % interval {bounds}")


def test_what_training_again_gives_stands_beside_the_file() -> None:
    right = (88, 91, 94)
    accuracies = np.array(right) / made.IMAGES
    low, high = stats.t.interval(0.95, 2, accuracies.mean(), stats.sem(accuracies))
    found = answer(
        *(network("small", seed, count) for seed, count in enumerate(right)), network("large", right=99), target=0.9
    )
    again = f"(95 % interval {100 * low:.2f} to {100 * high:.2f}, over seeds alone, 3 seeds)"
    assert found.facts[0].value == "94.00 %"
    assert found.cautions[0] == f"Trained again, small scores 91.00 % {again}."


def test_the_most_accurate_may_itself_be_the_cheapest() -> None:
    found = answer(network("small", right=95), network("large", right=92), target=0.9)
    assert found.name == "small"
    assert found.alternatives[0].text.endswith("the next in accuracy after small.")


def test_networks_on_other_images_of_the_same_name_do_not_compete() -> None:
    other = records.replace(network("other", right=80), data=made.data_record(sha256="others"))
    found = answer(network("small", right=92), network("large", right=95), other, target=0.75)
    assert found.name == "small"
    assert found.cautions[-1] == "Tested on other images, and left out: other."


def paired(small: np.ndarray, large: np.ndarray) -> str:
    for arch, right in (("small", small), ("large", large)):
        for seed in (1, 2, 3):
            made.write_certain(made.write_run(network(arch, seed, int(right.sum()))), right)
    (found,) = answers(Material(gather(["runs"]), 0.5))
    assert found.name == "small"
    return weighed(found)


def weighed(found: Answer) -> str:
    return " ".join(other.text for other in found.alternatives)


def test_a_difference_that_is_none_is_said_to_be_none() -> None:
    said = paired(made.first(90), np.roll(made.first(91), 1))  # other images, one more of them
    assert "o difference shown between large and small" in said
    assert "better" not in said


def test_a_difference_that_is_shown_is_given_in_points() -> None:
    assert "large is better than small by 25.00 points" in paired(made.first(70), made.first(95))


def test_without_predictions_nothing_is_said_of_the_difference() -> None:
    said = weighed(answer(network("small", right=91), network("large", right=98), target=0.9))
    assert "difference" not in said
    assert "better" not in said


def test_networks_that_saw_fewer_images_do_not_compete() -> None:
    found = answer(
        network("small", right=99, train_images=20), network("middle", right=91), network("large", right=95), target=0.9
    )
    assert found.name == "middle"


def test_smaller_and_faster_ones_are_named_where_they_are_others() -> None:
    lean = network("lean", right=92, cost=Cost(params=7, macs=30_000, activations=1, depth=1))
    for record in (network("small", right=91), lean, network("large", right=95)):
        made.write_run(record)
        made.write_bundle(record)
    times = {"small": 0.004, "lean": 0.003, "large": 0.002}
    made.write_latencies(*(made.measured(network(arch), [seconds] * 20) for arch, seconds in times.items()))
    (found,) = answers(Material(gather(FOLDERS), 0.9))
    assert found.name == "small fp32"
    fastest = next(other for other in found.alternatives if "fastest" in other.text)
    assert fastest.name == "large fp32"
    assert "2.000 ms for one image, 2 times as fast; 95.00 % on validation" in fastest.text
    assert "4.000 ms" in [fact.value for fact in found.facts]


def test_the_smallest_file_is_named_where_it_is_another_one() -> None:
    for record, size in ((network("small", right=91), 5_000), (network("large", right=95), 4_000)):
        made.write_run(record)
        folder = made.write_bundle(record)
        manifest = records.read(folder / "manifest.json", Manifest)
        (fp32,) = manifest.variants
        records.write(
            folder / "manifest.json", records.replace(manifest, variants=(records.replace(fp32, bytes=size),))
        )
    (found,) = answers(Material(gather(FOLDERS[:2]), 0.9))
    assert "the smallest file that keeps them, 4 kB" in " ".join(
        f"{other.name}: {other.text}" for other in found.alternatives
    )


def test_the_limits_of_the_page_are_kept_and_drawn() -> None:
    for record in (network("small", right=91), network("large", right=95)):
        made.write_run(record)
        made.write_bundle(record)
    times = {"small": 0.004, "large": 0.002}
    made.write_latencies(*(made.measured(network(arch), [seconds] * 100) for arch, seconds in times.items()))
    limits = Limits(min_accuracy=0.9, max_latency_ms=3)
    (found,) = answers(Material(gather(FOLDERS), limits=limits))
    assert found.name == "large fp32"
    assert "accuracy >= 90.00 %, p90 latency <= 3.000 ms" in found.question
    assert found.picture is not None
    for words in ("p90 latency <= 3.000 ms", "accuracy >= 90.00 %", "small fp32"):
        assert json.dumps(words)[1:-1].replace("<", "\\u003c") in found.picture.spec


def test_networks_that_were_not_trained_equally_long_are_a_caution() -> None:
    alike = [network("large", right=96), network("small", right=90)]
    longer = [msgspec.structs.replace(record, fit=msgspec.structs.replace(record.fit, epochs=70)) for record in alike]
    said = "The networks were not trained equally long: "
    assert said not in " ".join(answer(*alike).cautions)
    assert f"{said}large for 70 epochs, the others for {alike[0].fit.epochs}." in answer(longer[0], alike[1]).cautions


def test_what_shifts_and_confidence_do_is_a_caution() -> None:
    for arch, right in (("small", 90), ("large", 96)):
        folder = made.write_run(network(arch, right=right))
        made.write_certain(folder, made.first(right), confidence=SURE)
        worst = {"small": 0.5, "large": 0.8}[arch]
        checkpoint = records.read(folder / "result.json", RunRecord).test
        assert checkpoint is not None
        records.write(folder / "robustness.json", made.shifted(checkpoint.checkpoint_sha256, right / 100, worst))
    (found,) = answers(Material(gather(["runs"]), 0.9))
    said = " ".join(found.cautions)
    assert "50.00 % at the worst shift (large: 80.00 %)" in said
    assert f"{100 * (0.9 - SURE):.1f} points below the accuracy" in said


def test_every_dataset_has_its_answer_the_one_with_the_most_networks_first() -> None:
    found = answers(
        material(network("small", right=50, dataset="c"), network("small", right=91), network("large", right=95))
    )
    assert [each.dataset for each in found] == ["d", "c"]


@given(st.floats(0, 1))
@example(0.995)
@example(1.0)
def test_the_target_of_a_page_without_one_is_reached_and_no_further_off_than_the_mistakes_left(best: float) -> None:
    enough = within_reach(best)
    assert enough <= best
    assert best - enough <= max(1 - best, 1e-4) + 1e-12
    assert enough == best or round(1e4 * enough, 6) == round(1e4 * enough)


@pytest.mark.parametrize(("best", "enough"), [(0.9924, 0.99), (0.976, 0.97), (0.995, 0.995), (0.63, 0.6), (1.0, 1.0)])
def test_the_target_of_a_page_without_one_is_the_best_rounded_down(best: float, enough: float) -> None:
    assert within_reach(best) == pytest.approx(enough)


def test_the_page_opens_with_its_answers(page: Report) -> None:
    first, other = page.answers
    assert "To ship on d, the cheapest with accuracy >= 90.00 %" in first
    assert "middle reaches 95.00 %" in first
    assert "No file on e keeps accuracy >= 90.00 %" in other


# --- figures ---


def test_every_figure_of_the_table_is_its_row_s(world: Path, page: Report) -> None:
    with chdir(world):
        gathered = gather(FOLDERS)
        known = {(row.dataset, row.task): row for row in rows_of(gathered, target=0.9)}
    columns = {column.key: column for column in every_column(latency_keys(gathered))}
    tasks = {("d", arch): f"d_{arch}" for arch in MACS} | {
        ("e", arch): f"e_{arch}".replace("/", "-") for arch in ("small", NASTY)
    }
    tasks |= {("d", "small (d_few)"): "d_few", ("d", "middle (d_untested)"): "d_untested"}
    table = page.table("table")
    assert sorted((row["dataset"][0], row["name"][0]) for row in table) == sorted(tasks)
    for cells in table:
        dataset, name = cells["dataset"][0], cells["name"][0]
        row = known[dataset, tasks[dataset, name]]
        for key in cells.keys() - {"name", "dataset", "spread", "augment"}:
            text, value = cells[key]
            expected = columns[key].value(row)
            assert (None if value is None else float(value)) == expected, key
            assert (text == "-") == (expected is None), key
    assert {key for key in columns if key.endswith("_p99_ms")} <= {key for keys in page.keys["table"] for key in keys}


def test_the_table_shows_figures_as_people_read_them(page: Report) -> None:
    (small,) = [row for row in page.cells("table") if (row["name"], row["dataset"]) == ("small", "d")]
    assert (small["accuracy"], small["seeds"], small["macs"], small["params"]) == ("89.00", "3", "9,000", "900")
    expected = accuracy_interval(np.stack([made.first(right) for right in (88, 89, 90)]))
    assert expected is not None
    assert small["spread"] == f"{100 * expected.low:.2f} to {100 * expected.high:.2f}"
    assert small[LatencyKey("torch").column(50)] == f"{1e3 * np.median(SECONDS):.3f}"
    (untested,) = [row for row in page.cells("table") if row["name"] == "middle (d_untested)"]
    assert (untested["accuracy"], untested["spread"]) == ("-", "not tested")


def test_time_to_the_target_is_the_median_of_its_seeds(page: Report) -> None:
    rows_of = {(row["dataset"], row["name"]): row for row in page.cells("target")}
    middle = rows_of["d", "middle"]
    assert (middle["reached"], middle["seconds"], middle["epochs"]) == ("3 of 3", "6.5", "2")
    assert middle["macs"] == "8.8 M"  # 55,000 forward and backward, over 160 images


def test_the_matrix_has_every_pair_twice_and_says_what_the_best_is_better_than(page: Report) -> None:
    cells = page.points("pairs")
    names = {cell["left"] for cell in cells}
    assert len(cells) == len(names) * (len(names) - 1)
    by_place = {(cell["left"], cell["below"]): cell for cell in cells}
    for (left, below), cell in by_place.items():
        turned = by_place[below, left]
        assert float(cell["points"]) == -float(turned["points"])
        results = {cell["result"], turned["result"]}
        assert results in ({"better", "worse"}, {"no difference shown"})
    assert re.search(r"\(Holm, \d+ pairs", page.said["pairs"])


def test_a_target_that_no_seed_reached_has_no_time() -> None:
    made.write_run(network("small"))
    (row,) = written("runs", target=0.95).cells("target")
    assert row["reached"] == "never (0 of 1)"
    assert (row["seconds"], row["epochs"], row["macs"]) == ("-", "-", "-")


def test_marks_of_accuracy_against_cost_stand_at_their_rows_figures(page: Report) -> None:
    stood = {
        (point["name"], point["cost"], point["accuracy"].split(" ")[0]): point["error"]
        for point in page.points("cost")
        if "accuracy" in point
    }
    for name, accuracy in (("small", 0.89), ("middle", 0.94), ("large", 0.96)):
        for cost in (MACS[name], MACS[name] // 10):
            assert stood[name, cost, f"{100 * accuracy:.2f}"] == pytest.approx(1 - accuracy)


def test_every_seed_is_a_mark(page: Report) -> None:
    seeds = [
        (point["name"], point["seed"], round(1 - point["error"], 6))
        for point in page.points("seeds")
        if "seed" in point
    ]
    expected = {"small": (88, 90, 89), "middle": (93, 94, 95), "large": (96,)}
    on_d = [(name, str(seed), right / 100) for name, counts in expected.items() for seed, right in enumerate(counts, 1)]
    assert sorted(seeds) == sorted(on_d)


def test_learning_curves_are_their_epochs(page: Report) -> None:
    stood = {
        (point["name"], point["epoch"], point["seconds"], round(1 - point["error"], 6))
        for point in page.points("curves")
    }
    for seed, seconds in enumerate(TOOK, 1):
        for epoch in fit(seconds).curve:
            assert (f"small, seed {seed}", epoch.epoch, epoch.train_seconds, epoch.val_accuracy) in stood


def test_shift_maps_are_the_measured_ones(page: Report) -> None:
    """Down is `dy`, to the right `dx`: `accuracy[dy][dx]`, as the record has it."""
    stood = {(point["dx"], point["dy"]): 1 - 2 ** -point["value"] for point in page.points("shifts")}
    shifts = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
    assert stood == pytest.approx({(dx, dy): SHIFTED[dy + 1][dx + 1] for dx, dy in shifts})
    assert page.said["shifts"].count("50.00 %") >= 2  # the worst, and an end of the scale


def test_confusions_are_counted_from_the_predictions(page: Report) -> None:
    """Of 100 images every other one is a 1; the first 96 are right."""
    counted = {
        (point["true"], point["predicted"]): point["count"]
        for point in page.points("mistakes")
        if point["name"] == "large" and "predicted" in point
    }
    assert counted == {("no", "no"): 48, ("yes", "yes"): 48, ("no", "yes"): 2, ("yes", "no"): 2}
    assert "4 of 100 images wrong" in page.said["mistakes"]


def test_calibration_is_that_of_the_predictions(page: Report) -> None:
    """All 100 images in one bin, and the error is how far its accuracy is from its confidence."""
    (large,) = [point for point in page.points("calibration") if point.get("name") == "large"]
    assert (large["confidence"], large["accuracy"]) == pytest.approx((SURE, 0.96), abs=1e-6)
    assert f"large {100 * (0.96 - SURE):.2f} %" in page.said["calibration"]


def test_latencies_are_percentiles_of_the_samples(page: Report) -> None:
    for row in page.cells("latency"):
        for percent in (50, 90, 99):
            assert row[f"p{percent}"] == f"{1e3 * np.percentile(SECONDS, percent):.3f}"
        assert row["samples"] == "700"
    assert [row["backend"] for row in page.cells("latency")] == ["onnxruntime", "torch"]


def test_too_few_calls_are_told_with_the_reason() -> None:
    record = network("small")
    made.write_run(record)
    made.write_bundle(record)
    made.write_latencies(made.measured(record, SECONDS[:20]))
    found = written(*FOLDERS)
    (row,) = found.cells("latency")
    assert row["p50"] == f"{1e3 * np.percentile(SECONDS[:20], 50):.3f}"
    assert row.get("p90", "-") == row.get("p99", "-") == "-"
    assert "too few calls: p90 needs 64 samples, p99 needs 662 samples" in found.said["latency"]


def test_verdicts_are_the_manifests(page: Report) -> None:
    small, _ = page.cells("verdicts")
    assert (small["task"], small["verdict"], small["flips"], small["images"], small["max_abs_error"]) == (
        "d_small",
        "kept",
        "3",
        "100",
        "3.0e-04",
    )
    assert small["bytes"] == "50 kB"


def test_a_refused_variant_stands_with_its_reason() -> None:
    record = network("small")
    made.write_run(record)
    folder = made.write_bundle(record)
    manifest = records.read(folder / "manifest.json", made.Manifest)
    refused = records.replace(manifest.variants[0], precision="int8", file="model_int8.onnx", refused="loses 3 points")
    records.write(folder / "manifest.json", records.replace(manifest, variants=(*manifest.variants, refused)))
    kept, lost = written(*FOLDERS[:2]).cells("verdicts")
    assert (kept["precision"], kept["verdict"]) == ("fp32", "kept")
    assert (lost["precision"], lost["verdict"], lost["reason"]) == ("int8", "refused", "loses 3 points")


def test_a_bundle_of_another_training_says_so() -> None:
    made.write_run(network("small"))
    made.write_bundle(network("small"), run=BundleRun("trained anew", 2, 0.9, ()))
    (row,) = written(*FOLDERS[:2]).cells("verdicts")
    assert "another training" in row["reason"]


def test_failures_and_machines_are_listed(page: Report) -> None:
    (failed,) = page.cells("failures")
    assert (failed["task"], failed["seed"], failed["reason"], failed["code"]) == ("d_broken", "1", NASTY, "6")
    machines = page.cells("environment")
    assert sum(int(row["runs"]) for row in machines) == 11
    assert (machines[0]["runs"], machines[0]["processor"]) == ("7", "a processor, 2 cores")


def test_a_page_made_anew_reads_the_predictions_anew() -> None:
    pages = []
    for right in (90, 97):
        made.write_certain(made.write_run(network("small", right=right)), made.first(right))
        pages.append(written("runs").said["mistakes"])
    assert "10 of 100 images wrong" in pages[0]
    assert "3 of 100 images wrong" in pages[1]


def test_the_most_confident_mistakes_are_shown_by_their_test_images() -> None:
    choice = DataChoice(dataset="mnist5k")
    data = open_choice(choice)
    labels = torch.from_numpy(data.test.labels).long()
    wrong = np.random.RandomState(0).permutation(len(labels))[:12]  # the first is the surest, and ten are shown
    said, sure = labels.clone(), torch.full((len(labels),), 5.0)
    said[wrong] = (labels[wrong] + 1) % 10
    sure[wrong] = torch.linspace(9, 6, len(wrong))
    logits = torch.zeros(len(labels), 10)
    logits[torch.arange(len(labels)), said] = sure
    right = len(labels) - len(wrong)
    test = records.replace(made.scored(90, "c"), images=len(labels), correct=right, accuracy=right / len(labels))
    folder = made.write_run(network("small", dataset="digits", test=test, data=describe(data, choice)))
    write_predictions(
        folder / "predictions.parquet",
        torch.cat([torch.stack([torch.arange(len(labels)), labels, said], dim=1).float(), logits], dim=1),
    )
    found = written("runs")
    assert [int(text.split()[-1]) for text in found.all("img", "alt")] == wrong[:10].tolist()
    for place, source in zip(wrong, found.all("img", "src"), strict=False):
        shown = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        np.testing.assert_array_equal(np.asarray(shown), data.test.images[place][..., 0])
    assert f"{100 * torch.softmax(logits[wrong[0]], 0).max():.1f} %" in found.said["mistakes"]


# --- what is there and what is not ---

ALL = {
    "cost",
    "table",
    "seeds",
    "pairs",
    "curves",
    "target",
    "data",
    "shifts",
    "mistakes",
    "calibration",
    "latency",
    "verdicts",
    "failures",
    "environment",
}
COMMANDS = {
    "cnnbench sweep --seeds",
    "cnnbench fit --data.train_images",
    "cnnbench report --target-accuracy",
    "cnnbench robustness",
    "cnnbench test",
    "cnnbench bench",
    "cnnbench export",
}


def test_a_page_of_everything_has_every_section_and_misses_nothing(page: Report) -> None:
    assert page.sections == ALL
    assert page.all("a", "href") == 2 * [f"#{found['id']}" for tag, found in page.tags if tag == "section"]
    assert not [command for command in COMMANDS if command in page.said["footer"]]


def test_a_page_of_one_run_has_three_sections_and_says_what_makes_the_others() -> None:
    made.write_run(network("small"))
    found = written("runs")
    assert found.sections == {"table", "curves", "environment"}
    assert [command for command in COMMANDS if command not in found.said["footer"]] == []


@pytest.mark.parametrize("target", [None, 0.9])
def test_time_to_a_target_is_there_where_one_was_given(target: float | None) -> None:
    made.write_run(network("small"))
    found = written("runs", target=target)
    assert ("target" in found.sections) == (target is not None)
    assert ("--target-accuracy" in found.said["footer"]) == (target is None)


def test_failures_alone_make_a_page() -> None:
    made.write_failure("small", 1, "out of memory")
    found = written("runs")
    assert found.sections == {"failures", "environment"}
    assert [row["reason"] for row in found.cells("failures")] == ["out of memory"]
    assert found.answers == []


def test_bundles_alone_make_a_page() -> None:
    made.write_bundle(network("small"), environment=made.environment())
    made.write_latencies(made.measured(network("small"), SECONDS))
    found = written("exports", "latency.json")
    assert found.sections == {"latency", "verdicts", "environment"}


def test_nothing_at_all_can_be_rendered() -> None:
    write(report_page(Material(Records())), Path("report.html"))
    assert Report(Path("report.html")).sections == {"environment"}


@pytest.mark.parametrize("right", [0, 100])
def test_networks_that_are_all_wrong_or_all_right_can_be_drawn(right: int) -> None:
    for arch in ("small", "large"):
        for seed in (1, 2):
            made.write_certain(made.write_run(network(arch, seed, right)), made.first(right))
    found = written("runs")
    assert {row["accuracy"] for row in found.cells("table")} == {f"{right}.00"}
    assert {"cost", "seeds", "mistakes", "calibration"} <= found.sections


# --- one file, which nothing in it can break out of ---


def test_the_page_fetches_nothing(world: Path, page: Report) -> None:
    linked = [
        value or "" for _, found in page.tags for name, value in found.items() if name in ("src", "href", "xlink:href")
    ]
    assert linked
    assert [value for value in linked if not value.startswith(("#", "data:"))] == []
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "base", "form"}
    (policy,) = [
        found["content"] or "" for tag, found in page.tags if found.get("http-equiv") == "Content-Security-Policy"
    ]
    allowed = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    assert allowed["default-src"] == "'none'"
    assert "connect-src" not in allowed
    assert not {source for sources in allowed.values() for source in sources.split()} - {
        "'none'",
        "'unsafe-inline'",
        "data:",
    }
    style = re.findall(r"<style>.*?</style>", (world / "report.html").read_text(), re.DOTALL)
    assert not re.search(r"@import|url\((?!.?data:)", "".join(style))


def test_every_chart_has_a_still_picture_and_a_specification(world: Path, page: Report) -> None:
    drawn = {chart.section for chart in page.charts}
    assert drawn == {
        "article",
        "cost",
        "seeds",
        "pairs",
        "curves",
        "data",
        "shifts",
        "mistakes",
        "calibration",
        "latency",
    }
    for chart in page.charts:
        assert chart.stills == 1
        assert json.loads(chart.spec)["layer"]
    labels = [found.get("aria-label") for tag, found in page.tags if tag == "div" and found.get("class") == "chart"]
    assert all(labels)
    stills = re.findall(
        r'<div class="still">(.*?)</div>', (world / "report.html").read_text(encoding="utf-8"), re.DOTALL
    )
    assert len(stills) == len(page.charts)
    for still in stills:
        assert ET.fromstring(still).findall(".//{http://www.w3.org/2000/svg}path")


def page_called(called: str) -> Report:
    """The page of records that have this name wherever they have one."""
    runs = []
    for arch, right in ((called, 90), ("other", 80)):
        for seed in (1, 2):
            environment = made.environment(cpu=called, git=Commit(called, False))
            changes = {"dataset": called, "environment": environment}
            runs.append(Run(network(arch, seed, right + seed, **changes), Path()))
    failure = made.Failure(called.replace("/", "-"), called, called, 1, "i", 6, called, 1.0)
    found = Records(runs, [failure])
    write(report_page(Material(found, 0.9)), Path("report.html"))
    return Report(Path("report.html"))


plain_page = cache(page_called)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (index > 1)) for index, name in enumerate(HOSTILE)]
)
def test_what_records_say_is_text(name: str) -> None:
    """The still pictures are `test_charts.py`'s."""
    plain, other = plain_page("plain"), page_called(name)
    assert sorted(tag for tag, _ in other.tags) == sorted(tag for tag, _ in plain.tags)
    assert not [name for _, found in other.tags for name in found if name.startswith("on")]
    assert name in {row["name"] for row in other.cells("table")}
    assert name in other.answers[0]
    assert [row["reason"] for row in other.cells("failures")] == [name]
    assert name in {point["name"] for point in other.points("cost")}


# --- refusals ---


def refused(code: int, *arguments: str) -> None:
    """The command fails with this code and leaves every file as it was."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert main(["report", *arguments]) == code
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line


@pytest.mark.parametrize("there", [True, False], ids=["empty folder", "no folder"])
def test_no_results_are_told_and_no_page_is_written(there: bool, capsys: pytest.CaptureFixture[str]) -> None:
    if there:
        Path("runs").mkdir()
    refused(3, "runs", "--out", "report.html")
    assert "runs" in told(capsys)


@pytest.mark.parametrize("damaged", ["result.json", "predictions.parquet"])
def test_a_damaged_file_is_named_and_the_page_that_was_there_stays(
    damaged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made.write_run(network("small"))
    made.write_certain(folder, made.first(90))
    Path("report.html").write_text("an earlier page")
    path = folder / damaged
    path.write_bytes(path.read_bytes()[:-20])
    refused(3, "runs")
    assert str(path) in told(capsys)


@pytest.mark.parametrize("target", ["0", "1", "99", "-0.5", "nan"])
def test_a_target_that_is_no_fraction_is_refused(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    made.write_run(network("small"))
    refused(2, "runs", f"--target-accuracy={target}")
    assert "target" in told(capsys)


def test_a_folder_in_the_page_s_place_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    made.write_run(network("small"))
    Path("report.html").mkdir()
    refused(2, "runs")
    assert "report.html" in told(capsys)
