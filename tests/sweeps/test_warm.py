"""Runs whose processes are forked: what they compute, how they end, and where a new interpreter is started instead."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
import torch

from cnnbench import records
from cnnbench.records.schema import RunRecord
from cnnbench.sweeps import warm
from cnnbench.sweeps.environ import data_root, environment
from cnnbench.sweeps.warm import WarmParent
from cnnbench.types import ERROR_FILE, Exit

SHORT = [
    "fit",
    *("--model.arch", "lenet5", "--data.dataset", "mnist5k", "--data.train_images", "512"),
    *("--trainer.max_epochs", "2", "--trainer.enable_progress_bar", "false"),
]

pytestmark = pytest.mark.skipif(not warm.can_fork(), reason="no file descriptors of processes on this system")


@pytest.fixture(scope="module")
def parent() -> Iterator[WarmParent]:
    """It has not imported torch, which takes seconds."""
    with WarmParent(["cnnbench.__main__"]) as started:
        yield started


@pytest.fixture(scope="module")
def with_torch() -> Iterator[WarmParent]:
    with WarmParent() as started:
        yield started


@pytest.fixture
def output(tmp_path: Path) -> Iterator[IO[bytes]]:
    with (tmp_path / "output").open("wb") as stream:
        yield stream


def weights(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(run / "best.ckpt", weights_only=True)["state_dict"]
    return found


def test_it_may_be_prepared_before_the_first_run(output: IO[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    with WarmParent(["cnnbench.__main__"]) as started:
        started.prepare(1)
        prepared = started._process
        assert prepared is not None
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "set by an import")
        assert started.start(["--version"], output=output, environ=environment(None, data_root())).wait() == 0
        assert started._process is prepared


def test_what_was_prepared_for_nothing_is_not_waited_for() -> None:
    with WarmParent() as started:  # whose imports take seconds
        started.prepare(1)
        prepared = started._process
    assert prepared is not None
    assert prepared.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_imports_set_only_variables_that_may_differ() -> None:
    code = (
        "import os; before = dict(os.environ); import cnnbench.sweeps.sweep, cnnbench.shipping.ship; "
        "print(*(name for name, value in os.environ.items() if before.get(name) != value))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {*done.stdout.split()} <= {*warm.VOLATILE}


@pytest.mark.slow
def test_a_fork_learns_what_a_new_interpreter_learns_bit_for_bit(
    with_torch: WarmParent, output: IO[bytes], tmp_path: Path
) -> None:
    for place, start in (("forked", with_torch.start), ("fresh", warm.start)):
        arguments = [*SHORT, "--test", "--runs-dir", str(tmp_path / place)]
        assert start(arguments, output=output, environ=os.environ).wait() == 0, Path(output.name).read_text()
    forked, fresh = (tmp_path / place / "mnist5k_lenet5" / "seed1" for place in ("forked", "fresh"))
    ours, theirs = weights(forked), weights(fresh)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    first, second = (records.read(run / "result.json", RunRecord) for run in (forked, fresh))
    assert (first.fit.forked, second.fit.forked) == (True, False)
    assert first.test
    assert second.test
    assert (first.test.logits_sha256, first.test.correct) == (second.test.logits_sha256, second.test.correct)
    assert first.identity == second.identity
    logs = [
        sorted(
            (path.name.split(".")[0], path.stat().st_size)
            for path in run.iterdir()
            if path.suffix not in (".ckpt", ".json")  # these hold times
        )
        for run in (forked, fresh)
    ]
    assert logs[0] == logs[1]
    assert first.environment == second.environment


@pytest.mark.slow
def test_a_fork_is_stopped_as_any_run_is(with_torch: WarmParent, output: IO[bytes], tmp_path: Path) -> None:
    arguments = [*SHORT, "--trainer.max_epochs", "100000", "--runs-dir", str(tmp_path)]
    child = with_torch.start(arguments, output=output, environ=os.environ)
    while not (tmp_path / "mnist5k_lenet5" / "seed1" / "last.ckpt").exists():
        assert child.poll() is None, Path(output.name).read_text()
    child.terminate()
    assert child.wait() == Exit.TERMINATED
    assert isinstance(child, warm.Forked)


@pytest.mark.slow
def test_no_thread_is_at_work_when_all_is_imported() -> None:
    code = "import importlib, sys\nfrom cnnbench.sweeps import warm\n"
    code += "for name in warm.MODULES: importlib.import_module(name)\n"
    code += "print(warm.busy_threads(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] True\n"


def test_output_errors_and_exit_codes_are_those_of_the_command_line(
    parent: WarmParent, output: IO[bytes], tmp_path: Path
) -> None:
    environ = {**os.environ, ERROR_FILE: str(tmp_path / "error")}
    wrong = parent.start(["nonsense"], output=output, environ=environ)
    right = parent.start(["--version"], output=output, environ=environ)
    assert isinstance(wrong, warm.Forked)
    assert isinstance(right, warm.Forked)
    assert (right.wait(), wrong.wait(), wrong.wait(), wrong.poll()) == (0, Exit.USAGE, Exit.USAGE, Exit.USAGE)
    said = (tmp_path / "error").read_text()
    assert "nonsense" in said
    assert f"cnnbench: {said}\n" in Path(output.name).read_text()
    wrong.terminate()  # what has ended is left alone


def test_where_the_process_was_killed_a_new_interpreter_does_the_run(output: IO[bytes]) -> None:
    with WarmParent(["cnnbench.__main__"]) as parent:
        first = parent.start(["--version"], output=output, environ=os.environ)
        assert first.wait() == 0
        assert parent._process
        parent._process.kill()
        parent._process.wait()
        fresh = parent.start(["--version"], output=output, environ=os.environ)
        assert not isinstance(fresh, warm.Forked)
        again = parent.start(["--version"], output=output, environ=os.environ)
        assert [type(child) for child in (first, again)] == [warm.Forked] * 2
        assert (fresh.wait(), again.wait()) == (0, 0)


def test_a_run_whose_environment_libraries_would_read_has_a_process_of_its_own(
    parent: WarmParent, output: IO[bytes]
) -> None:
    numbers = []
    for threads in ("1", "1", "2"):
        parent.start(["--version"], output=output, environ={**os.environ, "OMP_NUM_THREADS": threads}).wait()
        assert parent._process
        numbers.append(parent._process.pid)
    assert numbers[0] == numbers[1] != numbers[2]


def test_a_thread_of_python_is_at_work() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="a worker")
    thread.start()
    try:
        assert "a worker" in warm.busy_threads()
    finally:
        done.set()
        thread.join()
