"""Mistakes to review: those of the best seed, with files and names, the most confident first."""

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import IMAGES, fitted, run_record, write_run

from cnnbench.__main__ import main
from cnnbench.tables.by_class import mistakes
from cnnbench.tables.gather import gather
from cnnbench.training.predictions import write_predictions

LABELS = torch.arange(IMAGES) % 2


def write_wrong(seed: int, wrong: list[int], *, val: int, names: np.ndarray | None = None) -> None:
    """A run that is wrong on some images, the later ones with more confidence."""
    record = run_record(seed=seed, right=IMAGES - len(wrong), fit=fitted(val), class_names=("cat", "dog"))
    answers = LABELS.clone()
    answers[wrong] = 1 - answers[wrong]
    logits = torch.zeros(IMAGES, 2)
    logits[torch.arange(IMAGES), answers] = 1 + torch.arange(IMAGES) / IMAGES
    columns = torch.stack([torch.arange(IMAGES), LABELS, answers], dim=1).float()
    write_predictions(write_run(record) / "predictions.parquet", torch.cat([columns, logits], dim=1), names=names)


def test_they_are_those_of_the_best_seed_on_validation() -> None:
    names = np.array([f"test/{place}.png" for place in range(IMAGES)], dtype=object)
    write_wrong(1, [3, 50, 8], val=90, names=names)
    write_wrong(2, [4], val=80, names=names)
    found = mistakes(gather(["runs"]))
    assert [(one.seed, one.image, one.file) for one in found] == [
        (1, 50, "test/50.png"),
        (1, 8, "test/8.png"),
        (1, 3, "test/3.png"),
    ]
    assert (found[0].label, found[0].predicted) == ("cat", "dog")
    assert found[0].probability == pytest.approx(1 / (1 + np.exp(-1.5)))
    assert found[0].probability + found[0].probability_of_label == pytest.approx(1)


def test_the_view_prints_the_first_and_writes_all(capsys: pytest.CaptureFixture[str]) -> None:
    write_wrong(1, list(range(0, 80, 2)), val=90)
    assert main(["compare", "runs", "--view", "mistakes", "--out", "review.csv"]) == 0
    printed = capsys.readouterr().out
    assert "30 of 40 mistakes; --out FILE.csv has all" in printed
    assert len(Path("review.csv").read_text().splitlines()) == 41


def test_without_any_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    write_run(run_record())
    assert main(["compare", "runs", "--view", "mistakes"]) == 3
    assert "no mistakes below runs: there are no predictions" in capsys.readouterr().err
