"""What a sweep does with one run. The process of the run is a script of the test's, at the end the real one."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builders import run_record

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.records.schema import Failure, RunRecord, TestResult
from cnnbench.sweeps import run as sweep_run
from cnnbench.sweeps.plan import Planned, plan, state
from cnnbench.sweeps.run import Outcome, supervise
from cnnbench.sweeps.warm import Process, can_fork
from cnnbench.training.folder import RunFolder, locked


@pytest.fixture(scope="module")
def anywhere(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    runs_dir = tmp_path_factory.mktemp("runs")
    return plan(["mnist5k_linear"], seeds=1, overrides=["trainer.max_epochs=1"], runs_dir=runs_dir)[0]


@pytest.fixture
def linear(anywhere: Planned) -> Planned:
    """A run in this test's folder, where `fit` would have it."""
    return dataclasses.replace(anywhere, folder=str(Path("runs/mnist5k_linear/seed1").resolve()))


def result_of(run: Planned) -> RunRecord:
    """A record as this run would leave it."""
    test = TestResult(accuracy=0.75, loss=1.0, images=500, correct=375, checkpoint_sha256="0" * 64)
    return records.replace(run_record(run.arch, dataset=run.dataset), identity=run.identity, test=test)


Script = Callable[[str], None]


@pytest.fixture(autouse=True)
def _going() -> Iterator[None]:
    """Stopping is for the rest of a process's life, unless a sweep begins."""
    sweep_run.STOPPING.clear()
    yield
    sweep_run.STOPPING.clear()


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Puts a shell script in the place of Python, which takes seconds to start and learns what it is told to."""

    def place(text: str) -> None:
        file = tmp_path / "python"
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(file))

    return place


def leaving(run: Planned) -> str:
    """A line of shell that leaves the run's result."""
    records.write(Path("prepared.json"), result_of(run))
    return f'mkdir -p "{run.folder}"; cp "{Path.cwd()}/prepared.json" "{run.folder}/result.json"'


def starts() -> int:
    return len(Path("starts").read_text().splitlines()) if Path("starts").exists() else 0


def failure(run: Planned) -> Failure:
    return records.read(Path(run.folder) / "failure.json", Failure)


def test_a_run_is_fit_and_tested_once_with_its_flags_and_threads(linear: Planned, script: Script) -> None:
    script(f'echo "$@" "$OMP_NUM_THREADS" "$CNNBENCH_DATA" >> starts\n{leaving(linear)}')
    outcome = supervise(linear, threads=3, data_root="/data")
    assert (outcome.accuracy, outcome.reason, outcome.skipped) == (0.75, "", False)
    assert Path("starts").read_text() == f"-m cnnbench fit {' '.join(linear.flags)} --test 3 /data\n"
    again = supervise(linear)
    assert (again.accuracy, again.skipped, again.seconds) == (0.75, True, 0.0)
    assert starts() == 1


def test_a_run_that_is_not_to_be_tested_is_done_without(linear: Planned, script: Script) -> None:
    untested = dataclasses.replace(linear, test=False)
    records.write(Path("prepared.json"), records.replace(result_of(linear), test=None))
    script(f'echo "$@" >> starts; mkdir -p "{linear.folder}"; cp "$PWD/prepared.json" "{linear.folder}/result.json"')
    outcome = supervise(untested)
    assert (outcome.accuracy, outcome.reason) == (None, "")
    assert Path("starts").read_text() == f"-m cnnbench fit {' '.join(linear.flags)}\n"
    assert (state(untested)[0], state(linear)[0]) == ("done", "to test")


