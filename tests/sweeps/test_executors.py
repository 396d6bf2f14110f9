"""Where runs are done: on this machine, by submitit's local executor, on a real Ray cluster that loses a node."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.records.schema import RunRecord
from cnnbench.sweeps import environ, executors
from cnnbench.sweeps.plan import Planned, plan
from cnnbench.sweeps.run import Outcome
from cnnbench.types import CnnbenchError, Exit


@pytest.fixture
def runs() -> list[Planned]:
    return plan(["mnist5k_linear"], overrides=["trainer.max_epochs=1"])


def refusal(
    planned: list[Planned], executor: executors.Executor, options: dict[str, executors.Option], code: Exit
) -> str:
    with pytest.raises(CnnbenchError) as refused:
        list(executors.execute(planned, executor=executor, options=options))
    assert refused.value.code == code
    assert "\n" not in str(refused.value)
    assert not list(Path("runs").rglob("*.log"))  # nothing was started
    return str(refused.value)


@pytest.mark.parametrize(("executor", "package", "extra"), [("ray", "ray", "ray"), ("slurm", "submitit", "slurm")])
def test_an_executor_that_is_not_installed_is_named_with_its_extra(
    runs: list[Planned], monkeypatch: pytest.MonkeyPatch, executor: executors.Executor, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    said = refusal(runs, executor, {}, Exit.ENVIRONMENT)
    assert said == f"{package} is not installed: pip install 'cnnbench[{extra}]'"


def test_slurm_without_srun_is_told(runs: list[Planned], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path.cwd()))
    said = refusal(runs, "slurm", {}, Exit.ENVIRONMENT)
    assert said.startswith("Slurm cannot be used: ")
    assert "srun" in said


def test_an_option_that_slurm_does_not_know_is_refused(runs: list[Planned]) -> None:
    said = refusal(runs, "slurm", {"cluster": "local", "cpus_per_tusk": 2}, Exit.USAGE)
    assert said.startswith("--executor-options: ")
    assert "cpus_per_tusk" in said


@pytest.mark.parametrize("count", [0, 1])
def test_an_executor_that_there_is_none_of_is_refused(count: int, runs: list[Planned]) -> None:
    with pytest.raises(CnnbenchError, match="executor is 'k8s': expected one of local, ray, slurm"):
        executors.execute(runs[:count], executor="k8s")  # type: ignore[arg-type]


def test_this_machine_takes_no_options(runs: list[Planned]) -> None:
    assert "--jobs" in refusal(runs, "local", {"num_cpus": 2}, Exit.USAGE)


def test_processes_share_the_cores_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [environ.threads_per_run(jobs) for jobs in (1, 2, 3, 16)] == [None, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert environ.threads_per_run(2) is None


def test_the_folder_of_the_data_is_the_same_from_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CNNBENCH_DATA", raising=False)
    assert environ.data_root() is None
    monkeypatch.setenv("CNNBENCH_DATA", "data")
    assert environ.data_root() == str(Path.cwd() / "data")


def test_jobs_are_done_at_a_time_and_each_outcome_comes_as_it_ends(
    runs: list[Planned], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=60)
    second = threading.Event()

    def supervise(run: Planned, **_: Any) -> Outcome:
        if run.seed < 3:
            both.wait()  # breaks unless two are done at a time
        if run.seed == 1:
            assert second.wait(60)
        return Outcome(run.task, run.seed, 0.5, 1.0)

    monkeypatch.setattr(executors, "supervise", supervise)
    outcomes = executors.execute(runs, jobs=2)
    first = next(outcomes)
    assert first.seed in (2, 3)
    second.set()
    assert {first.seed, *(outcome.seed for outcome in outcomes)} == {1, 2, 3}


def test_whoever_stops_asking_stops_the_runs(runs: list[Planned], monkeypatch: pytest.MonkeyPatch) -> None:
    started, stopped = [], threading.Event()

    def supervise(run: Planned, **_: Any) -> Outcome:
        started.append(run.seed)
        if run.seed > 1:
            assert stopped.wait(60)
        return Outcome(run.task, run.seed, 0.5, 1.0)

    monkeypatch.setattr(executors, "supervise", supervise)
    monkeypatch.setattr(executors, "stop", stopped.set)
    outcomes: Any = executors.execute(runs)
    assert next(outcomes).seed == 1
    outcomes.close()
    assert stopped.is_set()
    assert 3 not in started


# the real executors


def check_one_test(folder: Path) -> None:
    """A run has its result, and its log tells of one test."""
    record = records.read(folder / "result.json", RunRecord)
    assert record.test is not None
    assert record.test.images == 500
    assert folder.with_suffix(".log").read_text().count("test accuracy") == 1
    assert not (folder / "failure.json").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # submitit 1.5 leaves the pipes of its jobs open
def test_submitit_does_every_run_and_a_failed_one_is_an_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["sweep", "mnist5k_linear", "--seeds", "2", "--override", "trainer.max_epochs=1"]
    slurm = ["--executor", "slurm", "--executor-options", "cluster=local"]
    assert main([*arguments, *slurm]) == 0
    for seed in (1, 2):
        check_one_test(Path(f"runs/mnist5k_linear/seed{seed}"))
    diverging = [*arguments, "--override", "model.lr=1e6", "--runs-dir", "others", *slurm]
    assert main(diverging) == Exit.SWEEP
    assert "linear diverged" in capsys.readouterr().out
    assert len(list(Path("others").rglob("failure.json"))) == 2


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without CPUs and two nodes of one CPU each, so that runs are done on the nodes alone."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        made.nodes = [made.add_node(num_cpus=1) for _ in range(2)]
        yield made
    finally:
        made.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray leaves sockets and log files to its processes' end
@pytest.mark.filterwarnings("ignore::FutureWarning:ray")  # of its own settings
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the same, found by the collector
def test_a_ray_node_that_dies_in_the_middle_costs_no_run(cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("runs").resolve()
    finished: dict[Path, int] = {}

    def lose_a_node() -> None:
        """Once a run is finished and others are on their way."""
        until = time.monotonic() + 300
        while not finished and time.monotonic() < until:
            time.sleep(0.2)
            done = [path for path in folder.rglob("result.json") if records.read(path, RunRecord).test]
            finished.update({path: path.stat().st_mtime_ns for path in done})
        cluster.remove_node(cluster.nodes[1], allow_graceful=False)

    thread = threading.Thread(target=lose_a_node)
    thread.start()
    code = main(
        [
            "sweep",
            "mnist5k_linear",
            "mnist5k_mlp",
            "--seeds",
            "2",
            "--override",
            "trainer.max_epochs=2",
            "--executor",
            "ray",
            "--executor-options",
            f"address={cluster.address}",
        ]
    )
    thread.join()
    said = capsys.readouterr()
    assert code == 0, said.err
    assert 1 <= len(finished) < 4, "the node was lost too early or too late"
    results = sorted(folder.rglob("result.json"))
    assert len(results) == 4
    for path in results:
        check_one_test(path.parent)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert said.err.count("[4/4]") == 1


@pytest.mark.filterwarnings("ignore::FutureWarning:ray")
def test_an_address_at_which_nothing_listens_is_refused_at_once(runs: list[Planned]) -> None:
    said = refusal(runs, "ray", {"address": "127.0.0.1:1"}, Exit.ENVIRONMENT)  # a port that nobody may take
    assert said.startswith("no Ray cluster at 127.0.0.1:1: ")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning:ray")
def test_without_a_ray_cluster_the_sweep_says_where_it_looked(runs: list[Planned]) -> None:
    assert refusal(runs, "ray", {}, Exit.ENVIRONMENT).startswith("no Ray cluster at ")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning:ray")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_option_that_ray_does_not_know_is_refused(runs: list[Planned], cluster: Any) -> None:
    said = refusal(runs, "ray", {"address": cluster.address, "num_cpu": 1}, Exit.USAGE)
    assert said.startswith("--executor-options: ")
    assert "num_cpu" in said
