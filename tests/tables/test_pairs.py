"""`compare --view pairs`: every pair on the same images, adjusted together, and what is said of the best."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import IMAGES, data_record, first, run_record, write_certain, write_run

from cnnbench.__main__ import main
from cnnbench.analysis.crossed import paired_difference
from cnnbench.analysis.statistics import holm

RIGHT = {"good": 97, "fair": 96, "poor": 60}
SEEDS = (1, 2, 3)


def correct(arch: str, seed: int) -> np.ndarray:
    """`(IMAGES,)` bool: as many as RIGHT, the wrong ones elsewhere for each seed and network."""
    return np.roll(first(RIGHT[arch]), 7 * seed + 40 * (arch == "fair"))


def write_networks(*archs: str, seeds: tuple[int, ...] = SEEDS, **changes: Any) -> None:
    for arch in archs:
        for seed in seeds:
            write_certain(write_run(run_record(arch, seed, RIGHT[arch], **changes)), correct(arch, seed))


def pairs(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main(["compare", "runs", "--view", "pairs", *arguments, "--format", "json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_every_pair_has_its_difference_and_its_p_value_among_all(capsys: pytest.CaptureFixture[str]) -> None:
    write_networks(*RIGHT)
    found = pairs(capsys)
    assert [(row["a"], row["b"]) for row in found] == [("good", "fair"), ("good", "poor"), ("fair", "poor")]
    expected = [
        paired_difference(*(np.stack([correct(row[side], seed) for seed in SEEDS]) for side in "ab")) for row in found
    ]
    for row, difference in zip(found, expected, strict=True):
        assert [row[key] for key in ("mean", "low", "high")] == [difference.mean, difference.low, difference.high]
        assert (row["seeds"], row["images"], row["p"]) == (3, IMAGES, difference.p)
    assert [row["p_holm"] for row in found] == holm([difference.p for difference in expected])
    assert [row["told_apart"] for row in found] == [False, True, True]


def test_two_differences_that_are_shown_by_themselves_are_not_among_three(capsys: pytest.CaptureFixture[str]) -> None:
    """Six images to none has p = 2 / 2^6 = 0.03, of which Holm takes three times."""
    for arch, right in (("all", first(100)), ("early", ~first(6)), ("late", first(94))):
        write_certain(write_run(run_record(arch, 1, int(right.sum()))), right)
    found = pairs(capsys)
    assert [row["p"] for row in found] == pytest.approx([2 / 2**6, 2 / 2**6, 1])
    assert [row["p_holm"] for row in found] == pytest.approx([6 / 2**6, 6 / 2**6, 1])
    assert [row["told_apart"] for row in found] == [False] * 3


def test_the_best_is_said_to_be_better_than_those_that_can_be_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    write_networks(*RIGHT)
    assert main(["compare", "runs", "--view", "pairs", "--format", "markdown"]) == 0
    said = "good is better than poor and cannot be told apart from fair (Holm, 3 pairs)"
    assert capsys.readouterr().out.splitlines()[-1] == said


def test_one_seed_and_missing_predictions_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    write_networks("good", "poor", seeds=(1,))
    write_run(run_record("fair", 1, 96))
    assert main(["compare", "runs", "--view", "pairs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    note = "with one seed this is about these trained networks"
    assert f"good is better than poor (Holm, 1 pair; {note})" in lines
    assert "Predictions are missing: fair (cnnbench test)." in lines


def test_networks_of_other_images_are_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    write_networks("good", "poor")
    write_networks("fair", data=data_record(sha256="others"))
    assert [(row["a"], row["b"]) for row in pairs(capsys)] == [("good", "poor")]


def test_without_a_pair_there_is_nothing_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    write_networks("good")
    assert main(["compare", "runs", "--view", "pairs"]) == 3
    assert "no two networks below runs have predictions of the same test images" in capsys.readouterr().err


def test_the_matrix_is_drawn_where_it_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    write_networks("good", "poor", seeds=(1,))
    assert main(["compare", "runs", "--view", "pairs", "--picture", "matrix.png"]) == 0
    assert "picture: matrix.svg and matrix.png" in capsys.readouterr().out
    drawn = Path("matrix.svg").read_text()
    assert "+37.0" in drawn
    assert "-37.0" in drawn
