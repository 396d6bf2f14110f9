"""The runs of a race: ordinary ones, planned by the flags that a user would type."""

from pathlib import Path

from cnnbench.shipping.runs import Runs
from cnnbench.shipping.trial import Trial


def test_seeds_follow_the_first_one(tmp_path: Path) -> None:
    runs = Runs(name="mnist5k", dataset="mnist5k", flags=(), recipe=(), folder=tmp_path, first_seed=11)
    planned = [runs.planned(Trial("linear", 3, seed)) for seed in (1, 2)]
    assert [run.seed for run in planned] == [11, 12]
    assert [Path(run.folder).name for run in planned] == ["seed11", "seed12"]
