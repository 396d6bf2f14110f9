"""What a sweep does with one run, and which runs there are. The verb itself is tested in tests/report."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

from cnnbench import records, types
from cnnbench.__main__ import main
from cnnbench.records.schema import Failure, FitResult, Resources, RunRecord
from cnnbench.sweeps import run as sweep
from cnnbench.sweeps.run import Planned, plan, state, supervise
from cnnbench.types import CnnbenchError, Cost, Exit, ImageSpec

SHORT = ["trainer.max_epochs=1"]


def planned(
    names: list[str], seeds: int = 1, overrides: list[str] = SHORT, counts: tuple[int, ...] = ()
) -> list[Planned]:
    return plan(names, seeds, overrides, list(counts), "runs", overwrite=False)


@pytest.fixture(scope="module")
def anywhere(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    return plan(["mnist5k_linear"], 1, SHORT, [], str(tmp_path_factory.mktemp("runs")), overwrite=False)[0]


@pytest.fixture
def linear(anywhere: Planned) -> Planned:
    """A run in this test's folder, where `fit` would have it."""
    return replace(anywhere, folder=str(Path("runs/mnist5k_linear/seed1").resolve()))


def result_of(run: Planned) -> RunRecord:
    """A record as this run would leave it."""
    fit = FitResult(1, 31, 0, 0.5, 500, 4000, 3.0, 0.5, (), Resources(None, "", None, ""))
    test = types.TestResult(accuracy=0.75, loss=1.0, images=500, correct=375, checkpoint_sha256="0" * 64)
    return RunRecord(
        task=run.task,
        arch=run.arch,
        seed=run.seed,
        data={"name": run.dataset},
        spec=ImageSpec(28, 28, 1, 10),
        cost=Cost(1, 1, 1, 1),
        config=run.config,
        environment={},
        fit=fit,
        identity=run.identity,
        fc_weights=1,
        test=test,
    )


def refusal(
    names: list[str], overrides: list[str] = SHORT, counts: tuple[int, ...] = (), code: Exit = Exit.USAGE
) -> str:
    with pytest.raises(CnnbenchError) as refused:
        planned(names, overrides=overrides, counts=counts)
    assert refused.value.code == code
    assert "\n" not in str(refused.value)
    return str(refused.value)


# which runs there are


def test_every_task_has_every_seed_in_a_folder_of_its_own() -> None:
    found = planned(["mnist5k_linear", "mnist5k_mlp"], seeds=2)
    expected = [("mnist5k_linear", 1), ("mnist5k_linear", 2), ("mnist5k_mlp", 1), ("mnist5k_mlp", 2)]
    assert [(run.task, run.seed) for run in found] == expected
    assert [run.config["seed_everything"] for run in found] == [1, 2, 1, 2]
    assert len({run.identity for run in found}) == 4
    for run in found:
        assert Path(run.folder) == Path.cwd() / "runs" / run.task / f"seed{run.seed}"


def test_a_run_travels_as_plain_values(linear: Planned) -> None:
    assert Planned(**{**json.loads(json.dumps(asdict(linear))), "flags": linear.flags}) == linear
    assert pickle.loads(pickle.dumps(linear)) == linear