def test_a_run_that_starts_processes_has_a_new_interpreter(linear: Planned, script: Script) -> None:
    config = records.replace(linear.config, trainer={**linear.config.trainer, "devices": 2})
    script(f"echo >> starts\n{leaving(linear)}")

    def forked(*_: object, **__: object) -> Process:
        raise AssertionError("forked")

    assert supervise(dataclasses.replace(linear, config=config), start=forked).accuracy == 0.75
    assert starts() == 1


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("echo epoch 1; printf 'linear diverged' > $CNNBENCH_ERROR_FILE; echo ending; exit 2", 2, "linear diverged"),
        ("echo cnnbench: something odd; exit 1", 1, "exit 1; see "),
        ("kill -9 $$", -signal.SIGKILL, "ended by SIGKILL (out of memory?); see "),
        (
            "echo an early error > $CNNBENCH_ERROR_FILE; kill -9 $$",
            -signal.SIGKILL,
            "ended by SIGKILL (out of memory?); see ",
        ),
        ("kill -11 $$", -signal.SIGSEGV, "ended by SIGSEGV; see "),
    ],
)
def test_a_run_that_fails_leaves_its_reason(linear: Planned, script: Script, text: str, code: int, reason: str) -> None:
    script(text)
    outcome = supervise(linear)
    assert outcome.accuracy is None
    assert outcome.reason.startswith(reason)
    left = failure(linear)
    assert (left.code, left.explained, left.identity) == (code, outcome.reason, linear.identity)
    assert left.log == (str(Path(linear.folder).with_suffix(".log")) if "; see " in reason else "")
    assert "; see " not in left.reason
    assert (left.task, left.arch, left.dataset, left.seed) == ("mnist5k_linear", "linear", "mnist5k", 1)
    assert state(linear) == ("to do", "")


def test_the_reason_is_what_this_attempt_said_not_an_earlier_one(linear: Planned, script: Script) -> None:
    script("echo out of luck | tee $CNNBENCH_ERROR_FILE; exit 2")
    supervise(linear)
    script("exit 1")
    assert supervise(linear).reason.startswith("exit 1; see ")
    assert "out of luck" in Path(linear.folder).with_suffix(".log").read_text()  # the log keeps all of them
    left = {path.name for path in Path(linear.folder).parent.iterdir()}
    assert left == {"seed1", "seed1.log"}


@pytest.mark.parametrize("text", ["kill -15 $$", "kill -2 $$", "exit 130", "exit 143"])
def test_a_run_that_was_stopped_has_not_failed(linear: Planned, script: Script, text: str) -> None:
    script(text)
    assert supervise(linear).reason
    assert not (Path(linear.folder) / "failure.json").exists()


LOCKING = """
import sys, time
from pathlib import Path
from cnnbench.training.folder import RunFolder, locked
with locked(RunFolder(Path(sys.argv[1]))):
    if Path(sys.argv[1]).exists():
        sys.exit(2)
    with open("starts", "a") as starts:
        print("start", file=starts)
    while not Path("go").exists():
        time.sleep(0.02)
    Path(sys.argv[1]).mkdir()
    Path(sys.argv[1], "result.json").write_bytes(Path("prepared.json").read_bytes())
"""
"""A process that locks the folder of a run, refuses one that exists, and leaves a result once it may: as `fit`."""


def test_a_run_that_another_process_is_doing_is_waited_for_and_not_done_twice(linear: Planned, script: Script) -> None:
    leaving(linear)
    Path("locking.py").write_text(LOCKING)
    script(f'exec "{sys.executable}" locking.py "{linear.folder}"')
    outcomes = []
    both = [threading.Thread(target=lambda: outcomes.append(supervise(linear))) for _ in range(2)]
    for thread in both:
        thread.start()
    try:
        wait_for(lambda: starts() == 1)
        assert outcomes == []
    finally:
        Path("go").touch()
        for thread in both:
            thread.join(30)
    assert sorted((outcome.skipped, outcome.accuracy) for outcome in outcomes) == [(False, 0.75), (True, 0.75)]
    assert starts() == 1
    assert not (Path(linear.folder) / "failure.json").exists()


