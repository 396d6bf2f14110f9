"""Runs that SIGKILL ends at random, again and again: they come to what an undisturbed run comes to, bit for bit."""

import dataclasses
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ddp import children, is_running

from cnnbench import records
from cnnbench.records.schema import RunRecord
from cnnbench.sweeps.plan import Planned, plan, state
from cnnbench.sweeps.run import _arguments
from cnnbench.sweeps.warm import Process, WarmParent
from cnnbench.training.folder import RunFolder
from cnnbench.training.stored import open_checkpoint

pytestmark = pytest.mark.slow

EPOCHS = 60
SETTINGS = ["model.lr=0.02", "data.train_images=256", "data.batch_size=16", "trainer.precision=32-true"]
DDP = ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp"]


@pytest.fixture
def parent() -> Iterator[WarmParent]:
    with WarmParent() as warm:
        yield warm


@dataclasses.dataclass
class Attempts:
    """One run, in as many processes as it takes; each is started as a sweep would start it."""

    run: Planned
    parent: WarmParent

    def __post_init__(self) -> None:
        self.folder = RunFolder(Path(self.run.folder))
        self.folder.path.parent.mkdir(parents=True)
        self.killed: list[str] = []

    def start(self) -> Process:
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self.folder.log.open("ab") as log:
            return self.parent.start(_arguments(self.run, state(self.run)[0]), output=log, environ=environ)

    def said(self) -> str:
        return self.folder.log.read_text() if self.folder.log.exists() else ""

    def finish(self) -> None:
        while state(self.run)[0] != "done":
            assert self.start().wait() == 0, self.said()[-2000:]

    def kill(self, when: Callable[[int], bool], what: str, *, rank: int = 0) -> None:
        """Start, wait until `when` (given the epochs that this process has finished), and kill."""
        before, child = self.said().count("epoch "), self.start()
        while not when(self.said().count("epoch ") - before):
            assert child.poll() is None, self.said()[-2000:]
            time.sleep(0.001)
        others = children(child.pid)
        os.kill(([child.pid, *others])[rank], signal.SIGKILL)
        child.wait()
        until = time.monotonic() + 600
        while any(is_running(pid) for pid in others):
            assert time.monotonic() < until
        self.killed.append(what)


def known(folder: RunFolder) -> dict[str, Any]:
    """What must not depend on when a run was killed: everything but seconds and bytes of memory."""
    record = msgspec.to_builtins(records.read(folder.result, RunRecord))
    for timed in ("train_seconds", "validation_seconds", "resources", "forked"):
        record["fit"].pop(timed, None)
    for part in (*record["fit"]["curve"], record["val"], record["test"]):
        part.pop("train_seconds", None)
        part.pop("checkpoint_sha256", None)  # checkpoints hold seconds
    found: dict[str, Any] = {"record": record}
    for path in (folder.metrics, folder.predictions, folder.val_predictions, folder.config):
        found[path.name] = path.read_bytes()
    for path in (folder.best, folder.last):
        content = open_checkpoint(path).content
        found[path.name] = {name: values.numpy().tobytes() for name, values in content["state_dict"].items()}
    return found


def planned(runs_dir: str, *, epochs: int, more: list[str]) -> Planned:
    overrides = [*SETTINGS, f"trainer.max_epochs={epochs}", *more]
    return plan(["mnist5k_mlp_lenet"], seeds=1, overrides=overrides, runs_dir=runs_dir)[0]


def after(seconds: float, *, epochs: int) -> Callable[[int], bool]:
    """So long after this process has told of so many epochs, the last of which is not in last.ckpt yet."""
    since: list[float] = []

    def passed(told: int) -> bool:
        if told >= epochs and not since:
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] > seconds

    return passed


def test_twenty_kills_change_no_bit(parent: WarmParent) -> None:
    undisturbed = Attempts(planned("undisturbed", epochs=EPOCHS, more=[]), parent)
    undisturbed.finish()
    disturbed = Attempts(planned("disturbed", epochs=EPOCHS, more=[]), parent)
    draw = random.Random(20)
    folder = disturbed.folder
    for number in range(17):
        if number % 3 == 2:
            disturbed.kill(lambda epochs: epochs > 1 and bool([*folder.path.glob(".last-*")]), "writing last.ckpt")
        else:
            disturbed.kill(after(draw.uniform(0, 0.2), epochs=draw.randint(1, 3)), "at random")
    end = f"epoch {EPOCHS}/{EPOCHS}"
    disturbed.kill(lambda _: end in disturbed.said(), "after the last epoch, before the result")
    assert not folder.predictions.exists()
    disturbed.kill(lambda _: True, "when it has just begun")
    disturbed.kill(after_start(draw.uniform(0.1, 0.5)), "while it finishes")
    disturbed.finish()
    print(disturbed.killed)
    assert len(disturbed.killed) == 20
    assert open_checkpoint(folder.last).epoch == EPOCHS - 1
    ours, expected = known(folder), known(undisturbed.folder)
    assert {name for name in expected if ours[name] != expected[name]} == set()
    assert not [*folder.path.glob(".*")]


def after_start(seconds: float) -> Callable[[int], bool]:
    until = time.monotonic() + seconds
    return lambda _: time.monotonic() > until


def test_two_processes_of_which_one_is_killed_come_to_the_same_bits(parent: WarmParent) -> None:
    undisturbed = Attempts(planned("undisturbed", epochs=30, more=DDP), parent)
    undisturbed.finish()
    disturbed = Attempts(planned("disturbed", epochs=30, more=DDP), parent)
    draw = random.Random(2)
    for rank in (0, 1, 1, 0):
        disturbed.kill(after(draw.uniform(0, 0.4), epochs=2), f"process {rank}", rank=rank)
    disturbed.finish()
    ours, expected = known(disturbed.folder), known(undisturbed.folder)
    assert ours["record"]["environment"]["processes"] == 2
    assert {name for name in expected if ours[name] != expected[name]} == set()
    assert not [*disturbed.folder.path.glob(".*")]