def test_a_task_by_name_or_file_has_the_configuration_that_fit_has(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("model: {arch: linear, lr: 0.03}\ndata: {batch_size: 50}\n")
    for name in ("mnist5k_linear", "mine.yaml"):
        (run,) = planned([name])
        capsys.readouterr()
        assert main(["fit", "--config", name, "--trainer.max_epochs", "1", "--print_config"]) == 0
        config = yaml.safe_load(capsys.readouterr().out)
        for part in ("model", "data", "trainer"):
            assert {key: run.config[part][key] for key in config[part]} == config[part]
    assert (run.config["model"]["lr"], run.config["data"]["batch_size"]) == (0.03, 50)


def test_a_dataset_and_an_architecture_need_no_task_file() -> None:
    (run,) = planned(["mnist5k_resnet32"])
    assert (run.task, run.arch, run.dataset) == ("mnist5k_resnet32", "resnet32", "mnist5k")
    assert run.config["data"]["batch_size"] == 128  # nothing but the defaults of `fit`


def test_a_task_file_comes_before_the_pair_of_its_name_and_one_s_own_before_the_shipped() -> None:
    shipped = planned(["mnist5k_linear"], overrides=[])[0].config
    assert (shipped["data"]["batch_size"], shipped["trainer"]["max_epochs"]) != (128, 10)  # as no file would have it
    Path("tasks").mkdir()
    Path("tasks/mnist5k_linear.yaml").write_text("model: {arch: linear}\ntrainer: {max_epochs: 99}\n")
    assert planned(["mnist5k_linear"], overrides=[])[0].config["trainer"]["max_epochs"] == 99


def test_overrides_are_flags_of_fit_and_change_what_the_run_is(linear: Planned) -> None:
    (run,) = planned(["mnist5k_linear"], overrides=[*SHORT, "model.lr=0.01", "--data.batch_size=32"])
    assert (run.config["model"]["lr"], run.config["data"]["batch_size"]) == (0.01, 32)
    assert run.identity != linear.identity


def test_a_folder_of_images_is_named_wherever_the_run_is_done() -> None:
    for name in ("cats", "dogs"):
        Path(f"pets/train/{name}").mkdir(parents=True)
        for index in range(12):
            Image.new("RGB", (5, 5), (index, 0, 0)).save(f"pets/train/{name}/{index}.png")
    (run,) = planned(["folder_linear"], overrides=[*SHORT, "data.folder=pets", "data.name=pets"])
    assert run.config["data"]["folder"] == str(Path.cwd() / "pets")
    assert (run.task, run.dataset) == ("pets_linear", "pets")


@pytest.mark.parametrize("count", [10, 63, 64, 100, 300, 1000, 3999, 4000])
def test_fewer_images_take_as_many_steps_as_all_of_them(count: int) -> None:
    overrides = ["trainer.max_epochs=3", "data.batch_size=64"]
    (run,) = planned(["mnist5k_linear"], overrides=overrides, counts=(count,))
    per_epoch = max(1, count // 64)
    whole, steps = 3 * (4000 // 64), run.config["trainer"]["max_epochs"] * per_epoch
    assert abs(steps - whole) <= 3 * per_epoch / 2  # a whole number of epochs for each of the three, rounded
    assert run.config["trainer"]["max_epochs"] == 3 * run.config["trainer"]["check_val_every_n_epoch"]
    assert (run.task, run.config["data"]["train_images"]) == (f"mnist5k_linear_n{count}", count)


def test_each_number_of_images_is_a_task_of_its_own() -> None:
    found = planned(["mnist5k_linear"], seeds=2, counts=(100, 300))
    assert [(run.task, run.seed) for run in found] == [
        ("mnist5k_linear_n100", 1),
        ("mnist5k_linear_n100", 2),
        ("mnist5k_linear_n300", 1),
        ("mnist5k_linear_n300", 2),
    ]


@pytest.mark.parametrize("count", [9, 4001])
def test_a_number_of_images_that_there_are_not_is_refused(count: int) -> None:
    assert f"data.train_images is {count}: expected 10" in refusal(["mnist5k_linear"], counts=(count,))


def test_two_runs_in_one_folder_are_refused() -> None:
    assert "would share" in refusal(["mnist5k_linear", "mnist5k_linear"])
    assert "would share" in refusal(["mnist5k_linear"], counts=(100, 100))
    assert "would share" in refusal(["mnist5k_linear", "mnist5k_mlp"], overrides=["task=both"])


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("mnist5k_linaer", [], "did you mean linear"),
        ("mnist5_linear", [], "did you mean mnist5k_linear"),
        ("gone.yaml", [], "no config file or task 'gone.yaml'"),
        ("mnist5k_linear", ["model.lrr=1"], "did you mean model.lr?"),
        ("mnist5k_linear", ["model.lr"], "--override model.lr: expected KEY=VALUE"),
        ("mnist5k_linear", ["=1"], "expected KEY=VALUE"),
        ("mnist5k_linear", ["trainer.max_epochs=many"], "max_epochs"),
        ("mnist5k_linear", ["data.dataset=mnist6k"], "did you mean mnist5k"),
    ],
)
def test_unknown_names_keys_and_values_are_refused_with_the_nearest(
    name: str, overrides: list[str], words: str
) -> None:
    assert words in refusal([name], overrides=overrides)


def test_missing_data_are_told_before_anything_starts() -> None:
    said = refusal(["mnist_linear"], overrides=["data.root=nowhere"], code=Exit.DATA)
    assert "nowhere" in said


# one run, done in a process of its own; the process is a script of the test's


Script = Callable[[str], None]


@pytest.fixture(autouse=True)
def _going() -> Iterator[None]:
    """Stopping is for the rest of a process's life, unless a sweep begins."""
    sweep.STOPPING.clear()
    yield
    sweep.STOPPING.clear()


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


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("echo epoch 1; echo cnnbench: linear diverged; echo ending; exit 2", 2, "linear diverged"),
        ("echo something odd; exit 1", 1, "exit 1: something odd; see "),
        ("exit 9", 9, "exit 9: it said nothing; see "),
        ("kill -9 $$", -signal.SIGKILL, "ended by SIGKILL (out of memory?); see "),
        ("kill -11 $$", -signal.SIGSEGV, "ended by SIGSEGV; see "),
    ],
)
def test_a_run_that_fails_leaves_its_reason(linear: Planned, script: Script, text: str, code: int, reason: str) -> None:
    script(text)
    outcome = supervise(linear)
    assert outcome.accuracy is None
    assert outcome.reason.startswith(reason)
    left = failure(linear)
    assert (left.code, left.reason, left.identity) == (code, outcome.reason, linear.identity)
    assert (left.task, left.arch, left.dataset, left.seed) == ("mnist5k_linear", "linear", "mnist5k", 1)
    assert state(linear) == ("to do", "")


