import importlib.util
import runpy
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHARED = ("rounds.py", "loop.py")


@pytest.fixture(scope="module")
def rounds() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rounds", BENCHMARKS / "rounds.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", sorted(path.name for path in BENCHMARKS.glob("*.py") if path.name not in SHARED))
def test_every_script_says_how_it_is_run_and_what_it_holds_against_what(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr("sys.argv", [str(BENCHMARKS / script), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
    printed = capsys.readouterr()
    assert not ended.value.code
    assert f"python benchmarks/{script}" in printed.out
    assert printed.err == ""


def test_every_side_is_measured_once_a_round_and_in_changing_order(rounds: ModuleType) -> None:
    order: list[str] = []
    sides = {name: lambda name=name: float(len(order) + bool(order.append(name))) for name in "abc"}
    found = rounds.interleaved(sides, 20)
    turns = [tuple(order[start : start + 3]) for start in range(0, 60, 3)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert len(set(turns)) > 1  # all alike once in 6 ** 19
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys("abc", 20)


@pytest.mark.parametrize(
    ("fewer_is_better", "least", "ratio", "reached"),
    [(False, 2.0, "2 (1 to 3)", "yes"), (False, 2.1, "2 (1 to 3)", "no"), (True, 0.5, "0.5 (0.333 to 1)", "yes")],
)
def test_the_ratio_is_taken_within_a_round(
    rounds: ModuleType,
    capsys: pytest.CaptureFixture[str],
    fewer_is_better: bool,
    least: float,
    ratio: str,
    reached: str,
) -> None:
    # the ratios of the rounds are 1, 2 and 3; the ratio of the medians would be 20 / 15
    found = {"ours": [20.0, 60.0, 15.0], "theirs": [20.0, 30.0, 5.0]}
    rounds.compared("it", found, unit="images/s", ours="ours", least=least, fewer_is_better=fewer_is_better)
    row = capsys.readouterr().out.splitlines()[2]
    assert f"| {ratio} of 3 rounds |" in row
    assert row.endswith(f"| {reached} |")


def test_the_rate_of_a_run_leaves_its_first_epoch_out(rounds: ModuleType) -> None:
    curve = [
        {"images": 100, "train_seconds": 9.0},
        {"images": 200, "train_seconds": 10.0},
        {"images": 300, "train_seconds": 11.0},
    ]
    assert rounds.images_per_second({"fit": {"curve": curve}}) == 100


def test_a_process_that_fails_ends_the_benchmark_with_its_stderr(rounds: ModuleType) -> None:
    with pytest.raises(SystemExit, match="gone wrong"):
        rounds.process(["-c", "import sys; sys.exit('gone wrong')"])
