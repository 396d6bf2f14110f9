"""The folder of a run: what is in it, and how it is found."""

import shutil
from pathlib import Path

import pytest

from cnnbench import records
from cnnbench.records.schema import RunRecord
from cnnbench.training.folder import find
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
    assert find(tmp_path / "task") == tmp_path / "task" / "seed2" / "best.ckpt"
    assert find(tmp_path / "task" / "seed1") == tmp_path / "task" / "seed1" / "best.ckpt"


def test_find_says_what_it_expected(tmp_path: Path) -> None:
    with pytest.raises(CnnbenchError, match=r"expected a .ckpt file, or a folder that `fit` wrote") as refused:
        find(tmp_path)
    assert refused.value.code == 3