def test_the_reason_is_what_this_attempt_said_not_an_earlier_one(linear: Planned, script: Script) -> None:
    script("echo cnnbench: out of luck; exit 2")
    supervise(linear)
    script("exit 1")
    assert supervise(linear).reason.startswith("exit 1: it said nothing")
    assert "out of luck" in Path(linear.folder).with_suffix(".log").read_text()  # the log keeps all of them


@pytest.mark.parametrize("text", ["kill -15 $$", "kill -2 $$", "exit 130", "exit 143"])
def test_a_run_that_was_stopped_has_not_failed(linear: Planned, script: Script, text: str) -> None:
    script(text)
    assert supervise(linear).reason
    assert not (Path(linear.folder) / "failure.json").exists()


def test_a_run_that_another_process_is_doing_is_waited_for_and_not_done_twice(linear: Planned, script: Script) -> None:
    script(f"echo start >> starts; while [ ! -e go ]; do sleep 0.02; done; {leaving(linear)}")
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


def test_a_run_whose_sweep_was_killed_stays_locked_as_long_as_it_goes_on(linear: Planned, script: Script) -> None:
    script("echo start >> starts; while [ ! -e go ]; do sleep 0.02; done")
    lock = Path("lock")
    with sweep._locked(lock) as held, Path("log").open("wb") as stream:
        command = [sys.executable]
        one = threading.Thread(target=sweep._watched, args=(command, stream, dict(os.environ), held))
        one.start()
        wait_for(lambda: starts() == 1)
    # this process has let the lock go, as if it had been killed
    waited = threading.Thread(target=lambda: sweep._locked(lock).__enter__())
    waited.start()
    waited.join(0.3)
    assert waited.is_alive()
    Path("go").touch()
    waited.join(30)
    one.join(30)
    assert not waited.is_alive()


