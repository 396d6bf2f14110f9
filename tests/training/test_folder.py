"""The folder of a run: what is in it, and how it is found."""

import shutil
from pathlib import Path

import pytest

from cnnbench import records
from cnnbench.records.schema import RunRecord
from cnnbench.training.folder import find, runs_below, runs_of
from cnnbench.types import CnnbenchError


def test_a_run_leaves_config_metrics_logs_checkpoints_result_and_predictions(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "metrics.csv", "best.ckpt", "last.ckpt", "result.json", "predictions.parquet"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert "val/accuracy" in (run / "metrics.csv").read_text().splitlines()[0]


def test_find_takes_the_seed_with_the_best_validation_accuracy(run: Path, tmp_path: Path) -> None:
    record = records.read(run / "result.json", RunRecord)
    assert record.test is not None
    for seed, (val, test) in {1: (0.90, 0.99), 2: (0.95, 0.10), 3: (0.93, 0.50)}.items():
        folder = tmp_path / "task" / f"seed{seed}"
        folder.mkdir(parents=True)
        shutil.copyfile(run / "best.ckpt", folder / "best.ckpt")
        scored = records.replace(
            record, fit=records.replace(record.fit, val_accuracy=val), test=records.replace(record.test, accuracy=test)
        )
        records.write(folder / "result.json", scored)
    (tmp_path / "task" / "seed2").rename(tmp_path / "task" / "seed4.replaced")
    assert find(tmp_path / "task") == tmp_path / "task" / "seed3" / "best.ckpt"
    (tmp_path / "task" / "seed4.replaced").rename(tmp_path / "task" / "seed2")
    assert find(tmp_path / "task") == tmp_path / "task" / "seed2" / "best.ckpt"
    assert find(tmp_path / "task" / "seed1") == tmp_path / "task" / "seed1" / "best.ckpt"


def test_runs_are_those_with_a_result_that_were_not_set_aside(tmp_path: Path) -> None:
    for name in ("seed1", "seed2", "seed1.replaced", ".hidden", "other"):
        (tmp_path / "task" / name).mkdir(parents=True)
        (tmp_path / "task" / name / "result.json").touch()
    (tmp_path / "task" / "seed3").mkdir()
    expected = [tmp_path / "task" / name for name in ("seed1", "seed2")]
    assert [run.path for run in runs_of(tmp_path / "task")] == expected
    assert [run.path for run in runs_below(tmp_path)] == expected
    assert runs_of(tmp_path / "nowhere") == []


def test_find_says_what_it_expected(tmp_path: Path) -> None:
    with pytest.raises(CnnbenchError, match=r"expected a .ckpt file, or a folder that `fit` wrote") as refused:
        find(tmp_path)
    assert refused.value.code == 3
