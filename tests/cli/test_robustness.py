"""`robustness`: one row per run, measured once."""

import json
import shutil
from pathlib import Path

import pytest

from cnnbench import records
from cnnbench.cli.robustness import robustness
from cnnbench.records.schema import Robustness


@pytest.fixture
def mine(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "runs" / "mnist5k_lenet5" / "seed1"))


def test_a_row_holds_what_the_record_says_and_a_second_call_measures_nothing(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert robustness([str(mine.parent)], images=50, format="json") == 0
    first = capsys.readouterr()
    (row,) = json.loads(first.out)
    found = records.read(mine / "robustness.json", Robustness)
    assert (row["task"], row["seed"], row["images"]) == ("mnist5k_lenet5", 1, 50)
    assert row["unshifted"] == found.accuracy[4][4]
    assert row["mean"] == pytest.approx(sum(sum(line) for line in found.accuracy) / 81)
    assert row["worst"] == min(min(line) for line in found.accuracy)
    assert found.equivariance is not None
    assert [row["equivariance_1px"], row["equivariance_4px"]] == [
        found.equivariance.errors[0],
        found.equivariance.errors[3],
    ]
    assert "kept" not in first.err
    written = (mine / "robustness.json").stat().st_mtime_ns
    assert robustness([str(mine)], images=50) == 0
    again = capsys.readouterr()
    assert f"kept: {mine}" in again.err
    assert f"{100 * row['worst']:.2f}" in again.out
    assert (mine / "robustness.json").stat().st_mtime_ns == written


def test_other_images_are_measured_anew(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert robustness([str(mine)], images=20) == 0
    assert robustness([str(mine)], images=30) == 0
    assert records.read(mine / "robustness.json", Robustness).images == 30
    assert "kept" not in capsys.readouterr().err