def test_a_run_that_another_process_takes_at_the_same_moment_is_waited_for_too(
    linear: Planned, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fit` refuses a folder that was locked since the sweep looked; that is no failure of the run."""
    folder = RunFolder(Path(linear.folder))
    script("echo start >> starts; exit 2")
    really_wait, first_looks = sweep_run._wait_for_others, iter([True])
    monkeypatch.setattr(sweep_run, "_wait_for_others", lambda run: next(first_looks, False) or really_wait(run))
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(supervise(linear)))
    with locked(folder):
        thread.start()
        wait_for(lambda: starts() == 1)
        records.write(folder.result, result_of(linear))
    thread.join(30)
    assert [(outcome.skipped, outcome.accuracy) for outcome in outcomes] == [(True, 0.75)]
    assert starts() == 1
    assert not folder.failure.exists()


def test_stop_ends_the_processes_of_this_one(linear: Planned, script: Script) -> None:
    script("echo $$ > starts; exec sleep 600")
    thread = threading.Thread(target=lambda: supervise(linear))
    thread.start()
    wait_for(lambda: starts() == 1)
    sweep_run.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert not sweep_run.RUNNING
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path("starts").read_text()), 0)


def test_a_run_that_waits_for_its_turn_is_not_begun_once_the_sweep_is_stopped(linear: Planned, script: Script) -> None:
    script("echo start >> starts")
    folder = Path(linear.folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    with locked(RunFolder(folder)):
        thread = threading.Thread(target=lambda: outcomes.append(supervise(linear)))
        thread.start()
        sweep_run.stop()
        thread.join(30)
    assert not thread.is_alive()
    assert outcomes[0].reason == "stopped before it started"
    assert not Path("starts").exists()


@pytest.mark.parametrize("text", ["trap '' TERM; while :; do sleep 0.1; done", "sleep 0.2; kill -STOP $$"])
def test_a_process_that_does_not_end_when_it_is_stopped_is_killed(
    linear: Planned, script: Script, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_run, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(sweep_run, "STOP_SECONDS", 0.5)
    script(f"sleep 600 & echo $! $$ > starts; {text}")
    thread = threading.Thread(target=lambda: supervise(linear))
    thread.start()
    wait_for(lambda: starts() == 1)
    time.sleep(0.5)
    sweep_run.stop()
    thread.join(30)
    assert not thread.is_alive()
    for pid in Path("starts").read_text().split():
        wait_for(lambda pid=pid: not running(int(pid)))
    assert not (Path(linear.folder) / "failure.json").exists()
    assert not [*Path(linear.folder).parent.glob(".error-*")]


def test_a_process_that_writes_nothing_any_more_is_ended_with_its_own(
    linear: Planned, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_run, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(sweep_run, "SILENT_SECONDS", 1.0)
    script("sleep 600 & echo $! $$ > starts; for i in 1 2 3 4 5 6; do echo epoch; sleep 0.4; done; kill -STOP $$")
    outcome = supervise(linear)
    assert outcome.reason.startswith("ended: it had written nothing for 1 s; see ")
    assert Path(linear.folder).with_suffix(".log").read_text().count("epoch") == 6
    assert failure(linear).code == -signal.SIGKILL
    for pid in Path("starts").read_text().split():
        wait_for(lambda pid=pid: not running(int(pid)))


def running(pid: int) -> bool:
    """Whether a process is there, and no zombie that nobody has asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(happened: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)


def test_a_run_of_something_else_is_left_alone_unless_it_may_be_replaced(linear: Planned, script: Script) -> None:
    script(f'echo "$@" >> starts\n{leaving(linear)}')
    result = Path(linear.folder) / "result.json"
    records.write(result, records.replace(result_of(linear), identity="f" * 64))
    assert state(linear) == ("outdated", "holds a run of another configuration, data or code")
    assert "another configuration" in supervise(linear).reason
    assert starts() == 0
    assert not (Path(linear.folder) / "failure.json").exists()
    assert supervise(dataclasses.replace(linear, overwrite=True)).accuracy == 0.75
    assert Path("starts").read_text().endswith("--test --overwrite\n")


def test_a_run_that_was_fit_by_hand_is_known_again_and_only_tested(linear: Planned, script: Script) -> None:
    assert state(linear)[0] == "to do"
    assert main(["fit", "--config", "mnist5k_linear", "--trainer.max_epochs", "1"]) == 0
    assert state(linear)[0] == "to test"
    script(f'echo "$@" >> starts\n{leaving(linear)}')
    supervise(linear)
    assert Path("starts").read_text() == f"-m cnnbench test {' '.join(linear.flags)}\n"
    assert state(linear)[0] == "done"


def test_a_run_that_was_interrupted_goes_on_and_another_one_does_not(linear: Planned, script: Script) -> None:
    assert main(["fit", "--config", "mnist5k_linear", "--trainer.max_epochs", "1"]) == 0
    (Path(linear.folder) / "result.json").unlink()
    assert state(linear)[0] == "to resume"
    assert state(dataclasses.replace(linear, identity="f" * 64)) == ("outdated", "holds another run")
    script(f'echo "$@" >> starts\n{leaving(linear)}')
    supervise(linear)
    assert Path("starts").read_text().endswith("--test --ckpt_path last\n")
    (Path(linear.folder) / "result.json").unlink()
    (Path(linear.folder) / "last.ckpt").unlink()  # killed in its first epoch, after a validation
    assert state(linear)[0] == "to do"
    assert state(dataclasses.replace(linear, identity="f" * 64)) == ("outdated", "holds another run")


# the real thing


@pytest.mark.slow
def test_a_run_killed_in_the_middle_says_so_and_goes_on() -> None:
    (run,) = plan(["mnist5k_linear"], seeds=1, overrides=["trainer.max_epochs=60"])
    folder = Path(run.folder)
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(supervise(run)))
    thread.start()
    wait_for((folder / "last.ckpt").is_file, 120)
    (child,) = sweep_run.RUNNING
    os.kill(child.pid, signal.SIGKILL)
    thread.join(60)
    assert outcomes[0].reason.startswith("ended by SIGKILL")
    assert failure(run).code == -signal.SIGKILL
    assert not (folder / "result.json").exists()
    assert state(run)[0] == "to resume"
    assert supervise(run).reason == ""
    fit = records.read(folder / "result.json", RunRecord).fit
    assert [epoch.epoch for epoch in fit.curve] == list(range(1, 61))
    assert not (folder / "failure.json").exists()


def children(pid: int) -> list[int]:
    """Processes that `pid` started, as /proc has them."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # gone meanwhile
            continue
        if parent == pid:
            found.append(int(stat.parent.name))
    return found


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that these have."""
    return [found for child in children(pid) for found in (child, *descendants(child))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)]
)
def test_a_sweep_that_is_stopped_leaves_no_process_and_goes_on_later(sent: signal.Signals, code: int) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "cnnbench",
            "sweep",
            "mnist5k_linear",
            "--seeds",
            "2",
            "--jobs",
            "2",
            "--override",
            "trainer.max_epochs=5000",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore Ctrl-C
    )
    folders = [Path(f"runs/mnist5k_linear/seed{seed}") for seed in (1, 2)]
    try:
        wait_for(lambda: all((folder / "last.ckpt").is_file() for folder in folders), 200)
        started = descendants(process.pid)
        assert len(started) == 2 + can_fork()  # the process that is forked, and the runs
        os.kill(process.pid, sent)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert not [path for path in Path("runs").rglob(".*")]
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    for folder in folders:
        assert {path.name for path in folder.iterdir()} >= {"best.ckpt", "last.ckpt"}
        assert not (folder / "result.json").exists()
        assert not (folder / "failure.json").exists()
    assert [state(run)[0] for run in plan(["mnist5k_linear"], seeds=2, overrides=["trainer.max_epochs=5000"])] == [
        "to resume"
    ] * 2