def test_stop_ends_the_processes_of_this_one(linear: Planned, script: Script) -> None:
    script("echo $$ > starts; exec sleep 600")
    thread = threading.Thread(target=lambda: supervise(linear))
    thread.start()
    wait_for(lambda: starts() == 1)
    sweep.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert not sweep.RUNNING
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path("starts").read_text()), 0)


def test_a_run_that_waits_for_its_turn_is_not_begun_once_the_sweep_is_stopped(linear: Planned, script: Script) -> None:
    script("echo start >> starts")
    folder = Path(linear.folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    outcomes: list[sweep.Outcome] = []
    with sweep._locked(folder.with_suffix(".lock")):
        thread = threading.Thread(target=lambda: outcomes.append(supervise(linear)))
        thread.start()
        sweep.stop()
        thread.join(30)
    assert not thread.is_alive()
    assert outcomes[0].reason == "stopped before it began"
    assert not Path("starts").exists()


def test_what_the_sweep_decides_cannot_be_overridden(linear: Planned) -> None:
    for key in sweep.DECIDED:
        with pytest.raises(CnnbenchError, match=f"--override {key}=1: the sweep decides that"):
            sweep.plan(["mnist5k_linear"], 1, [f"{key}=1"], [], "runs", False)


def wait_for(happened: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)


def test_a_run_of_something_else_is_left_alone_unless_it_may_be_replaced(linear: Planned, script: Script) -> None:
    script(f'echo "$@" >> starts\n{leaving(linear)}')
    result = Path(linear.folder) / "result.json"
    records.write(result, replace(result_of(linear), identity="f" * 64))
    assert state(linear) == ("stale", "holds a run of another configuration, data or code")
    assert "another configuration" in supervise(linear).reason
    assert starts() == 0
    assert not (Path(linear.folder) / "failure.json").exists()
    assert supervise(replace(linear, overwrite=True)).accuracy == 0.75
    assert Path("starts").read_text().endswith("--test --overwrite\n")


def test_a_result_that_cannot_be_read_is_not_taken_for_done(linear: Planned) -> None:
    Path(linear.folder).mkdir(parents=True)
    (Path(linear.folder) / "result.json").write_text('{"schema": "cnnbench.run/1"}')
    found, why = state(linear)
    assert found == "stale"
    assert "cnnbench.run/1" in why


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
    assert state(linear)[0] == "to go on"
    assert state(replace(linear, identity="f" * 64)) == ("stale", "holds another run")
    script(f'echo "$@" >> starts\n{leaving(linear)}')
    supervise(linear)
    assert Path("starts").read_text().endswith("--test --ckpt_path last\n")


# the real thing


@pytest.mark.slow
def test_a_run_killed_in_the_middle_says_so_and_goes_on() -> None:
    (run,) = planned(["mnist5k_linear"], overrides=["trainer.max_epochs=60"])
    folder = Path(run.folder)
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(supervise(run)))
    thread.start()
    wait_for((folder / "last.ckpt").is_file, 120)
    (child,) = sweep.RUNNING
    os.kill(child.pid, signal.SIGKILL)
    thread.join(60)
    assert outcomes[0].reason.startswith("ended by SIGKILL")
    assert failure(run).code == -signal.SIGKILL
    assert not (folder / "result.json").exists()
    assert state(run)[0] == "to go on"
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


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
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
        started = children(process.pid)
        assert len(started) == 2
        os.kill(process.pid, sent)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == code, said
    assert "Traceback" not in said
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    for folder in folders:
        assert {path.name for path in folder.iterdir()} >= {"best.ckpt", "last.ckpt"}
        assert not (folder / "result.json").exists()
        assert not (folder / "failure.json").exists()
    assert [state(run)[0] for run in planned(["mnist5k_linear"], 2, ["trainer.max_epochs=5000"])] == ["to go on"] * 2
