"""Two sweeps on one folder, and a sweep that is killed and started again: every run is done, and none twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ddp import wait_for

from cnnbench import records
from cnnbench.records.schema import RunRecord

pytestmark = pytest.mark.slow

EPOCHS = 20
SHORT = ["--override", f"trainer.max_epochs={EPOCHS}", "--override", "data.train_images=256"]


def sweep(tasks: str, seeds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cnnbench", "sweep", *tasks.split(), "--seeds", str(seeds), *SHORT]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)


def all_done_once(runs: int) -> None:
    folders = sorted(path for path in Path("runs").glob("*/seed*") if path.is_dir())
    assert len(folders) == runs
    for folder in folders:
        record = records.read(folder / "result.json", RunRecord)
        assert record.test is not None
        assert record.fit.epochs == EPOCHS
        said = folder.with_suffix(".log").read_text()
        assert [said.count(f"epoch {number}/") for number in range(1, EPOCHS + 1)] == [1] * EPOCHS
        assert not (folder / "failure.json").exists()


def ended(process: "subprocess.Popen[str]") -> str:
    try:
        said = process.communicate(timeout=900)[1]
    finally:
        process.kill()
    assert process.returncode == 0, said
    return said


def test_two_sweeps_with_runs_in_common_do_each_once() -> None:
    first, second = sweep("mnist5k_linear", 3), sweep("mnist5k_linear mnist5k_mlp_lenet", 2)
    ended(first)
    ended(second)
    all_done_once(5)
    assert not [*Path("runs").rglob(".*")]


def test_a_killed_sweep_that_is_started_again_does_nothing_twice() -> None:
    process = sweep("mnist5k_linear", 3)
    try:
        wait_for(Path("runs/mnist5k_linear/seed1/predictions.parquet").is_file, 600, of=process)
        wait_for(Path("runs/mnist5k_linear/seed2/metrics.csv").is_file, 600, of=process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = Path("runs/mnist5k_linear/seed1/result.json")
    before = done.read_bytes(), done.stat().st_mtime
    time.sleep(0.1)
    ended(sweep("mnist5k_linear", 3))
    assert (done.read_bytes(), done.stat().st_mtime) == before
    all_done_once(3)
