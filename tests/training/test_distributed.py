"""Two and three processes, and two machines, train the network that one process trains."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ddp import start

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.records.schema import RunRecord
from cnnbench.training.folder import RunFolder
from cnnbench.training.stored import open_checkpoint

pytestmark = pytest.mark.slow

# one step on sixty images, which two and three processes share evenly; without what is drawn, and weight decay
STEP = ["--model.arch", "lenet5", "--model.weight_decay", "0", "--data.pad", "0", "--data.train_images", "60"]
STEP += ["--data.batch_size", "60", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"]
STEP += ["--trainer.precision", "32-true"]  # bfloat16 has three digits
PLACE = Path("mnist5k_lenet5/seed1")


def processes(count: int) -> list[str]:
    return ["--trainer.devices", str(count), "--trainer.strategy", "ddp"] if count > 1 else ["--trainer.devices", "1"]


def run_to_its_end(*arguments: str) -> None:
    process = start(*arguments, code="import os; os.cpu_count = lambda: 3")  # no more processes than cores are taken
    try:
        _, said = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0, said


def gradients(run: RunFolder) -> dict[int, torch.Tensor]:
    """After one step the momentum is the gradient, without weight decay."""
    states = open_checkpoint(run.last).content["optimizer_states"][0]["state"]
    return {number: state["momentum_buffer"] for number, state in states.items()}


def test_gradients_of_two_and_three_processes_are_those_of_one() -> None:
    assert main(["fit", *STEP, "--runs-dir", "1"]) == 0
    alone = gradients(RunFolder("1" / PLACE))
    assert max(float(values.abs().max()) for values in alone.values()) > 0.01
    for count in (2, 3):
        run_to_its_end("fit", *STEP, *processes(count), "--runs-dir", str(count))
        shared = gradients(RunFolder(str(count) / PLACE))
        differences = [float((alone[number] - shared[number]).abs().max()) for number in alone]
        assert max(differences) < 1e-6
        assert records.read(RunFolder(str(count) / PLACE).result, RunRecord).environment.processes == count


def test_every_image_of_splits_of_odd_sizes_is_scored_once() -> None:
    """Own images, of which two processes get unequal shares."""
    random = np.random.default_rng(1)
    sizes = {"train": 60, "val": 11, "test": 13}
    arrays: dict[str, np.ndarray] = {}
    for split, count in sizes.items():
        labels = np.arange(count) % 2
        images = random.integers(0, 156, (count, 8, 8, 1), dtype=np.uint8)
        arrays |= {f"{split}_images": images + np.uint8(99) * labels[:, None, None, None].astype(np.uint8)}
        arrays |= {f"{split}_labels": labels}
    np.savez("own.npz", **arrays)
    short = ["--data.folder", "own.npz", "--model.arch", "linear", "--trainer.max_epochs", "2", "--task", "own"]
    short += ["--data.batch_size", "20", "--trainer.accelerator", "cpu"]
    run_to_its_end("fit", *short, *processes(2), "--test")
    run = RunFolder(Path("runs/own/seed1"))
    shared = records.read(run.result, RunRecord)
    rows = pq.read_table(run.predictions).to_pydict()
    assert shared.test is not None
    assert shared.val is not None
    assert (shared.environment.processes, shared.test.images, shared.val.images) == (2, 13, 11)
    assert rows["index"] == list(range(13))
    assert shared.test.correct == sum(a == b for a, b in zip(rows["label"], rows["prediction"], strict=True))
    shutil.copytree(run.path, "alone/own/seed1")
    assert main(["test", *short, "--trainer.devices", "1", "--runs-dir", "alone"]) == 0
    alone = records.read(RunFolder(Path("alone/own/seed1")).result, RunRecord)
    assert alone.test is not None
    assert (alone.test.correct, alone.test.images) == (shared.test.correct, shared.test.images)
    assert alone.test.loss == pytest.approx(shared.test.loss, rel=1e-6)


# two machines: network namespaces of this one, with a cable between them

NODES = ("cnnbench0", "cnnbench1")


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no network namespaces here: ip {' '.join(words)}: {done.stderr.strip()}")


@pytest.fixture
def nodes() -> Iterator[tuple[str, str]]:
    """Two network namespaces, 10.77.0.1 and 10.77.0.2."""
    if shutil.which("ip") is None:
        pytest.skip("no network namespaces here: there is no `ip`")
    names = (f"{NODES[0]}-{os.getpid()}", f"{NODES[1]}-{os.getpid()}")
    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", names[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1])
        for number, name in enumerate(names, start=1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def test_torchrun_on_two_nodes_trains_what_two_processes_train(nodes: tuple[str, str]) -> None:
    short = [*STEP, "--data.batch_size", "20", "--trainer.max_epochs", "2", "--trainer.strategy", "ddp"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    launch += ["--master-addr", "10.77.0.1", "--master-port", "29400"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "cable"}
    started = []
    try:
        for number, name in enumerate(nodes):
            command = [
                "ip",
                "netns",
                "exec",
                name,
                *launch,
                "--node-rank",
                str(number),
                "-m",
                "cnnbench",
                "fit",
                *short,
            ]
            command += ["--trainer.num_nodes", "2", "--trainer.devices", "1", "--test"]
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ))
        said = [process.communicate(timeout=400)[0].decode() for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)
    record = records.read(RunFolder("runs" / PLACE).result, RunRecord)
    assert record.test is not None
    assert (record.environment.processes, record.test.images) == (2, 500)
    assert said[0].count("test accuracy") == 1
    assert "test accuracy" not in said[1]  # of several processes the first prints
    run_to_its_end("fit", *short, "--trainer.devices", "2", "--runs-dir", "here")
    here, there = (
        open_checkpoint(RunFolder(Path(runs) / PLACE).last).content["state_dict"] for runs in ("here", "runs")
    )
    for name, values in here.items():
        assert torch.allclose(values, there[name], rtol=0, atol=1e-6), name
