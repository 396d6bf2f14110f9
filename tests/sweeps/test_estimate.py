"""Forecasts: bytes against a real folder, seconds against the formula with a step of a given length."""

from pathlib import Path

import pytest
import torch

from cnnbench import records
from cnnbench.records.schema import RunRecord
from cnnbench.sweeps import estimate
from cnnbench.sweeps.plan import Planned, open_data, plan
from cnnbench.types import Dataset


def planned(overrides: list[str], seeds: int = 1) -> list[Planned]:
    return plan(["mnist5k_lenet5"], seeds=seeds, overrides=overrides)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_data(plan(["mnist5k_lenet5"], seeds=1, runs_dir=tmp_path_factory.mktemp("runs"))[0].config, {})


def test_bytes_are_those_of_a_run_s_folder(run: Path, data: Dataset) -> None:
    real = sum(file.stat().st_size for file in run.iterdir())
    assert estimate.disk_bytes(planned([])[0], data) == pytest.approx(real, rel=0.25)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """A step takes a fiftieth of a second; what was timed."""
    timed: list[tuple[str, int, int]] = []

    def step(arch: str, data: Dataset, batch: int, threads: int, precision: str) -> float:
        timed.append((arch, batch, threads))
        return 0.02

    monkeypatch.setattr(estimate, "_step_seconds", step)
    return timed


@pytest.mark.parametrize(("epochs", "batch", "every"), [(1, 50, 1), (10, 50, 1), (10, 64, 1), (10, 64, 5)])
def test_seconds_are_steps_and_a_share_of_it_for_images_that_are_only_scored(
    epochs: int, batch: int, every: int, data: Dataset, steps: list[tuple[str, int, int]]
) -> None:
    flags = {"max_epochs": epochs, "check_val_every_n_epoch": every}
    overrides = [f"data.batch_size={batch}", *(f"trainer.{key}={value}" for key, value in flags.items())]
    (run,) = planned(overrides)
    training = epochs * (4000 // batch) * 0.02
    scoring = (
        (epochs / every * 500 + 500) / batch * 0.02 / 2.72
    )  # of LeNet-5; the first layer computes no gradient of the image
    expected = estimate.START_SECONDS + training + scoring
    assert estimate.seconds(run, data, threads=1) == pytest.approx(expected, rel=1e-3)
    assert steps == [("lenet5", batch, 1)]


def test_an_earlier_seed_counts_more_than_a_few_steps(
    data: Dataset, run: Path, steps: list[tuple[str, int, int]]
) -> None:
    _, second = planned(["trainer.max_epochs=10"], seeds=2)
    record = records.read(run / "result.json", RunRecord)
    before = records.replace(record, fit=records.replace(record.fit, epochs=4, train_seconds=48.0))
    records.write(Path(second.folder).with_name("seed1") / "result.json", before)
    assert estimate.seconds(second, data, threads=1) == estimate.START_SECONDS + 10 * 48.0 / 4
    assert steps == []
    folder = Path(second.folder)
    folder.with_name("seed1").rename(folder.with_name("seed1.replaced"))
    estimate.seconds(second, data, threads=1)
    assert len(steps) == 1  # a run that was set aside does not count


def test_an_earlier_seed_that_cannot_be_read_is_passed_over(data: Dataset, steps: list[tuple[str, int, int]]) -> None:
    _, second = planned(["trainer.max_epochs=10"], seeds=2)
    before = Path(second.folder).with_name("seed1") / "result.json"
    before.parent.mkdir(parents=True)
    before.write_text("{}")
    assert estimate.seconds(second, data, threads=1) > 0
    assert len(steps) == 1


def test_seeds_of_one_task_are_timed_once(steps: list[tuple[str, int, int]]) -> None:
    runs = planned([], seeds=3)
    found = estimate.forecast(runs, threads=2)
    assert set(found) == {run.folder for run in runs}
    assert len(set(found.values())) == 1
    assert [threads for _, _, threads in steps] == [2]


def test_a_step_is_timed_and_the_threads_are_as_before(data: Dataset) -> None:
    before = torch.get_num_threads()
    assert estimate._step_seconds("linear", data, 16, before + 1, "auto") > 0
    assert torch.get_num_threads() == before
