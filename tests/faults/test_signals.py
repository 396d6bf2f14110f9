"""Signals to `ship`: Ctrl-C once ships the best so far, twice ends it; after any other the same command goes on."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ddp import children, is_running, start, wait_for

from cnnbench import records
from cnnbench.bundles.verify import verify_bundle
from cnnbench.shipping.record import Decision

pytestmark = pytest.mark.slow

SHIP = ["ship", "--dataset", "mnist5k", "--arch", "linear,mlp_lenet", "--budget", "5h", "--jobs", "1", "--out", "out"]
DECISION = Path("out/decision.json")
ENDING = [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGKILL]


@contextmanager
def ship() -> Iterator["subprocess.Popen[str]"]:
    """`ship` in a process of its own, until a network leads."""
    process = start(*SHIP)
    try:
        assert process.stderr
        for line in process.stderr:
            if " leads with " in line:
                break
        yield process
    finally:
        process.kill()
        process.communicate()


def descendants(pid: int) -> list[int]:
    return [found for child in children(pid) for found in (child, *descendants(child))]


def none_is_left(pids: list[int]) -> None:
    wait_for(lambda: not [pid for pid in pids if is_running(pid)], 60)
    assert not [*Path("out").rglob(".*")]


def test_ctrl_c_ships_the_best_so_far() -> None:
    with ship() as process:
        started = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=900)
    assert process.returncode == 130, said
    assert "the best so far; again to stop" in said
    decision = records.read(DECISION, Decision)
    assert decision.interrupted
    assert decision.chosen
    verify_bundle(Path("out") / decision.chosen.bundle, rescore=True)
    none_is_left(started)


def test_a_second_ctrl_c_ships_nothing() -> None:
    with ship() as process:
        started = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.stderr
        for line in process.stderr:
            if "again to stop" in line:
                break
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "cnnbench: interrupted"
    assert not list(Path("out/exports").rglob("manifest.json"))
    none_is_left(started)


@pytest.mark.parametrize("signum", ENDING, ids=lambda signum: signum.name)
def test_the_same_command_goes_on_with_the_runs_that_had_ended(signum: signal.Signals) -> None:
    with ship() as process:
        started = descendants(process.pid)
        process.send_signal(signum)
        _, said = process.communicate(timeout=300)
    assert process.returncode == (-signum if signum == signal.SIGKILL else 128 + signum), said
    assert "Traceback" not in said
    wait_for(lambda: not [pid for pid in started if is_running(pid)], 60)
    assert signum == signal.SIGKILL or not [*Path("out").rglob(".*")]
    trained = {path: path.stat().st_mtime_ns for path in Path("out/runs").rglob("best.ckpt")}
    assert trained
    with ship():
        pass  # until a network leads again
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
